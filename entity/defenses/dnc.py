"""DnC, divide and conquer: the clients that stick out along the round's principal direction go.

Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and
Defenses for Federated Learning", NDSS 2021. A few of the model's parameters are drawn; there every
update is centred on the round's mean and projected on the first right singular vector of what
results; the c f clients with the largest squared projections are left out. That is repeated with
other parameters, and the mean is of those that no repetition left out.

Where we leave the paper and public codes, and why:

- f is a bound that a server can know (`estimate`), not the true number of attackers, unless asked;
- b is at most the number of trained parameters, as frozen ones tell nobody apart, and updates too
  far away for float64 are drawn in (see `reach`): beside one of 1e30 the others' projections are
  all the same number, and ties;
- ties go to the lowest client id; where no client is in all repetitions the global model stays;
- public ports draw how many parameters to draw, too, or project on all singular vectors, which
  gives plain distances from the mean, or on a column of V' for one of V. None of that is here.
"""

from dataclasses import dataclass
from math import floor

import torch
from torch import Tensor

from entity.config.schema import ConfigError, Count, Positive
from entity.defenses.krum import ranked
from entity.server.bound import BoundArgs, BoundedServer, Condition
from entity.server.contract import Setting
from entity.server.reach import drawn_in
from entity.updates import Aggregation, Stopwatch, Updates, rows_by_id, verdicts


@dataclass(frozen=True)
class DncArgs(BoundArgs):
    """Settings of DnC; defaults are the paper's."""

    iterations: Count = 1
    """Times that parameters are drawn; only who passes every time is averaged."""
    parameters: Count = 10_000
    """Parameters that are drawn, b in the paper; all of a smaller model."""
    c: Positive = 1.0
    """Clients that are left out, in units of f."""


def outlier_scores(rows: Tensor) -> Tensor:
    """Return squared projections (n,) of centred rows on their first right singular vector.

    Parameters
    ----------
    rows
        (n, b) the drawn entries of updates, from any origin.

    Examples
    --------
    >>> outlier_scores(torch.tensor([[0.0, 0.0], [0.0, 0.0], [6.0, 0.0]])).float().tolist()
    [4.0, 4.0, 16.0]
    """
    centred = rows.double() - rows.double().mean(0)
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    return (left[:, 0] * values[0]) ** 2


class Dnc(BoundedServer[DncArgs]):
    """The mean of the clients that stick out least along principal directions."""

    summary = "DnC: refuse those with the largest projections on the principal direction"
    paper = "Shejwalkar and Houmansadr, NDSS 2021, doi 10.14722/ndss.2021.24498"
    hyperparameters = DncArgs
    revision = 2
    condition = Condition(2, 1)

    @classmethod
    def check(cls, args: DncArgs, setting: Setting) -> None:
        """Refuse also to leave everybody out."""
        super().check(args, setting)
        n = setting.round_size
        f = cls.expected(args, n, setting.malicious_clients, setting.federation_size)
        if kept_of(n, f, args.c) < 1:
            raise ConfigError(
                f"server.defense.defense_args.c = {args.c:g}: c f = {args.c * f:g} of {n} clients "
                "would be left out, and nobody kept; lower c or f."
            )

    def aggregate(self, updates: Updates) -> Aggregation:
        """Draw parameters, score, keep who is among the lowest every time."""
        watch = Stopwatch()
        n = len(updates)
        f = self.bound(n, updates.round_size)
        count = max(1, kept_of(n, f, self.args.c))
        with watch("score"):
            scores = self._scores(updates)
        accepted = torch.ones(n, dtype=torch.bool)
        for one in scores:
            out = ranked(one, updates.client_ids)[count:]
            accepted[out] = False
        shares = self.shares(updates, accepted)
        with watch("average"):
            state = self.average(updates, shares)
        kept: list[bool] = accepted.tolist()
        reasons = dict.fromkeys(range(n), f"not among the {count} lowest outlier scores")
        judged = verdicts(updates, kept, shares, scores=scores.mean(0).tolist(), reasons=reasons)
        numbers = {**self.report(n, f), "kept": float(sum(kept))}
        return Aggregation(*state, judged, numbers, watch.seconds)

    def _scores(self, updates: Updates) -> Tensor:
        """Return outlier scores (iterations, n)."""
        rng = self.resources.seeds.generator("dnc", round=updates.round)
        spec = updates.spec
        near = drawn_in(updates)
        centre = updates.weights[near.centre]
        order = rows_by_id(updates.client_ids)
        found = torch.zeros(self.args.iterations, len(updates), dtype=torch.float64)
        for one in found:
            drawn = torch.randperm(spec.num_trained, generator=rng)[: self.args.parameters]
            drawn = spec.trained_columns(drawn.sort().values)
            away = updates.weights[order][:, drawn].double() - centre[drawn].double()
            one[order] = outlier_scores(away * near.factors[order][:, None])
        return found


def kept_of(n: int, f: int, c: float) -> int:
    """Return how many of n clients are kept, n - c f rounded down.

    Parameters
    ----------
    n
        Clients that came.
    f
        Bound on the malicious ones among them.
    c
        Clients to leave out, in units of f.

    Examples
    --------
    >>> kept_of(10, 3, 1.0), kept_of(10, 3, 1.5)
    (7, 5)
    """
    return floor(n - c * f + 1e-9)
