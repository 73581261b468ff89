"""Trigger inversion: the smallest patch that sends some images to a class.

Wang et al., "Neural Cleanse: Identifying and Mitigating Backdoor Attacks in Neural Networks",
IEEE S&P 2019, with the warm starts and the symmetric pairs of FLIP (2210.12873). A mask m in
[0, 1] and a pattern p, both under tanh, minimise CE(f((1 - m) x + m p), target) + c |m|_1 by
Adam(lr, betas 0.5 and 0.9); c rises by 1.5 after 10 successful steps in a row, falls by 1.5^1.5
after 10 failures.

Several triggers are inverted at once; two of them, s -> t and t -> s, are FLIP's symmetric pair.
A network in evaluation mode treats every sample alone and Adam every entry, so each comes out as
if it had been alone.

Where we leave FLIP's code, and why:

- images and patterns live in [-1, 1], the networks' own range, which is the same objective;
- each step sees all images, not shuffled batches of them, and each trigger's cross entropy is a
  mean (its symmetric inversion takes the sum, which scales c with the batch);
- no noise of 0.01 is put on the trigger after every success;
- the solid block of a first mask lies at a random place. In the code it is the top left corner,
  where DBA and DROP put the trigger that it is to find.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATIENCE = 10
UP, DOWN = 1.5, 1.5**1.5
BLOCK = (5 / 32, 14 / 32)
"""Height and width of a first mask's solid block, as shares of the image's."""


@dataclass(frozen=True, eq=False)
class Triggers:
    """k patches.

    Examples
    --------
    >>> patch = Triggers(torch.full((1, 1, 2, 2), 0.25), torch.ones(1, 3, 2, 2))
    >>> patch.sizes, patch.stamp(torch.zeros(1, 3, 2, 2), torch.tensor([0]))[0, 0]
    (tensor([1.]), tensor([[0.2500, 0.2500],
            [0.2500, 0.2500]]))
    """

    mask: Tensor
    """(k, 1, H, W) in [0, 1], the same for all channels."""
    pattern: Tensor
    """(k, C, H, W) in [-1, 1]."""

    @property
    def sizes(self) -> Tensor:
        """(k,) masked area in pixels, |m|_1 of one channel."""
        return self.mask.sum((1, 2, 3))

    def stamp(self, x: Tensor, which: Tensor) -> Tensor:
        """Return images (N, C, H, W), each with the trigger that `which` (N,) names."""
        # Several times as fast as indexing, on the way back.
        mask, pattern = self.mask.index_select(0, which), self.pattern.index_select(0, which)
        return x + mask * (pattern - x)

    def to(self, device: torch.device) -> "Triggers":
        """Return them on a device."""
        return Triggers(self.mask.to(device), self.pattern.to(device))

    def __getitem__(self, index: int) -> "Triggers":
        return Triggers(self.mask[index : index + 1], self.pattern[index : index + 1])

    @classmethod
    def join(cls, parts: list["Triggers"]) -> "Triggers":
        """Put several into one."""
        return cls(torch.cat([p.mask for p in parts]), torch.cat([p.pattern for p in parts]))


def random_start(
    image: tuple[int, int, int], generator: torch.Generator, *, chunk: bool = False
) -> Triggers:
    """Return a random trigger to start an inversion from.

    Parameters
    ----------
    image
        (C, H, W) of the images.
    generator
        Draws it.
    chunk
        Make the mask weak, but for a solid block at a random place.
    """
    _, height, width = image
    mask = torch.rand(1, 1, height, width, generator=generator)
    pattern = torch.rand(1, *image, generator=generator) * 2 - 1
    if chunk:
        mask *= 0.1
        tall, wide = (max(1, round(s * n)) for s, n in zip(BLOCK, (height, width), strict=True))
        top = int(torch.randint(height - tall + 1, (), generator=generator))
        left = int(torch.randint(width - wide + 1, (), generator=generator))
        mask[..., top : top + tall, left : left + wide] = 1
    return Triggers(mask, pattern)


def adapt(cost: Tensor, streak: Tensor, success: Tensor) -> tuple[Tensor, Tensor]:
    """Return the costs and streaks after one more step.

    Parameters
    ----------
    cost, streak
        (k,) c of each trigger; successes in a row, or failures as a negative number.
    success
        (k,) whether the step reached the threshold.

    Examples
    --------
    >>> adapt(torch.tensor([1.0, 1.0]), torch.tensor([9, 4]), torch.tensor([True, False]))
    (tensor([1.5000, 1.0000]), tensor([ 0, -1]))
    """
    streak = torch.where(success, streak.clamp_min(0) + 1, streak.clamp_max(0) - 1)
    cost = torch.where(streak >= PATIENCE, cost * UP, cost)
    cost = torch.where(streak <= -PATIENCE, cost / DOWN, cost)
    return cost, torch.where(streak.abs() >= PATIENCE, 0, streak)


@dataclass(frozen=True)
class Search:
    """How triggers are searched for, by `steps` of Adam with rate `lr`."""

    steps: int
    threshold: float
    """Share of a trigger's images that it must send to their class."""
    lr: float = 0.1
    cost: float = 1e-3
    """c of the first step."""


