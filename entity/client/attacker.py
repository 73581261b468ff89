"""What all malicious clients share: poisoned data, and a window of rounds in which to use it."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from entity.client.client import Broadcast, Client, TrainingContext
from entity.client.collusion import Collusion, CollusionMemory
from entity.client.data import LocalData
from entity.client.own_code import checked_copies, checked_model, unchanged
from entity.client.poison import AdaptivePoison, Poison
from entity.config.fields import AttackConfig
from entity.dataset import Images
from entity.federation import poisons_in
from entity.layout import ModelState
from entity.seeding import Seeds
from entity.training import Recipe
from entity.updates import Updates


@dataclass(frozen=True)
class NoArgs:
    """An attack without settings of its own."""


@dataclass(frozen=True)
class Plan:
    """What a malicious client needs to know about the attack."""

    attack: AttackConfig
    poison: Poison
    rank: int
    """Its number among the malicious clients, from 0."""
    targets: Tensor
    """Rows of its data to poison."""
    benign: type[Client] = Client
    """What it is in rounds in which it does not attack: the benign client of the defense."""
    classes: int | None = None
    """Number of classes, where it is known."""


class Attacker(Client):
    """A client that poisons: trains on poisoned samples and sends the resulting model.

    An attack overrides the smallest step it needs: `poisoned` (its data), `corrupt` or
    `local_loss` and `after_step` (its training), `craft` (what it sends), or `collude` (what all
    malicious clients of a round send; `conspire` where they remember or train together). Outside
    the poisoning window, without a sample to poison and while its poison is not ready an attacker
    is a benign client, on clean data and the same code path.
    """

    summary: ClassVar[str]
    """One line for `drop list`."""
    paper: ClassVar[str] = ""
    """Author, year and arXiv id."""
    hyperparameters: ClassVar[type[Any]] = NoArgs
    """The dataclass of the attack's own settings."""
    needs_samples: ClassVar[bool] = True
    """Whether a client without poisoned samples is harmless; not so for attacks on the model."""
    revision: ClassVar[int] = 1
    """To be raised when the same settings give other numbers than in an earlier version: a part of
    the identities of its runs."""

    def __init__(self, id: int, data: LocalData, context: TrainingContext, plan: Plan) -> None:
        super().__init__(id, data, context)
        self.plan = plan

    @cached_property
    def honest(self) -> Client:
        """The client that it is where it does not attack."""
        return self.plan.benign(self.id, self.data, self.context)

    @property
    def args(self) -> Any:
        """The hyper-parameters of this attack."""
        return self.plan.attack.args

    @cached_property
    def without_noise(self) -> Client:
        """The honest client without local differential privacy: a reference, which nobody sees."""
        if self.context.privacy is None:
            return self.honest
        return self.plan.benign(self.id, self.data, replace(self.context, privacy=None))

    @classmethod
    def check(cls, model: nn.Module) -> None:
        """Refuse a model that it cannot attack; by default none.

        Raises
        ------
        ConfigError
            If it cannot; the message says why.
        """

    def fit(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Train on poisoned data in rounds in which it attacks, as a benign client in others."""
        if not self.attacks(broadcast):
            self.honest.fit(model, broadcast)
            return
        with unchanged(self, broadcast.tensors):
            self.corrupt(model, broadcast)
            trained = self.context.spec.flatten(model)
            crafted = self.craft(trained, broadcast)
        if type(self).craft is not Attacker.craft:  # which may have worked in place
            self.context.spec.load(model, checked_model(self, crafted, trained))

    def attacks(self, broadcast: Broadcast) -> bool:
        """Whether it attacks in a round, with what the colluders have learnt until then."""
        plan = self.plan
        if isinstance(plan.poison, AdaptivePoison):
            plan.poison.recall(broadcast.trigger)
        return poisons_in(plan.attack, broadcast.round) and self.armed(plan.poison, plan.targets)

    @classmethod
    def armed(cls, poison: Poison, targets: Tensor) -> bool:
        """Whether it has anything to attack with.

        Parameters
        ----------
        poison
            The poison, as it is by now.
        targets
            Rows of its data to poison.
        """
        return not cls.needs_samples or (poison.ready and len(targets) > 0)

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Train on the poisoned data."""
        self.train(model, broadcast, self.poisoned(), self.attack_recipe)

    @property
    def attack_recipe(self) -> Recipe:
        """How it trains where it attacks: nothing draws it back to the global model."""
        return self.context.recipe

    def poisoned(self) -> LocalData:
        """Return the client's data with the chosen rows poisoned, the same in every round."""
        rows, plan = self.plan.targets, self.plan
        rng = self.context.seeds.generator("poison pixels", client=self.id)
        chosen = Images(self.data.x[rows], self.data.y[rows])
        bad = plan.poison.poison(chosen, plan.rank, rng)
        bad = checked_copies(plan.poison, bad, chosen, plan.classes)
        x, y, marked = self.data.x.clone(), self.data.y.clone(), self.data.poisoned.clone()
        x[rows], y[rows], marked[rows] = bad.x, bad.y, torch.tensor(True)
        return replace(self.data, x=x, y=y, poisoned=marked)

    def craft(self, trained: ModelState, broadcast: Broadcast) -> ModelState:
        """Return what is sent instead of the trained model."""
        return trained

    @classmethod
    def collude(cls, args: Any, updates: Updates, malicious: list[int], seeds: Seeds) -> None:
        """Rewrite the malicious rows of a round's updates in place, knowing all of them.

        Called once a round inside the poisoning window, once all have trained. An attack says in
        its file whether it looks at the colluders' rows alone or at all of them.

        Parameters
        ----------
        args
            The attack's settings.
        updates
            The round, as all clients have trained it.
        malicious
            Rows of those that poison in this round.
        seeds
            Source of all randomness.
        """

    @classmethod
    def conspire(
        cls, updates: Updates, malicious: list[int], collusion: Collusion
    ) -> CollusionMemory:
        """Do what `collude` does, with a memory, models and data; return what to keep.

        Called instead of `collude`, which by default does all and leaves nothing to remember.

        Parameters
        ----------
        updates
            The round, as all clients have trained it; malicious rows are rewritten in place.
        malicious
            Rows of those that poison in this round.
        collusion
            What else they have.
        """
        cls.collude(collusion.args, updates, malicious, collusion.seeds)
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what it keeps as a benign client."""
        return self.honest.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.honest.load_state_dict(state)

    @classmethod
    def colludes(cls, args: Any) -> bool:
        """Whether its clients agree on what they send once all have trained.

        Separate nodes cannot, and neither can clients whose updates are aggregated one by one.
        """
        return (
            getattr(cls.collude, "__func__", None) is not Attacker.collude.__func__
            or getattr(cls.conspire, "__func__", None) is not Attacker.conspire.__func__
        )
