"""The distillation of DROP as its specification writes it down, with nothing done for speed.

MAZE (arXiv 2005.03161) with teachers whose gradients are at hand, as DROP (arXiv 2502.07011) uses
it: the networks at their published width in float32 and the default memory layout, the teachers
one after another and anew for every use, a fixed number of iterations. It is what
`benchmarks/distill.py` compares with, so it shares no code with `entity.distill`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entity.models import Critic, Generator
from entity.updates import Stopwatch


@dataclass(frozen=True)
class Plain:
    """The settings that the original's configurations have in common."""

    iterations: int
    batch_size: int
    iter_gen: int = 1
    iter_clone: int = 5
    iter_exp: int = 10
    alpha_gan: float = 0.5
    lambda1: float = 10.0
    lr_clone: float = 0.1
    lr_gen: float = 1e-3
    lr_dis: float = 1e-4


def distill(
    teachers: Sequence[nn.Module],
    student: nn.Module,
    generator: Generator,
    critic: Critic,
    seeds: Tensor,
    args: Plain,
    rng: torch.Generator,
) -> dict[str, float]:
    """Train `student` in place and return the seconds of each phase."""
    watch = Stopwatch()
    for teacher in teachers:
        teacher.eval().requires_grad_(False)

    def teach(x: Tensor) -> Tensor:
        return torch.stack([teacher(x) for teacher in teachers]).mean(0)

    networks = ((student, args.lr_clone), (generator, args.lr_gen), (critic, args.lr_dis))
    optimisers = [
        torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
        for module, lr in networks
    ]
    schedules = [
        torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, args.iterations)
        for optimiser in optimisers
    ]
    learn, seek, judge = optimisers

    def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def sample() -> Tensor:
        return generator(torch.randn(args.batch_size, generator.latent, generator=rng))

    with watch("teachers"), torch.no_grad():
        known = [(x, teach(x)) for x in seeds.split(args.batch_size)]
    kept = torch.empty(len(seeds) + args.iterations * args.batch_size, *seeds.shape[1:])
    answers = torch.empty(len(kept), known[0][1].shape[1])
    filled = 0
    for x, target in known:
        kept[filled : filled + len(x)], answers[filled : filled + len(x)] = x, target
        filled += len(x)

    for _ in range(args.iterations):
        with watch("generator"):
            generator.train()
            student.eval()
            for _ in range(args.iter_gen):
                x = sample()
                with watch("teachers, generator step"):
                    target = teach(x)
                loss = -F.l1_loss(student(x), target) - args.alpha_gan * critic(x).mean()
                descend(seek, loss)
            generator.eval()
            student.train()
        for turn in range(args.iter_clone):
            with torch.no_grad():
                with watch("generator"):
                    x = sample() if turn else x.detach()
                with watch("teachers"):
                    target = teach(x)
            with watch("student"):
                descend(learn, F.l1_loss(student(x), target))
            with watch("critic"):
                real = seeds[torch.randint(len(seeds), (args.batch_size,), generator=rng)]
                share = torch.rand(len(x), 1, 1, 1, generator=rng)
                between = (share * x + (1 - share) * real).requires_grad_()
                (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
                penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
                loss = critic(x).mean() - critic(real).mean() + args.lambda1 * penalty
                descend(judge, loss)
        with watch("replay"):
            kept[filled : filled + len(x)], answers[filled : filled + len(x)] = x, target
            filled += len(x)
            for _ in range(args.iter_exp):
                pick = torch.randint(filled, (args.batch_size,), generator=rng)
                descend(learn, F.l1_loss(student(kept[pick]), answers[pick]))
        for schedule in schedules:
            schedule.step()
    student.eval()
    generator.eval()
    return watch.seconds
