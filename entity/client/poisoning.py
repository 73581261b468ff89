"""Which samples are poisoned, and the test set that the attack is judged on."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from entity.client.triggers import Trigger
from entity.dataset.images import Images


def eligible(labels: Tensor, victim: int | None, target: int) -> Tensor:
    """Return the mask of the samples that an attack may trigger.

    Those of the victim class; without one, all that are not of the target class already. (The
    original's code counts the target class too.)

    Parameters
    ----------
    labels
        (N,).
    victim, target
        Classes; the victim may be None.

    Examples
    --------
    >>> eligible(torch.tensor([0, 1, 2, 1]), victim=None, target=1)
    tensor([ True, False,  True, False])
    """
    allowed = labels != target
    return allowed if victim is None else allowed & (labels == victim)


def choose(
    labels: Tensor, victim: int | None, target: int, dpr: float, generator: torch.Generator
) -> Tensor:
    """Draw the positions of the samples that a malicious client poisons, in increasing order.

    `floor(dpr * m)` of its m eligible samples, at random. In DROP's configs `DPR` is this share q
    of the victim class, not of the whole data: with K balanced classes the latter is q / K.

    Parameters
    ----------
    labels
        (N,) of one client.
    victim, target
        Classes; the victim may be None.
    dpr
        Share of the eligible samples, from 0 to 1.
    generator
        Draws them.

    Examples
    --------
    >>> labels = torch.arange(1000) % 10
    >>> len(choose(labels, victim=0, target=7, dpr=0.125, generator=torch.Generator()))
    12
    """
    candidates = eligible(labels, victim, target).nonzero().flatten()
    # 0.29 * 100 is 28.999999999999996.
    count = math.floor(dpr * len(candidates) + 1e-9)
    drawn = torch.randperm(len(candidates), generator=generator)[:count]
    return candidates[drawn].sort().values


class Holding(NamedTuple):
    """A malicious client's data once the poisoned samples are pooled."""

    samples: Tensor
    """(M,) what it holds, as positions in the training set."""
    targets: Tensor
    """Positions in `samples` of those that it poisons, increasing."""


def pool_evenly(
    shares: Sequence[Tensor], targets: Sequence[Tensor], generator: torch.Generator
) -> list[Holding]:
    """Divide the samples that the malicious clients poison evenly among them.

    They are pooled, shuffled and divided into parts whose sizes differ by one at most, the larger
    ones to the first clients. Each client keeps the rest of its data and adds its part. No sample
    is lost or held twice; the sizes of the clients' data change.

    Parameters
    ----------
    shares
        For every malicious client, in the order of their ids, the samples it holds, as positions
        in the training set.
    targets
        For each of them, the positions in its share that it would have poisoned by itself, as
        `choose` returns them.
    generator
        Shuffles the pool.

    Examples
    --------
    >>> shares = [torch.tensor([3, 5, 8, 9]), torch.tensor([2, 4])]
    >>> targets = [torch.tensor([0, 2, 3]), torch.tensor([], dtype=torch.int64)]
    >>> for samples, rows in pool_evenly(shares, targets, torch.Generator().manual_seed(0)):
    ...     print(samples, rows)
    tensor([5, 3, 9]) tensor([1, 2])
    tensor([2, 4, 8]) tensor([2])
    """
    if not shares:
        return []
    drawn = [share[chosen] for share, chosen in zip(shares, targets, strict=True)]
    pool = torch.cat(drawn)
    parts = pool[torch.randperm(len(pool), generator=generator)].tensor_split(len(shares))
    pooled: list[Holding] = []
    for share, chosen, part in zip(shares, targets, parts, strict=True):
        clean = torch.ones(len(share), dtype=torch.bool)
        clean[chosen] = False
        unpoisoned = share[clean]
        samples = torch.cat([unpoisoned, part.sort().values])
        pooled.append(Holding(samples, torch.arange(len(unpoisoned), len(samples))))
    return pooled


def attack_test_set(test: Images, victim: int | None, target: int, trigger: Trigger) -> Images:
    """Return all eligible test images, triggered and labelled with the target class.

    A model's accuracy on them is its attack success rate.

    Parameters
    ----------
    test
        The test set.
    victim, target
        Classes; the victim may be None.
    trigger
        Stamped on every image.
    """
    attacked = test.subset(eligible(test.y, victim, target))
    return Images(trigger.stamp(attacked.x), torch.full_like(attacked.y, target))
