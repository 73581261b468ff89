"""Averaging accepted clients: their weights, their BatchNorm statistics, and the server's step.

Weights are averaged alike by all rules. BatchNorm statistics are no trainable parameters, so how
they are combined is a policy of its own (`Averaging.bn_policy`):

- `median`: the accepted clients' coordinate-wise median, whatever their weights (`buffers.py`),
  towards which the statistics step as the weights do; where a defense needs no majority it is by
  their weights, and of fewer than three the global statistics stay;
- `auto`: `median` for defenses that claim to be robust, `weighted` for FedAvg and its like;
- `weighted`: the clients' mean, towards which the statistics step as the weights do;
- `keep`: the statistics of the global model stay;
- `recalibrate`: as `weighted`, then estimated anew from the server's clean data;
- `original`: as the original code does it, which averages counters, too, and never steps.

Sizes: n clients, P trainable parameters, B buffer entries. Shares (n,) are convex weights of the
clients; nothing here is called with shares that sum to zero.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from entity.layout import ModelState, blocks
from entity.server.buffers import MAJORITY, by_shares, central, moved
from entity.updates import Updates


@dataclass(frozen=True)
class Averaging:
    """How accepted clients are combined, whatever the rule that accepted them."""

    server_lr: float = 1.0
    """η of `global + η (mean - global)`; 1 takes the mean itself."""
    weighting: Literal["uniform", "samples"] = "uniform"
    """Clients count alike, or by their number of samples."""
    bn_policy: Literal["auto", "median", "weighted", "keep", "recalibrate", "original"] = "auto"
    """How BatchNorm statistics are combined."""
    by_shares: bool = False
    """A median of statistics is by the clients' shares, and of nobody without one."""

    def settled(self, *, robust: bool, majority: bool = True) -> "Averaging":
        """Return the policy with `auto` decided.

        Parameters
        ----------
        robust
            Whether the defense claims to be.
        majority
            Whether most of a round, or of whom it accepts, are honest by its claim.
        """
        decided = self.bn_policy
        if decided == "auto":
            decided = "median" if robust else "weighted"
        return replace(self, bn_policy=decided, by_shares=not majority)


def convex_shares(updates: Updates, accepted: Tensor, policy: Averaging) -> Tensor:
    """Return convex weights (n,) float64 of the accepted clients: equal, or by samples.

    All are zero if nobody is accepted, or nobody accepted has a sample.

    Parameters
    ----------
    updates
        The round.
    accepted
        (n,) bool.
    policy
        Says whether samples count.
    """
    raw = accepted.double()
    if policy.weighting == "samples":
        raw = raw * updates.num_samples.double()
    total = raw.sum()
    return raw / total if total > 0 else torch.zeros_like(raw)


def averaged(updates: Updates, shares: Tensor, policy: Averaging) -> ModelState:
    """Move the global model towards the clients' mean.

    Parameters
    ----------
    updates
        The round.
    shares
        (n,) convex weights.
    policy
        The server's rate and what becomes of BatchNorm statistics.
    """
    mean = convex(updates.weights, shares)
    weights = step(updates.global_weights, mean, policy.server_lr)
    return ModelState(weights, averaged_buffers(updates, shares, policy))


def averaged_scaled(
    updates: Updates, shares: Tensor, factors: Tensor, policy: Averaging
) -> ModelState:
    """Move the global model by the clients' scaled updates, `sum_i shares_i factors_i delta_i`.

    Buffers move by the same factors as far as those are at most 1: more could make a variance
    negative.

    Parameters
    ----------
    updates
        The round.
    shares
        (n,) convex weights.
    factors
        (n,) what each update is multiplied with, such as a clip.
    policy
        The server's rate and what becomes of BatchNorm statistics.
    """
    scaled = combine(updates.weights, shares.double() * factors.double(), updates.global_weights)
    weights = step(updates.global_weights, scaled, policy.server_lr)
    if updates.buffers.shape[1] == 0:
        return ModelState(weights, updates.global_buffers)
    buffers = moved(updates.buffers, updates.global_buffers, factors, updates.spec.counters)
    return ModelState(weights, averaged_buffers(replace(updates, buffers=buffers), shares, policy))


def averaged_buffers(updates: Updates, shares: Tensor, policy: Averaging) -> Tensor:
    """Return the next buffers (B,): median or mean by the policy; the global ones of nobody.

    A mean comes with the maximum of counters.

    Parameters
    ----------
    updates
        The round.
    shares
        (n,) convex weights.
    policy
        The server's rate and what becomes of BatchNorm statistics.
    """
    counters, accepted = updates.spec.counters, shares > 0
    if policy.bn_policy == "keep" or updates.buffers.shape[1] == 0 or not accepted.any():
        return updates.global_buffers
    if policy.bn_policy == "original":
        mean = convex(updates.buffers, shares)
        return torch.where(counters, mean.trunc(), mean)
    if policy.bn_policy in ("auto", "median"):
        if policy.by_shares:
            if int(accepted.sum()) < MAJORITY:
                return updates.global_buffers
            centre = by_shares(updates.buffers, shares, counters)
        else:
            centre = central(updates.buffers, accepted, counters)
        counted = centre
    else:
        centre = convex(updates.buffers, shares)
        counted = updates.buffers[accepted].amax(0)
    return torch.where(counters, counted, stepped(updates.global_buffers, centre, policy))


def stepped(start: Tensor, end: Tensor, policy: Averaging) -> Tensor:
    """Return buffers (B,) after the server's step; beyond rate 1 it could make a variance negative.

    Parameters
    ----------
    start, end
        Buffers (B,).
    policy
        The server's rate.
    """
    return step(start, end, policy.server_lr) if policy.server_lr <= 1 else end


def convex(rows: Tensor, shares: Tensor) -> Tensor:
    """Return the convex combination (P,) of rows (n, P), summed in float64.

    In float64 the mean of identical rows is that row to the bit.
    """
    used = shares.nonzero().flatten()
    chosen = shares[used].double()
    all_used = len(used) == len(rows)  # then a block is read in place, in half the time
    out = torch.empty(rows.shape[1])
    for columns in blocks(rows.shape[1]):
        block = rows[:, columns] if all_used else rows[used, columns]
        out[columns] = (chosen @ block.double()).float()
    return out


def combine(rows: Tensor, factors: Tensor, origin: Tensor) -> Tensor:
    """Return `origin + sum_i factors_i * (rows_i - origin)` (P,), summed in float64.

    Parameters
    ----------
    rows
        (n, P).
    factors
        (n,).
    origin
        (P,).
    """
    out = torch.empty(rows.shape[1])
    for columns in blocks(rows.shape[1]):
        start = origin[columns].double()
        away = rows[:, columns].to(torch.float64, copy=True).sub_(start)
        out[columns] = (start + factors.double() @ away).float()
    return out


def step(start: Tensor, end: Tensor, rate: float) -> Tensor:
    """Return `start + rate * (end - start)`, exactly `end` for rate 1.

    Parameters
    ----------
    start, end
        Vectors (P,).
    rate
        Share of the way.
    """
    return end if rate == 1 else start + rate * (end - start)
