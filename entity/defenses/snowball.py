"""Snowball: clients elect a few of themselves, who then pick those that are like them.

Qin et al., "Resisting Backdoor Attacks in Federated Learning via Bidirectional Elections and
Individual Perspective", AAAI 2024, arXiv 2309.16456. Bottom-up election: for the first and the last
layer, every client's view is a k-means of the others' differences from itself, started from itself
and the clients farthest away; it votes for its own cluster, with a weight that grows with the
Calinski-Harabasz index of its clustering. A tenth with the most votes is elected. Top-down
election, from a later round on: a variational autoencoder learns the differences between the
elected; the candidates whose differences from them it reconstructs best join, a twentieth of the
round at a time, and it learns on, until half of the round is elected and averaged.

Where we leave the paper's code, and why:

- at least two are elected, as one has no difference to learn; the code fails for rounds of up to
  ten clients;
- clusterings that are all equally good have votes of one weight, where the code divides by zero;
- a candidate that is equal to an elected client is at difference zero; the code skips differences
  whose *sum* is zero, and divides by their number;
- clusters beside the own, and the first round of the top-down election, follow the size of the
  round and of the experiment by default: a fifth and a quarter, the code's 10 of 50 clients and 25
  of 100 rounds on MNIST; it has other first rounds, written out, for other data;
- the first and the last weight tensor of any model; the code names layers of its own models, and
  takes all linear layers of one of them;
- differences that are too far for inner products are drawn in (`server.reach`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated

import torch
from torch import Tensor

from entity.config.schema import Count, Range
from entity.layout import ParamSpec, Slot, blocks
from entity.server.contract import Needs, Server, Setting
from entity.server.density import LEAST_CLUSTERED, require_clusterable
from entity.server.difference_vae import DifferenceVae
from entity.server.election import votes_of_layer
from entity.server.reach import drawn_in_points
from entity.updates import Aggregation, Stopwatch, Updates, rows_by_id, verdicts

Share = Annotated[float, Range(0, 1, above=True)]


@dataclass(frozen=True)
class SnowballArgs:
    """Settings of Snowball; defaults are the authors'."""

    ct: Count | None = None
    """Clusters beside the own in a client's view, at most the round's clients but two; null takes a
    fifth of the round."""
    elected: Share = 0.1
    """Share of the round that the bottom-up election elects, rounded up, at least two clients."""
    vt: Share = 0.5
    """Share of the round that is elected in the end (M), rounded down."""
    v_step: Share = 0.05
    """Share of the round that joins at a time (M^E), rounded up."""
    top_down_from: Count | None = None
    """First round with the top-down election (T^V); null is a quarter of the rounds."""
    vae_hidden: Count = 256
    """Width of the autoencoder's hidden layers (S^H)."""
    vae_latent: Count = 64
    """Size of its codes (S^L)."""
    vae_initial: Count = 270
    """Epochs of its first training in a round (E^VI)."""
    vae_tuning: Count = 30
    """Epochs before each step of the top-down election (E^VT)."""


