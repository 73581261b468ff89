"""Local training of many clients at once on one device: their models stacked by `torch.func`.

For small models on a GPU, which one client at a time leaves idle. Clients see the same batches in
the same order as on any engine, but sums are taken in another order, so weights do not agree with
those of `inline` to the bit: within 1e-4 after two short rounds of the `cnn` and, at a rate of
0.02, of `lenet` (some ten steps a client). Every step makes more of the rounding, so more steps and
deeper networks part further: 7e-4 in a round of `mnist5k/drop`, 4e-3 on `resnet8` with GroupNorm
(in double precision 1e-9). On a CPU this is no faster, and `auto` never chooses it.
"""

import logging
from types import TracebackType
from typing import Self

import torch
from torch import nn

from entity.client import Attacker, Broadcast, Client, LocalData
from entity.client.poison import AdaptivePoison
from entity.engine.contract import Accept
from entity.engine.local_training import Workbench, single_threaded
from entity.engine.schedule import Memory
from entity.engine.stacked import fit_stacked
from entity.federation import poisons_in
from entity.layout import ModelState
from entity.setup.roster import Roster
from entity.training import Recipe
from entity.updates import Updates

log = logging.getLogger("entity")

_OWN_WAY = ("train", "batches", "local_loss", "state_dict")
"""Methods that a client must have from `Client` to be stacked."""


class Vectorized:
    """Stacks the clients that train by the plain loop; the others train one after another."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.memory: dict[int, Memory] = {}
        self.bench = Workbench(roster)
        settings, rows = roster.config.settings, roster.config.federation.round_size
        self.most = settings.num_parallel_max
        held = min(self.most, rows) if settings.streaming else rows
        self.weights = torch.empty(held, roster.spec.num_parameters)
        self.buffers = torch.empty(held, roster.spec.num_buffers)
        self._said: set[str] = set()

    def train(self, broadcast: Broadcast, client_ids: tuple[int, ...]) -> Updates:
        """Train the clients, at most `settings.num_parallel_max` at once."""
        for start in range(0, len(client_ids), self.most):
            self._train(broadcast, client_ids[start : start + self.most], start)
        return self.roster.updates(broadcast, client_ids, self.weights, self.buffers)

    def stream(self, broadcast: Broadcast, client_ids: tuple[int, ...], accept: Accept) -> None:
        """Train as many at once, and hand them on."""
        for start in range(0, len(client_ids), self.most):
            some = client_ids[start : start + self.most]
            self._train(broadcast, some, 0)
            for place in range(len(some)):
                accept(start + place, self._place(place))

    def _place(self, row: int) -> ModelState:
        return ModelState(self.weights[row], self.buffers[row])

    def _train(self, broadcast: Broadcast, client_ids: tuple[int, ...], first: int) -> None:
        """Train clients into the rows from `first` on."""
        stacks: dict[Recipe, list[tuple[int, Client]]] = {}
        for row, id in enumerate(client_ids, first):
            client = self.roster.client(id)
            why = obstacle(client, broadcast, self.bench.model)
            if why:
                if why not in self._said:
                    log.info("engine vectorized: %s, so one trains after another", why)
                    self._said.add(why)
                known = {name: kept.clone() for name, kept in self.memory.get(id, {}).items()}
                memory = self.bench.train(broadcast, id, self._place(row), known)
                if memory:
                    self.memory[id] = memory
            else:
                stacks.setdefault(client.context.recipe, []).append((row, client))
        for recipe, stack in stacks.items():
            with single_threaded():
                self._fit(broadcast, stack, recipe)

    def _fit(self, broadcast: Broadcast, stack: list[tuple[int, Client]], recipe: Recipe) -> None:
        model, spec = self.bench.model, self.roster.spec
        spec.load(model, broadcast.state)
        model.train()
        start = {name: value.detach() for name, value in model.named_parameters()}
        lessons = [
            client.batches(broadcast, lesson(client, broadcast), recipe) for _, client in stack
        ]
        trained = fit_stacked(model, start, lessons, recipe)
        for (row, client), parameters in zip(stack, trained, strict=True):
            place = self._place(row)
            for slot, value in zip(spec.parameters, parameters.values(), strict=True):
                place.weights[slot.start : slot.stop].view(slot.shape).copy_(value)
            if isinstance(client, Attacker) and _poisons(client, broadcast):
                sent = client.craft(ModelState(place.weights.clone(), place.buffers), broadcast)
                place.weights.copy_(sent.weights)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing was started."""


def obstacle(client: Client, broadcast: Broadcast, model: nn.Module) -> str:
    """Say why a client cannot be stacked; nothing if it can."""
    if next(model.buffers(), None) is not None:
        return "the model has buffers, as BatchNorm has (norm: group has none)"
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):  # pyright: ignore[reportPrivateUsage]
            return "the model has dropout"
    kind = type(client)
    plain = all(getattr(kind, name) is getattr(Client, name) for name in _OWN_WAY)
    if isinstance(client, Attacker):
        if not _poisons(client, broadcast):
            return ""
        plain = plain and _as_badnets(type(client))
    else:
        plain = plain and kind.fit is Client.fit
    if plain and not client.watches_steps:
        return ""
    return f"clients of {kind.__name__} train in a way of their own"


def _as_badnets(kind: type[Attacker]) -> bool:
    return kind.fit is Attacker.fit and kind.corrupt is Attacker.corrupt


def lesson(client: Client, broadcast: Broadcast) -> LocalData:
    """Return what a client trains on in a round."""
    if not isinstance(client, Attacker) or not _poisons(client, broadcast):
        return client.data
    if isinstance(client.plan.poison, AdaptivePoison):
        client.plan.poison.recall(broadcast.trigger)
    return client.poisoned()


def _poisons(client: Attacker, broadcast: Broadcast) -> bool:
    return poisons_in(client.plan.attack, broadcast.round)