def invert(
    model: nn.Module, x: Tensor, wanted: Tensor, which: Tensor, start: Triggers, search: Search
) -> tuple[Triggers, Tensor]:
    """Search the smallest triggers that send images to the wanted classes.

    Parameters
    ----------
    model
        The classifier; used in evaluation mode, its parameters, gradients and mode left alone.
    x, wanted, which
        Images (N, C, H, W) in [-1, 1], the classes (N,) that they should be sent to, and the
        numbers (N,) of the triggers that they are stamped with.
    start
        k triggers to start from; masks are kept 0.01 away from 0 and 1.
    search
        Steps and threshold.

    Returns
    -------
    tuple of Triggers and Tensor
        The smallest that reached the threshold, or else the start; and whether one did, (k,).
    """
    k, device = len(start.mask), x.device
    # Nearer to 0 and 1 tanh is so flat that a trigger would not leave its start.
    raw_mask = (2 * start.mask.clamp(0.01, 0.99) - 1).atanh().to(device).requires_grad_()
    raw_pattern = start.pattern.clamp(-0.98, 0.98).atanh().to(device).requires_grad_()
    adam = torch.optim.Adam([raw_mask, raw_pattern], lr=search.lr, betas=(0.5, 0.9), fused=True)
    share = 1 / which.bincount(minlength=k).clamp_min(1).float()
    streak = torch.zeros(k, dtype=torch.long, device=device)
    costs = torch.full((k,), search.cost, device=device)
    smallest = _Smallest(start.to(device))
    was_training = model.training
    model.eval()
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        for _ in range(search.steps if len(x) else 0):
            now = Triggers((raw_mask.tanh() + 1) / 2, raw_pattern.tanh())
            answers = model(now.stamp(x, which))
            misses = F.cross_entropy(answers, wanted, reduction="none")
            loss = share[which] @ misses + costs @ now.sizes
            raw_mask.grad, raw_pattern.grad = torch.autograd.grad(loss, [raw_mask, raw_pattern])
            adam.step()
            hits = which[answers.argmax(1) == wanted].bincount(minlength=k)
            success = (hits > 0) & (hits * share >= search.threshold - 1e-6)
            smallest.update(now, success)
            costs, streak = adapt(costs, streak, success)
    model.train(was_training)
    return smallest.triggers, smallest.sizes.isfinite()


class _Smallest:
    """The smallest successful triggers so far."""

    def __init__(self, start: Triggers) -> None:
        self.triggers = start
        self.sizes = torch.full((len(start.mask),), torch.inf, device=start.mask.device)

    def update(self, now: Triggers, success: Tensor) -> None:
        """Keep those of k triggers that succeed (k,) and are smaller than the ones before."""
        sizes = now.sizes.detach()
        better = success & (sizes < self.sizes)
        rows = better[:, None, None, None]
        self.sizes = torch.where(better, sizes, self.sizes)
        self.triggers = Triggers(
            torch.where(rows, now.mask.detach(), self.triggers.mask),
            torch.where(rows, now.pattern.detach(), self.triggers.pattern),
        )