class Snowball(Server[SnowballArgs]):
    """The mean of clients that were elected by their like."""

    summary = "Snowball: clients vote by k-means for their like; an autoencoder picks further ones"
    paper = "Qin et al. 2024, arXiv 2309.16456"
    hyperparameters = SnowballArgs
    least_clients = LEAST_CLUSTERED

    @classmethod
    def needs(cls, args: SnowballArgs) -> Needs:
        """Ask for single updates, most of them honest."""
        return Needs(individual_updates=True, honest_majority=True)

    @classmethod
    def check(cls, args: SnowballArgs, setting: Setting) -> None:
        """Refuse rounds too small to cluster."""
        require_clusterable("snowball", setting)

    @classmethod
    def looks_ahead(cls, args: SnowballArgs) -> bool:
        """Return whether the second election begins after a quarter of the rounds."""
        return args.top_down_from is None

    def aggregate(self, updates: Updates) -> Aggregation:
        """Elect, let the elected pick others, average."""
        watch, args, n = Stopwatch(), self.args, len(updates)
        layers = key_layers(updates.spec)
        order = rows_by_id(updates.client_ids)
        with watch("elect"):
            votes = self._votes(updates, layers, order)
        first = ranked(votes, order)[: min(n, max(2, ceil(args.elected * n - 1e-9)))]
        chosen = first
        if updates.round >= self.first_top_down and n > 2:
            with watch("enlarge"):
                chosen = self._enlarged(updates, layers, first, order)
        accepted = [row in set(chosen) for row in range(n)]
        shares = self.shares(updates, torch.tensor(accepted))
        with watch("average"):
            state = self.average(updates, shares)
        reason = "not elected" if chosen is first else "neither elected nor picked"
        judged = verdicts(
            updates,
            accepted,
            shares,
            scores=votes.tolist(),
            reasons=dict.fromkeys(range(n), reason),
        )
        numbers = {"elected": float(len(first)), "picked": float(len(chosen) - len(first))}
        return Aggregation(*state, judged, numbers, watch.seconds)

    @property
    def first_top_down(self) -> int:
        """Number of the first round with the top-down election."""
        given, rounds = self.args.top_down_from, self.resources.rounds
        return given or ceil((rounds or 100) / 4)

    def _votes(self, updates: Updates, layers: Sequence[Slot], order: list[int]) -> Tensor:
        n = len(updates)
        beside = min(self.args.ct or ceil(n / 5), n - 2)
        votes = torch.zeros(n, dtype=torch.float64)
        ids = [updates.client_ids[row] for row in order]
        for layer in layers:
            gram = layer_gram(updates, layer, order)
            squares = gram.diagonal()
            distances = (squares[:, None] + squares[None] - 2 * gram).clamp_min(0).sqrt()
            near = drawn_in_points(gram, distances.fill_diagonal_(0), ids).gram
            votes[order] += votes_of_layer(near, beside)
        return votes

    def _enlarged(
        self, updates: Updates, layers: Sequence[Slot], first: list[int], order: list[int]
    ) -> list[int]:
        """Return the elected rows and those that they pick, in the order of their election."""
        args, n = self.args, len(updates)
        parts = [updates.weights[:, layer.start : layer.stop] for layer in layers]
        models = torch.cat(parts, 1)  # differences of models are those of their updates
        rng = self.resources.seeds.generator("snowball", round=updates.round)
        vae = DifferenceVae(
            models.shape[1], args.vae_hidden, args.vae_latent, rng, self.resources.device
        )
        chosen, epochs, wanted = list(first), args.vae_initial, int(args.vt * n + 1e-9)
        while len(chosen) < wanted:
            pairs = [(a, b) for a in chosen for b in chosen if a != b]
            known = torch.stack([models[a] - models[b] for a, b in pairs])
            vae.learn(known, epochs + args.vae_tuning)
            epochs = 0
            errors = {
                row: float(vae.errors(both_ways(models[chosen], models[row])).mean())
                for row in order
                if row not in chosen
            }
            step = min(ceil(args.v_step * n - 1e-9), wanted - len(chosen))
            chosen += sorted(errors, key=errors.__getitem__)[:step]
        return chosen


def key_layers(spec: ParamSpec) -> list[Slot]:
    """Return the slots of the first and the last weight tensor; all slots where there is none."""
    weights = [slot for slot in spec.parameters if len(slot.shape) > 1]
    return [*dict.fromkeys([weights[0], weights[-1]])] if weights else list(spec.parameters)


def layer_gram(updates: Updates, layer: Slot, order: list[int]) -> Tensor:
    """Return the inner products (n, n) of the updates of one layer, in an order, float64.

    Its last digits, too, do not depend on the order in which the updates arrived.
    """
    gram = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    for columns in blocks(layer.stop - layer.start):
        part = slice(layer.start + columns.start, layer.start + columns.stop)
        block = updates.weights[order, part].double() - updates.global_weights[part].double()
        gram.addmm_(block, block.T)
    return gram


def ranked(votes: Tensor, order: list[int]) -> list[int]:
    """Return the rows by votes (n,), most first; ties, to nine digits, in the order given."""
    return sorted(order, key=lambda row: -float(f"{votes[row]:.9g}"))


def both_ways(elected: Tensor, candidate: Tensor) -> Tensor:
    """Return the differences (2 m, size) of the elected (m, size) and a candidate (size,)."""
    away = elected - candidate
    return torch.cat([away, -away])
