"""Impersonation: attackers who look like honest clients, round after round.

Ours, written against our own defense and others that compare clients by what they send. Each
attacker chooses honest clients once and for all and sends, of the first of them that is in the
round,

- `head`: its classifier head, beside the attacker's own layers below. The backdoor sits in the
  features, and what compares heads sees two honest clients;
- `update`: its whole update plus the attacker's push, which is the difference of two trainings of
  the attacker's, on poisoned and on clean data. A history of directions finds the honest client's.

With `impersonated_clients` all attackers share so many honest clients: one is framing, as that
client is pulled into whatever group the attackers form. The attackers see what honest clients send
in the round, as those of ALIE and IPM do who know everything.
"""

import copy
from dataclasses import dataclass
from typing import Literal

from torch import nn

from entity.client.attacker import Attacker
from entity.client.client import Broadcast
from entity.client.collusion import Collusion, CollusionMemory
from entity.config.schema import Count
from entity.layout import ModelState, ParamSpec, Slot
from entity.models import head_of
from entity.seeding import Seeds
from entity.updates import ClientId, Updates, finite_rows, rows_by_id


@dataclass(frozen=True)
class ImpersonationArgs:
    """Hyper-parameters of impersonation (ours)."""

    impersonated: Literal["head", "update"] = "update"
    """What is taken of an honest client: its output layer, or its whole update."""
    impersonated_clients: Count | None = None
    """Honest clients of a round that all attackers share; null has one for each attacker."""


def head_slots(spec: ParamSpec, head: str) -> tuple[Slot, ...]:
    """Return where the weight and the bias of a layer are.

    Parameters
    ----------
    spec
        The model's layout.
    head
        The layer's name.
    """
    return tuple(s for s in spec.parameters if s.name in (f"{head}.weight", f"{head}.bias"))


def chosen_honest(
    attackers: list[ClientId], honest: list[ClientId], shared: int | None, seeds: Seeds
) -> dict[ClientId, ClientId]:
    """Return whom each attacker of a round impersonates.

    Every attacker has an order of all honest clients, the same in all rounds, and takes the first
    that nobody took before it; where all are taken, the first. With `shared` all have one order and
    are dealt out among its first `shared` clients.

    Parameters
    ----------
    attackers, honest
        Clients of the round.
    shared
        How many honest clients serve all attackers; None for one each.
    seeds
        Of the experiment.
    """

    def order(who: ClientId) -> list[ClientId]:
        return sorted(
            honest, key=lambda c: (seeds.number(f"honest face of {who}", client=c), str(c))
        )

    attackers = [attackers[row] for row in rows_by_id(attackers)]
    if shared is not None:
        faces = order("all")[:shared]
        return {who: faces[rank % len(faces)] for rank, who in enumerate(attackers)}
    taken: dict[ClientId, ClientId] = {}
    for who in attackers:
        free = [c for c in order(who) if c not in taken.values()]
        taken[who] = (free or order(who))[0]
    return taken


class Impersonation(Attacker):
    """Sends what an honest client sends, and its own push."""

    summary = "impersonation: an honest client's head or update, plus the attacker's push"
    paper = "ours, against DROP+"
    hyperparameters = ImpersonationArgs
    clean: nn.Module
    """What training on its clean data came to."""

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Train on poisoned data, and with `update` on clean data beside it."""
        if self.args.impersonated == "head":
            super().corrupt(model, broadcast)
            return
        self.clean = copy.deepcopy(model)
        self.train(self.clean, broadcast, self.data, self.context.recipe)
        super().corrupt(model, broadcast)

    def craft(self, trained: ModelState, broadcast: Broadcast) -> ModelState:
        """Leave the push alone: the poisoned training less the clean one."""
        if self.args.impersonated == "head":
            return trained
        push = trained.weights - self.context.spec.flatten(self.clean).weights
        return trained._replace(weights=broadcast.state.weights + push)

    @classmethod
    def conspire(
        cls, updates: Updates, malicious: list[int], collusion: Collusion
    ) -> CollusionMemory:
        """Put on honest clients' heads or updates; remembers nothing."""
        args: ImpersonationArgs = collusion.args
        head = head_of(collusion.new_model())[0] if args.impersonated == "head" else None
        impersonate(updates, malicious, head, args.impersonated_clients, collusion.seeds)
        return {}


def impersonate(
    updates: Updates, malicious: list[int], head: str | None, shared: int | None, seeds: Seeds
) -> None:
    """Rewrite the malicious rows in place; with no honest update that is finite, nothing.

    Parameters
    ----------
    updates
        The round; the attackers look at all of it.
    malicious
        Rows of those that poison in it.
    head
        Name of the layer that is an honest client's; None adds its whole update.
    shared
        How many honest clients serve all attackers; None for one each.
    seeds
        Of the experiment.
    """
    ids = updates.client_ids
    honest = [ids[row] for row in finite_rows(updates) if row not in malicious]
    if not honest:
        return
    faces = chosen_honest([ids[row] for row in malicious], honest, shared, seeds)
    rows = {client: row for row, client in enumerate(ids)}
    start = updates.global_weights
    for row in malicious:
        face = updates.weights[rows[faces[ids[row]]]]
        if head is None:
            updates.weights[row] += face - start
            continue
        for slot in head_slots(updates.spec, head):
            slot.of(updates.weights[row]).copy_(slot.of(face))
