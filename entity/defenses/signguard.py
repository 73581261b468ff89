"""SignGuard: refuse unusual lengths and unusual shares of positive and negative signs.

Xu, Huang, Song and Lan, "Byzantine-robust Federated Learning through Collaborative Malicious
Gradient Filtering", ICDCS 2022, arXiv 2109.05872. Two filters: the norm of an update lies within
0.1 and 3 times the round's median; and the shares of its entries that are positive, zero and
negative, among a tenth of the parameters drawn anew, are in the largest cluster of a mean shift.
Who passes both is clipped to the median norm and averaged. SignGuard-Sim and SignGuard-Dist add a
fourth feature, the cosine or the distance to the last aggregate.

Where we leave the paper and the authors' code, and why:

- parameters are drawn from the whole model; the code takes a window, which may lie in one layer;
- bounds include their ends and idle clients are scaled by 1: where most have changed nothing, the
  code's strict bounds refuse them, and it divides by their norms;
- a bandwidth of zero, of features that mostly coincide, is a small one (scikit-learn refuses it);
- where the median cosine is not positive, the code's feature is the same number for all; so here;
- the cosine or distance is to the last aggregate from the second round on; the code takes medians
  over the round itself through its first three epochs, and the distances' through its first;
- among fewer than four clients, where closeness means nothing, the global model stays;
- medians of an even number are means, bandwidths are of all (the code: the lower one; of fifty).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from entity.config.schema import Range
from entity.defenses.norm_clipping import clip_factors
from entity.server.contract import Needs, Resources, Server, Setting
from entity.server.density import LEAST_CLUSTERED, require_clusterable
from entity.updates import Aggregation, ClientId, Stopwatch, Updates, rows_by_id, verdicts

_LEAST_WIDTH = 1e-6
"""Bandwidth of a mean shift over features of which most coincide."""
_DIGITS = 12
"""Decimals of a feature that count: the rest is rounding, and must not break ties."""
_FAR = 1.1
"""SignGuard-Dist: medians of the distances from the last aggregate that are far (the code's)."""
_SCALE = 5.0
"""What the code divides the fourth feature by, so that signs weigh more."""


@dataclass(frozen=True)
class SignGuardArgs:
    """Settings of SignGuard; defaults are the authors'."""

    low: Annotated[float, Range(0, 1)] = 0.1
    """Least norm that passes, in medians of the round."""
    high: Annotated[float, Range(1)] = 3.0
    """Largest norm that passes, in medians of the round."""
    share: Annotated[float, Range(0, 1, above=True)] = 0.1
    """Share of the parameters whose signs are counted, drawn in every round."""
    feature: Literal["none", "cosine", "distance"] = "none"
    """Fourth feature: none, or similarity to the last aggregate, of SignGuard-Sim or -Dist."""


def sign_features(rows: Tensor) -> Tensor:
    """Return the shares (n, 3) of positive, zero and negative entries, each over its largest.

    Examples
    --------
    >>> sign_features(torch.tensor([[1.0, 2.0, 0.0, -1.0], [3.0, -1.0, -2.0, -1.0]])).tolist()
    [[1.0, 1.0, 0.3333333333333333], [0.5, 0.0, 1.0]]
    """
    counts = torch.stack([(rows > 0).sum(1), (rows == 0).sum(1), (rows < 0).sum(1)], 1).double()
    return counts / counts.amax(0).clamp_min(1)


def largest_cluster(features: Tensor, client_ids: Sequence[ClientId]) -> Tensor:
    """Return who (n,) bool is in the largest cluster of a mean shift over features (n, m).

    The bandwidth is the mean distance to the half of the others that are nearest, scikit-learn's
    estimate at quantile 0.5. Of clusters of one size it is the densest.

    Parameters
    ----------
    features
        (n, m), one row a client.
    client_ids
        Whose they are.
    """
    from sklearn.cluster import MeanShift, estimate_bandwidth  # half a second, only needed here

    order = rows_by_id(client_ids)
    points = np.round(features[order].double().numpy(), _DIGITS)
    width = max(float(estimate_bandwidth(points, quantile=0.5)), _LEAST_WIDTH)
    shift = MeanShift(bandwidth=width, bin_seeding=True, cluster_all=False)
    labels = torch.from_numpy(shift.fit_predict(points).astype(np.int64))
    sizes = torch.bincount(labels[labels >= 0])
    found = torch.zeros(len(points), dtype=torch.bool)
    found[order] = labels == sizes.argmax()
    return found


class SignGuard(Server[SignGuardArgs]):
    """The mean of clipped updates whose norms and signs are usual."""

    summary = "SignGuard: refuse unusual norms and unusual shares of signs, clip the rest"
    paper = "Xu et al. 2022, arXiv 2109.05872"
    hyperparameters = SignGuardArgs
    least_clients = LEAST_CLUSTERED

    def __init__(self, args: SignGuardArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        self.last: Tensor | None = None
        """(P,) the last aggregate, an update, where the fourth feature needs it."""

    @classmethod
    def needs(cls, args: SignGuardArgs) -> Needs:
        """Ask for single updates, most of them honest."""
        return Needs(individual_updates=True, honest_majority=True)

    @classmethod
    def check(cls, args: SignGuardArgs, setting: Setting) -> None:
        """Refuse rounds too small to cluster."""
        require_clusterable("signguard", setting)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Filter by norms and by signs, clip to the median norm, average."""
        watch = Stopwatch()
        n = len(updates)
        norms = updates.norms
        middle = float(norms.quantile(0.5))
        usual = (norms >= self.args.low * middle) & (norms <= self.args.high * middle)
        alike = torch.ones(n, dtype=torch.bool)
        with watch("signs"):
            if n >= LEAST_CLUSTERED:
                alike = largest_cluster(self._features(updates), updates.client_ids)
        accepted = usual & alike
        shares = self.shares(updates, accepted)
        factors = clip_factors(norms, middle)
        with watch("average"):
            state = self.average_scaled(updates, shares, factors)
        if self.args.feature != "none" and shares.sum() > 0:
            rate = self.resources.averaging.server_lr
            self.last = (state.weights - updates.global_weights) / rate
        reasons = {
            row: "unusual signs" if usual[row] else "unusual norm"
            for row in range(n)
            if not accepted[row]
        }
        numbers = {"clip": middle, "unusual_norms": float((~usual).sum())}
        pulls, scores = shares * factors, norms.tolist()
        judged = verdicts(updates, accepted.tolist(), pulls, scores=scores, reasons=reasons)
        return Aggregation(*state, judged, numbers, watch.seconds)

    def _features(self, updates: Updates) -> Tensor:
        """Return the features (n, 3 or 4)."""
        rng = self.resources.seeds.generator("signguard", round=updates.round)
        size = updates.weights.shape[1]
        count = max(1, int(self.args.share * size))
        drawn = torch.randperm(size, generator=rng)[:count].sort().values
        signs = sign_features(updates.weights[:, drawn] - updates.global_weights[drawn])
        if self.args.feature == "none":
            return signs
        fourth = similarity(updates, self.last, self.args.feature)
        return torch.cat([signs, fourth[:, None]], 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the last aggregate."""
        return {"last": self.last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.last = state["last"]


def similarity(updates: Updates, last: Tensor | None, kind: str) -> Tensor:
    """Return the fourth feature (n,), from 0 to 1 / 5.

    `cosine` is the cosine to the last aggregate, in the first round the median one to the others,
    clamped to 0 and its median and divided by five medians. `distance` is 1 / 5 for who is above
    1.1 median distances from the last aggregate, in the first round in summed distances to the
    nearest half, and 0 for the others.

    Parameters
    ----------
    updates
        The round.
    last
        (P,) the last aggregate, an update; None in the first round.
    kind
        `cosine` or `distance`.
    """
    n = len(updates)
    if last is not None:  # as one more client
        weights = torch.cat([updates.weights, (updates.global_weights + last)[None]])
        updates = replace(updates, client_ids=(*updates.client_ids, "last"), weights=weights)
    if kind == "distance":
        nearest = updates.distances[:n, :n].sort(1).values[:, : max(1, n // 2)].sum(1)
        remote = nearest if last is None else updates.distances[-1, :n]
        return (remote > _FAR * remote.quantile(0.5)).double() / _SCALE
    cosines = updates.cosines.median(1).values if last is None else updates.cosines[-1, :n]
    middle = float(cosines.quantile(0.5))
    clamped = cosines.clamp(0, middle) / middle if middle > 0 else torch.ones_like(cosines)
    return clamped / _SCALE
