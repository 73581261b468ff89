"""Averaging accepted clients: their weights, their BatchNorm statistics, and the server's step.

Weights are averaged alike by all rules. BatchNorm statistics are no trainable parameters, so how
they are combined is a policy of its own (`Averaging.bn_policy`):

- `weighted`: the clients' mean, towards which the statistics step as the weights do;
- `keep`: the statistics of the global model stay;
- `recalibrate`: as `weighted`, then estimated anew from the server's clean data;
- `original`: as the original code does it, which averages counters, too, and never steps.

Sizes: n clients, P trainable parameters, B buffer entries. Shares (n,) are convex weights of the
clients; nothing here is called with shares that sum to zero.
"""

import logging
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from entity.layout import ModelState, ParamSpec, blocks
from entity.seeding import global_stream
from entity.updates import Updates

log = logging.getLogger("entity")


@dataclass(frozen=True)
class Averaging:
    """How accepted clients are combined, whatever the rule that accepted them."""

    server_lr: float = 1.0
    """η of `global + η (mean - global)`; 1 takes the mean itself."""
    weighting: Literal["uniform", "samples"] = "uniform"
    """Clients count alike, or by their number of samples."""
    bn_policy: Literal["weighted", "keep", "recalibrate", "original"] = "weighted"
    """How BatchNorm statistics are combined."""


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
    at_most_one = factors.clamp(0, 1).float()[:, None]
    buffers = updates.global_buffers + at_most_one * (updates.buffers - updates.global_buffers)
    moved = replace(updates, buffers=torch.where(updates.spec.counters, updates.buffers, buffers))
    return ModelState(weights, averaged_buffers(moved, shares, policy))


def averaged_buffers(updates: Updates, shares: Tensor, policy: Averaging) -> Tensor:
    """Return the next buffers (B,): the mean by the policy, and the maximum of counters.

    Parameters
    ----------
    updates
        The round.
    shares
        (n,) convex weights.
    policy
        The server's rate and what becomes of BatchNorm statistics.
    """
    if policy.bn_policy == "keep" or updates.buffers.shape[1] == 0:
        return updates.global_buffers
    mean = convex(updates.buffers, shares)
    counters = updates.spec.counters
    if policy.bn_policy == "original":
        return torch.where(counters, mean.trunc(), mean)
    if policy.server_lr <= 1:  # beyond 1 the step could make a variance negative
        mean = step(updates.global_buffers, mean, policy.server_lr)
    highest = updates.buffers[shares > 0].amax(0)
    return torch.where(counters, highest, mean)


def without_negative_variances(state: ModelState, spec: ParamSpec) -> ModelState:
    """Return a model whose negative BatchNorm variances are set to 0.

    One client with a negative variance would otherwise make every answer of the model NaN.
    """
    negative = spec.variances & (state.buffers < 0)
    if not negative.any():
        return state
    log.warning("%d negative BatchNorm variances set to 0", int(negative.sum()))
    return state._replace(buffers=state.buffers.masked_fill(negative, 0))


def recalibrate(model: nn.Module, x: Tensor, generator: torch.Generator) -> None:
    """Estimate a model's BatchNorm statistics anew, in place.

    Parameters
    ----------
    model
        Is left in training mode.
    x
        (S, C, H, W) clean images in [-1, 1], on the model's device.
    generator
        Dropout draws from it.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
            module.reset_running_stats()
            module.momentum = None  # a cumulative average over the batches
    model.train()
    with torch.no_grad(), global_stream(generator):
        for batch in x.split(256):
            if len(batch) > 1:
                model(batch)


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
