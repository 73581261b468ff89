"""BatchNorm statistics against clients that lie about them.

A defense judges a client by its weights. Its statistics are not looked at, and a single variance
of 1e38 leaves a layer with nothing to say. So they have a rule of their own, the coordinate-wise
median, which fewer than half of those that it is taken over cannot move beyond the others' range.
(Yin et al., ICML 2018, arXiv 1803.01498, take it of gradients; of statistics it is ours.) Models
that are used one by one, as DROP's teachers, keep their own within a fence around the median.
"""

import logging

import numpy as np
import torch
from torch import Tensor, nn

from entity.layout import ModelState, ParamSpec
from entity.seeding import global_stream

log = logging.getLogger("entity")

_HAMPEL = 3 * 1.4826
"""Median deviations that are three standard deviations of a normal distribution."""
_BATCH = 256
"""Most images of a batch of which statistics are taken."""
_EPS = 1e-5
"""What BatchNorm adds to a variance before it divides by its root."""
MAJORITY = 3
"""Accepted clients from which on one of them is outvoted by the others."""


def voters(buffers: Tensor, accepted: Tensor) -> Tensor:
    """Return the rows of `buffers` (n, B) that decide: the accepted (n,) bool, if at least three.

    Fewer have no majority among them, and were accepted for their weights alone: then everybody
    in the round decides. Krum takes one client's weights, but not just anything for statistics.
    """
    return buffers[accepted] if int(accepted.sum()) >= MAJORITY else buffers


def central(buffers: Tensor, accepted: Tensor, counters: Tensor) -> Tensor:
    """Return the coordinate-wise median (B,) of clients' buffers, whatever the clients' weights.

    Parameters
    ----------
    buffers
        (n, B) of at least one client, finite.
    accepted
        (n,) bool.
    counters
        (B,) bool: entries that count; their median is rounded down to a whole number.

    Examples
    --------
    >>> rows = torch.tensor([[0.5, 3.0], [0.7, 4.0], [3e38, 9e9]])
    >>> central(rows, torch.tensor([True] * 3), torch.tensor([False, True]))
    tensor([0.7000, 4.0000])
    """
    # In float64: two float32 of the largest size would overflow.
    middle = np.median(voters(buffers, accepted).double().numpy(), axis=0)
    found = torch.from_numpy(middle).float()
    return torch.where(counters, found.floor(), found)


def by_shares(buffers: Tensor, shares: Tensor, counters: Tensor) -> Tensor:
    """Return the coordinate-wise median (B,) of clients' buffers, each as heavy as its share.

    Where a defense needs no majority the refused, and those of little weight, may be most of a
    round: only who has half of the shares moves this beyond the others' range.

    Parameters
    ----------
    buffers
        (n, B) of at least one client, finite.
    shares
        (n,) convex weights.
    counters
        (B,) bool: entries that count; their median is rounded down to a whole number.

    Examples
    --------
    >>> rows = torch.tensor([[0.5], [3e38], [3e38], [3e38], [0.75]])
    >>> by_shares(rows, torch.tensor([0.5, 0.0, 0.125, 0.125, 0.25]), torch.tensor([False]))
    tensor([0.6250])
    """
    ordered, order = torch.sort(buffers.double(), dim=0, stable=True)
    reached = shares.double()[order].cumsum(0)
    half = float(shares.double().sum()) / 2
    # Two columns of rounding: a sum that is half but for it has reached half, and is not beyond.
    rows = [(reached < half + off).sum(0, keepdim=True) for off in (-1e-12, 1e-12)]
    last = len(buffers) - 1
    low, high = (ordered.gather(0, row.clamp_max(last))[0] for row in rows)
    found = ((low + high) / 2).float()
    return torch.where(counters, found.floor(), found)


def fenced(buffers: Tensor, accepted: Tensor, spec: ParamSpec) -> Tensor:
    """Return clients' own buffers (n, B), but no statistic further from the median than usual.

    Hampel's rule, on the logarithm for variances: within median ± 3 · 1.4826 · MAD, the median of
    the deviations from the median. Honest statistics are left alone, almost all of them; those of
    a minority that lies come within 4.5 times the range of the others'. Counters stay.

    Parameters
    ----------
    buffers
        (n, B) of at least one client, finite.
    accepted
        (n,) bool: whose median and deviations are taken.
    spec
        Says which entries are variances, and which count.

    Examples
    --------
    >>> rows = torch.tensor([[1.0], [1.5], [2.5], [3e38]])
    >>> spec = ParamSpec((), (), torch.tensor([False]), torch.tensor([False]))
    >>> fenced(rows, torch.tensor([True] * 4), spec)[:, 0]
    tensor([1.0000, 1.5000, 2.5000, 5.3358])
    """
    logs = (buffers.double().clamp_min(0) + _EPS).log()
    scaled = torch.where(spec.variances, logs, buffers.double())
    jury = voters(scaled, accepted).numpy()
    centre = np.median(jury, axis=0)
    reach = _HAMPEL * np.median(np.abs(jury - centre), axis=0)
    low, high = torch.from_numpy(centre - reach), torch.from_numpy(centre + reach)
    inside = (scaled >= low) & (scaled <= high) & ~(spec.variances & (buffers < 0))
    clipped = scaled.clamp(low, high)
    clipped = torch.where(spec.variances, (clipped.exp() - _EPS).clamp_min(0), clipped)
    return torch.where(inside | spec.counters, buffers, clipped.float())


def moved(buffers: Tensor, start: Tensor, factors: Tensor, counters: Tensor) -> Tensor:
    """Return clients' buffers (n, B) moved from the global ones by the factors of their weights.

    Parameters
    ----------
    buffers
        (n, B).
    start
        (B,) of the global model.
    factors
        (n,) what each client's update is multiplied with. At most 1 is taken, and at least 0:
        beyond them a variance could become negative.
    counters
        (B,) bool: entries that count, and stay.
    """
    share = factors.double().clamp(0, 1)[:, None]
    away = buffers.double() - start.double()  # in float64, as it may be 6e38
    return torch.where(counters, buffers, (start + share * away).float())


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
        for batch in x.tensor_split(max(1, -(-len(x) // _BATCH))):  # all count alike
            if len(batch) > 1:
                model(batch)
