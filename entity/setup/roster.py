"""The clients of a federation, each built only while it trains."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from entity.client.attacker import Attacker, Plan
from entity.client.client import Broadcast, Client, TrainingContext
from entity.client.collusion import Collusion, CollusionMemory
from entity.client.data import LocalData
from entity.client.own_code import checked_memory, checked_rows
from entity.client.poison import AdaptivePoison, Poison
from entity.client.poisoning import pool_evenly
from entity.client.privacy import Privacy
from entity.config.fields import ExperimentConfig
from entity.dataset import Augmentation, Images, Selection, Shares, normalise
from entity.devices import placed
from entity.federation import poisons_in
from entity.layout import ParamSpec
from entity.models import build_for, examine, find
from entity.seeding import Seeds, global_stream, own_stream
from entity.setup.plugins import Sent, rebuilt
from entity.setup.signatures import refuse_unfinished
from entity.training import CPU, Recipe
from entity.updates import Updates


@dataclass(frozen=True)
class Roster:
    """Who the clients are. Cheap to send to worker processes: the images are in shared memory.

    Memory holds the training images once and an index for each sample; a client exists only
    while it trains.
    """

    config: ExperimentConfig
    images: Images | Selection
    """Training images of the whole federation."""
    shares: Shares
    malicious: frozenset[int]
    attacker: type[Attacker] | None
    poison: Poison | None
    augmentation: Augmentation | None
    classes: int
    benign: type[Client] = Client
    """Class of the benign clients; defenses on the clients' side bring their own."""
    device: torch.device = CPU

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuilt, (Sent(self.config.plugins), type(self), dict(vars(self)))

    @cached_property
    def seeds(self) -> Seeds:
        """The experiment's source of randomness."""
        return Seeds(self.config.settings.seed)

    @cached_property
    def spec(self) -> ParamSpec:
        """Layout of the model; a user's own model is tried out before.

        Raises
        ------
        ConfigError
            If it is a user's own and no classifier of these images.
        """
        model = self.new_model()
        if find(self.config.model).own:
            two = self.images.subset(torch.tensor([0, len(self.images) - 1]))
            examine(self.config.model, model, normalise(two.x), self.classes)
            model = self.new_model()  # a forward pass may leave anything in the other one
        return ParamSpec.of(model)

    def fresh_model(self, generator: torch.Generator) -> nn.Module:
        """Return a classifier with initial weights from `generator`, on the CPU."""
        config = self.config
        return build_for(self.images.shape, config.model, self.classes, generator, config.norm)

    def new_model(self) -> nn.Module:
        """Return the classifier with the experiment's initial weights, on the clients' device."""
        return placed(self.fresh_model(self.seeds.generator("model")), self.device)

    @property
    def recipe(self) -> Recipe:
        """How clients train."""
        client = self.config.client
        return Recipe(
            client.lr,
            client.momentum,
            client.weight_decay,
            client.batch_size,
            client.num_epochs,
            client.amp_enabled,
        )

    def num_samples(self, client_ids: tuple[int, ...]) -> Tensor:
        """Return the registered sizes (n,) of some clients' data."""
        sizes = self.shares.sizes[list(client_ids)]
        for row, client in enumerate(client_ids):
            if self._pools(client):
                sizes[row] = len(self.samples(client))
        return sizes

    def client(self, id: int) -> Client:
        """Build one client with its data."""
        part = self.images.subset(self.samples(id))
        data = LocalData(part.x, part.y, torch.zeros(len(part), dtype=torch.bool))
        attack = self.config.client.attack
        if id not in self.malicious or self.attacker is None or attack is None:
            return self.benign(id, data, self._context(malicious=False))
        assert self.poison is not None
        plan = Plan(
            attack, self.poison, self._ranks[id], self.targets(id), self.benign, self.classes
        )
        with own_stream(self.attacker, self.seeds.generator("an own attacker", client=id)):
            made = self.attacker(id, data, self._context(malicious=True), plan)
        return refuse_unfinished(made, "plan", "context")

    @cached_property
    def _ranks(self) -> dict[int, int]:
        return {client: rank for rank, client in enumerate(sorted(self.malicious))}

    def samples(self, id: int) -> Tensor:
        """Return the indices of a client's images among those of the federation."""
        return self._pooled.samples[self._ranks[id]] if self._pools(id) else self.shares[id]

    def targets(self, id: int) -> Tensor:
        """Return the rows of a malicious client's data that it poisons."""
        return self._pooled.targets[self._ranks[id]] if self._pools(id) else self._chosen(id)

    def _chosen(self, id: int) -> Tensor:
        assert self.poison is not None
        labels = self.images.y[self.shares[id]]
        with own_stream(self.poison, self.seeds.generator("choice of an own poison", client=id)):
            chosen = self.poison.choose(labels, self.seeds.generator("poison", client=id))
        return checked_rows(self.poison, chosen, len(labels))

    @cached_property
    def poisoned_share(self) -> float | None:
        """What the malicious clients poison of all their samples: the paper's DPR, as it came out.

        None where nobody poisons data.
        """
        attack = self.config.client.attack
        if attack is None or not attack.takes_place or not self.malicious:
            return None
        assert self.attacker is not None
        if not self.attacker.needs_samples:
            return None
        held = sum(len(self.samples(client)) for client in self.malicious)
        return sum(len(self.targets(client)) for client in self.malicious) / held

    def _pools(self, id: int) -> bool:
        """Whether a client's poisoned samples are divided evenly among it and others."""
        attack = self.config.client.attack
        pooled = attack is not None and attack.non_iid_equal_distribution and attack.takes_place
        return pooled and id in self.malicious

    @cached_property
    def _pooled(self) -> "_Pooled":
        """What malicious clients hold once their poisoned samples are divided evenly."""
        ids = sorted(self.malicious)
        pool = pool_evenly(
            [self.shares[client] for client in ids],
            [self._chosen(client) for client in ids],
            self.seeds.generator("pool of poison"),
        )
        return _Pooled(
            Shares.of_parts([holding.samples for holding in pool]),
            Shares.of_parts([holding.targets for holding in pool]),
        )

    def colluders(self, client_ids: tuple[int, ...], round: int) -> frozenset[int]:
        """Return those of some clients that may attack in a round, and improve their poison."""
        attack = self.config.client.attack
        if attack is None or not poisons_in(attack, round):
            return frozenset()
        return frozenset(filter(self.is_harmful, self.malicious.intersection(client_ids)))

    def poisoning(self, client_ids: tuple[int, ...], round: int) -> frozenset[int]:
        """Return those of some clients that attack in a round.

        An adaptive poison may not be good enough yet: ask after `adapt`.
        """
        attacker, poison = self.attacker, self.poison
        if attacker is None or poison is None:
            return frozenset()
        colluders = self.colluders(client_ids, round)
        return frozenset(c for c in colluders if attacker.armed(poison, self.targets(c)))

    def is_harmful(self, id: int) -> bool:
        """Whether a malicious client has anything to attack with."""
        assert self.attacker is not None
        return not self.attacker.needs_samples or len(self.targets(id)) > 0

    def updates(
        self, broadcast: Broadcast, client_ids: tuple[int, ...], weights: Tensor, buffers: Tensor
    ) -> Updates:
        """Return the round's updates.

        Parameters
        ----------
        broadcast
            The global model.
        client_ids
            The n clients of the round.
        weights, buffers
            (rows, P) and (rows, B) with rows >= n: their models, in order.
        """
        n = len(client_ids)
        return Updates(
            broadcast.round,
            client_ids,
            weights[:n],
            buffers[:n],
            self.num_samples(client_ids),
            *broadcast.state,
            spec=self.spec,
        )

    def collude(
        self,
        updates: Updates,
        poisoning: frozenset[int],
        broadcast: Broadcast,
        memory: CollusionMemory,
    ) -> tuple[Updates, CollusionMemory]:
        """Let the poisoning clients of a round agree on what they send.

        Parameters
        ----------
        updates
            The round, as all have trained it.
        poisoning
            Those that attack in it.
        broadcast
            What all started from.
        memory
            What colluders kept in their last round.

        Returns
        -------
        tuple
            The sent updates, and what they keep for their next round.
        """
        attack = self.config.client.attack
        rows = [row for row, client in enumerate(updates.client_ids) if client in poisoning]
        if self.attacker is None or attack is None or not rows:
            return updates, memory
        collusion = Collusion(
            attack.args, self.seeds, broadcast, memory, self._recruited, self.new_model
        )
        if isinstance(self.poison, AdaptivePoison):
            self.poison.recall(broadcast.trigger)
        stream = self.seeds.generator("collusion of an own attack", round=broadcast.round)
        with own_stream(self.attacker, stream):
            kept = self.attacker.conspire(updates, rows, collusion)
        kept = checked_memory(self.attacker, "conspire", kept)
        # A copy, without distances that the attackers may have had computed.
        return replace(updates), kept

    def _recruited(self, id: int) -> Attacker:
        client = self.client(id)
        assert isinstance(client, Attacker)
        return client

    def adapt(self, broadcast: Broadcast, colluders: frozenset[int]) -> Broadcast:
        """Let the colluders of a round improve an adaptive poison; return the broadcast with it.

        They learn on the data of the one with the lowest id.
        """
        if not isinstance(self.poison, AdaptivePoison) or not colluders:
            return broadcast
        self.poison.recall(broadcast.trigger)
        model = self.new_model()
        self.spec.load(model, broadcast.state)
        images = self.images.subset(self.samples(min(colluders)))
        stream = self.seeds.generator("adaptive poison", round=broadcast.round)
        dropout = self.seeds.generator("adaptive poison dropout", round=broadcast.round)
        with global_stream(dropout):  # dropout draws from it
            learnt = self.poison.adapt(model, images, broadcast.round, stream)
        return replace(broadcast, trigger=checked_memory(self.poison, "adapt", learnt))

    def _context(self, malicious: bool) -> TrainingContext:
        client = self.config.client
        recipe = self.recipe
        if malicious and client.amp_enabled_only_for_clean:
            recipe = Recipe(**{**vars(recipe), "amp_enabled": False})
        return TrainingContext(
            recipe,
            self.augmentation if client.transform else None,
            self.seeds,
            self.spec,
            self.device,
            client.batchwise_poison,
            self.config.server.defense.defense_args,
            client.prox_mu,
            None
            if client.dp_clip is None
            else Privacy(client.dp_clip, client.dp_noise, client.dp_unit),
        )


class _Pooled(NamedTuple):
    """Holdings in four tensors: of tensors for each client, a large federation cannot be sent."""

    samples: Shares
    """By the rank of a malicious client, its samples."""
    targets: Shares
    """Positions in them that it poisons."""
