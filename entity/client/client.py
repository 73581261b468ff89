"""A benign client, and the steps of local training that an attack may override."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from entity.client.data import LocalData
from entity.client.poison import TriggerMemory
from entity.client.privacy import Privacy, fit_privately, private_update
from entity.dataset import Augmentation
from entity.layout import ModelState, ParamSpec
from entity.seeding import Seeds
from entity.training import CPU, Recipe, cross_entropy, fit


@dataclass(frozen=True)
class Broadcast:
    """What the server sends to the selected clients of a round."""

    round: int
    state: ModelState
    """The global model."""
    previous: Tensor | None = None
    """(P,) the global weights of the round before, known to a client that remembers them."""
    trigger: TriggerMemory = field(default_factory=dict[str, Tensor])
    """What the colluders of an adaptive poison have learnt; the server does not know it."""

    @property
    def tensors(self) -> list[tuple[str, Tensor]]:
        """All that is sent, with the field that it is of."""
        previous = [] if self.previous is None else [self.previous]
        fields = {"state": self.state, "previous": previous, "trigger": self.trigger.values()}
        return [(name, tensor) for name, tensors in fields.items() for tensor in tensors]


@dataclass(frozen=True)
class TrainingContext:
    """Local training as it is the same for all clients: settings, randomness and device."""

    recipe: Recipe
    augmentation: Augmentation | None
    seeds: Seeds
    spec: ParamSpec
    device: torch.device = CPU
    batchwise_poison: bool = False
    defense_args: Any = None
    """Settings of the server's defense; for defenses that act on the clients' side."""
    prox_mu: float = 0.0
    """mu of FedProx in honest training; an attack is trained without."""
    privacy: Privacy | None = None
    """Local differential privacy of honest clients; an attack is sent without."""


class Client:
    """A client that trains honestly on its own data."""

    def __init__(self, id: int, data: LocalData, context: TrainingContext) -> None:
        self.id = id
        self.data = data
        self.context = context

    def fit(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Train `model`, which holds the global state, in place; the result is sent."""
        if self.context.privacy is None:
            self.train(model, broadcast, self.data, self.honest_recipe)
        else:
            self._fit_privately(model, broadcast, self.context.privacy)

    def _fit_privately(self, model: nn.Module, broadcast: Broadcast, privacy: Privacy) -> None:
        recipe, spec = self.honest_recipe, self.context.spec
        if privacy.unit == "sample":
            batches = self.batches(broadcast, self.data, recipe)
            fit_privately(model, batches, recipe, privacy, self._noise(broadcast))
        else:
            self.train(model, broadcast, self.data, recipe)
            spec.load(model, self.released(spec.flatten(model), broadcast))

    def released(self, trained: ModelState, broadcast: Broadcast) -> ModelState:
        """Return what it sends of its trained model: noised, where privacy is of updates."""
        privacy = self.context.privacy
        if privacy is None or privacy.unit == "sample":
            return trained
        start = broadcast.state.weights.cpu()
        frozen = self.context.spec.frozen
        return private_update(trained, start, privacy, self._noise(broadcast), frozen)

    def _noise(self, broadcast: Broadcast) -> torch.Generator:
        return self.context.seeds.generator("local dp", round=broadcast.round, client=self.id)

    @property
    def honest_recipe(self) -> Recipe:
        """How it trains where it does not attack."""
        return replace(self.context.recipe, prox_mu=self.context.prox_mu)

    def train(
        self, model: nn.Module, broadcast: Broadcast, data: LocalData, recipe: Recipe
    ) -> None:
        """Run local SGD.

        Parameters
        ----------
        model
            Trained in place.
        broadcast
            The round.
        data
            The client's data, or what an attack makes of it.
        recipe
            Rates, batch size and epochs.
        """
        fit(
            model,
            self.batches(broadcast, data, recipe),
            recipe,
            loss=self.local_loss,
            after_step=self.after_step if self.watches_steps else None,
        )

    def batches(
        self, broadcast: Broadcast, data: LocalData, recipe: Recipe
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of a round's training, on the client's device.

        Parameters
        ----------
        broadcast
            The round, which names the random stream.
        data
            What to train on.
        recipe
            Batch size and epochs.
        """
        context = self.context
        rng = context.seeds.generator("fit", round=broadcast.round, client=self.id)
        return data.to(context.device).batches(
            recipe.batch_size,
            recipe.epochs,
            rng,
            augmentation=context.augmentation,
            in_every_batch=context.batchwise_poison,
        )

    watches_steps = False
    """Whether `after_step` does anything; calling it after every step costs time."""

    def local_loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a batch: images (b, C, H, W) in [-1, 1] and labels (b,)."""
        return cross_entropy(model, x, y)

    def after_step(self, model: nn.Module) -> None:
        """Change the model after an optimiser step."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what this client keeps from round to round; by default nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
