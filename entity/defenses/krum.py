"""Krum and Multi-Krum.

Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
NeurIPS 2017, arXiv 1703.02757. A client's score is the sum of its squared distances to its
n - f - 2 nearest others; Krum takes the client with the lowest score as the next model,
Multi-Krum averages the m lowest. Resilient for n >= 2f + 3.

Public codes take n - f - 1 neighbours, distances that are not squared, f = n // 2, or count
buffers in; none of that happens here. Beyond the paper: ties go to the lowest client id; m is never
more than n - f of the clients that came; updates closer than 1e-6 of their length count as
identical, which is what float32 models resolve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from entity.config.schema import ConfigError, Count
from entity.server.bound import BoundArgs, BoundedServer, Condition
from entity.server.contract import Setting
from entity.updates import Aggregation, ClientId, Stopwatch, Updates, rows_by_id, verdicts


@dataclass(frozen=True)
class KrumArgs(BoundArgs):
    """Settings of Krum: the bound f."""


@dataclass(frozen=True)
class MultiKrumArgs(BoundArgs):
    """Settings of Multi-Krum."""

    multi_k: Count | Literal[False] | None = None
    """m, clients to average; null, or false as the original's configs have it, is n - f. The
    paper proves nothing of more than one."""


def krum_scores(squared_distances: Tensor, f: int) -> Tensor:
    """Return each row's sum of squared distances to its n - f - 2 nearest others, at least one.

    Parameters
    ----------
    squared_distances
        (n, n) squared Euclidean distances.
    f
        Bound on the malicious rows.

    Returns
    -------
    Tensor
        (n,) scores, lowest for the most central row; 0 for a single row.

    Examples
    --------
    >>> points = torch.tensor([[0.0], [1.0], [2.0], [4.0], [50.0]])
    >>> krum_scores((points - points.T) ** 2, f=1).tolist()
    [5.0, 2.0, 5.0, 13.0, 4420.0]
    """
    n = len(squared_distances)
    others = squared_distances.clone().fill_diagonal_(torch.inf)
    neighbours = min(max(1, n - f - 2), n - 1)
    return others.sort(1).values[:, :neighbours].sum(1)


def squared_distances(updates: Updates) -> Tensor:
    """Return the clients' squared distances (n, n), 0 below the resolution of the models."""
    squared = updates.distances**2
    lengths = updates.norms**2
    return torch.where(squared <= 1e-12 * (lengths[:, None] + lengths[None, :]), 0, squared)


def ranked(scores: Tensor, clients: Sequence[ClientId]) -> list[int]:
    """Return rows by increasing score; ties, to ten digits, by client id.

    Examples
    --------
    >>> ranked(torch.tensor([2.0, 1.0, 1.0]), [5, 9, 7])
    [2, 1, 0]
    """
    return sorted(rows_by_id(clients), key=lambda row: float(f"{scores[row]:.9e}"))


B = TypeVar("B", bound=BoundArgs)


class KrumServer(BoundedServer[B]):
    """Average the clients of the lowest scores; Krum takes one of them."""

    condition = Condition(2, 3)

    def selected(self, n: int, f: int) -> int:
        """Return how many clients to average."""
        return 1

    def aggregate(self, updates: Updates) -> Aggregation:
        """Score, select, average."""
        watch = Stopwatch()
        n = len(updates)
        f = self.bound(n, updates.round_size)
        with watch("score"):
            scores = krum_scores(squared_distances(updates), f)
        count = min(n, max(1, self.selected(n, f)))
        accepted = torch.zeros(n, dtype=torch.bool)
        accepted[ranked(scores, updates.client_ids)[:count]] = True
        shares = self.shares(updates, accepted)
        with watch("average"):
            state = self.average(updates, shares)
        reasons = dict.fromkeys(range(n), f"not among the {count} lowest scores")
        kept: list[bool] = accepted.tolist()
        judged = verdicts(updates, kept, shares, scores=scores.tolist(), reasons=reasons)
        return Aggregation(*state, judged, self.report(n, f), watch.seconds)


class Krum(KrumServer[KrumArgs]):
    """The one model that is closest to its neighbours."""

    summary = "Krum: the model with the nearest neighbours"
    paper = "Blanchard et al. 2017, arXiv 1703.02757"
    hyperparameters = KrumArgs


class MultiKrum(KrumServer[MultiKrumArgs]):
    """The mean of the m models that are closest to their neighbours."""

    summary = "Multi-Krum: the mean of the m models with the nearest neighbours"
    paper = "Blanchard et al. 2017, arXiv 1703.02757"
    hyperparameters = MultiKrumArgs

    @classmethod
    def check(cls, args: MultiKrumArgs, setting: Setting) -> None:
        """Refuse also to average more clients than can be honest."""
        super().check(args, setting)
        n = setting.round_size
        f = cls.expected(args, n, setting.malicious_clients, setting.federation_size)
        if args.multi_k and args.multi_k > n - f:
            raise ConfigError(
                f"server.defense.defense_args.multi_k = {args.multi_k}: is more than n - f = "
                f"{n - f} clients that are taken for honest; lower multi_k or f."
            )

    def selected(self, n: int, f: int) -> int:
        """Return m, as many as can be honest at most."""
        wanted = self.args.multi_k or n - f
        if wanted > n - f:
            self.warn_once("m", f"m = {wanted} of {n} clients is lowered to n - f = {n - f}")
        return min(wanted, n - f)
