"""Data-free distillation of an ensemble into a student, in the manner of MAZE.

Kariyappa et al., "MAZE: Data-Free Model Stealing Attack Using Zeroth-Order Gradient Estimation",
CVPR 2021, arXiv 2005.03161; with true gradients through the teachers, as DROP (arXiv 2502.07011)
uses it. A generator looks for images on which student and teachers disagree, a Wasserstein critic
keeps them near a few clean ones, and the student learns the teachers' answers on them and on a
replay of earlier ones.

Where we leave the original code, and why:

- progress is measured on held-out data of the server; the original stops by the test set;
- with `alpha_gan = 0` there is no critic, no clean image is touched, and the replay starts empty;
  the original crashes;
- the replay is a ring of fixed size; the original's grows without bound and is copied in every
  iteration. Zero student or replay steps mean zero;
- the generator learns against the student in evaluation mode throughout, so its steps never
  touch the student's BatchNorm statistics;
- teachers that stop giving finite, bounded logits are left out during the run, too;
- what is there for speed is off by default: narrower networks, fewer critic steps, another memory
  layout, and a budget in cycles that ends where one changed nothing. `benchmarks/distill.py`
  compares it with the algorithm as it is specified.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from entity.config.schema import Count, Fraction, NonNegative, Positive, Whole
from entity.distill.agreement import PROBES, Plateau, comparison
from entity.distill.ensemble import Ensemble, Norm, Reduce
from entity.distill.held_out import Exam, Labelled
from entity.distill.losses import LossType, disagreement, gradient_penalty
from entity.distill.replay import Replay
from entity.models import Critic, Generator
from entity.training import autocast
from entity.updates import Stopwatch

_DIRECTIONS = 10
"""Zeroth-order directions that the nominal budget counts, though true gradients are used."""
RECHECK = 50
"""Iterations between checks that the teachers' logits are bounded."""


@dataclass(frozen=True)
class MazeArgs:
    """Settings of the distillation; names and defaults are the original's unless said."""

    budget: Positive = 5e6
    """Nominal queries: divided by their nominal number in an iteration gives the iterations."""
    distill_iters: Count | None = None
    """Number of iterations; null takes it from the budget (ours)."""
    model_gen: str = "conv3_gen"
    """Generator: conv3_gen, or conv3_cgen, which is told a class."""
    model_dis: str = "conv3_dis"
    """Critic."""
    gen_width: Count = 128
    """Channels of the generator; its cost grows with the square (ours)."""
    dis_width: Count = 32
    """Channels of the critic's first layer (ours)."""
    latent_dim: Count = 100
    """Length of the generator's noise."""
    batch_size: Count = 128
    """Images in every batch of the distillation."""
    num_seed: Count = 100
    """Clean images of the server that the critic compares with and the replay starts from."""
    num_repeat_real: Count = 10
    """How often the clean images are repeated in a pass; times num_seed at least one batch."""
    augment: bool = False
    """Augment the clean images that the critic sees."""
    loss_type: LossType = "kl_div"
    """What student and teachers are compared by."""
    temperature: Positive = 1.0
    """Temperature of kl_div."""
    alpha_gan: NonNegative = 0.5
    """Weight of the critic in the generator's loss; 0 is truly data-free."""
    lambda1: NonNegative = 10.0
    """Weight of the critic's gradient penalty."""
    iter_gen: Whole = 1
    """Generator steps in an iteration."""
    iter_clone: Whole = 5
    """Student steps on new images in an iteration, and critic steps."""
    iter_dis: Whole | None = None
    """Critic steps in an iteration, at most iter_clone; null is as many (ours)."""
    iter_exp: Whole = 10
    """Student steps on replayed images in an iteration."""
    replay_capacity: Whole = 0
    """Images kept for replay; 0 keeps all (ours)."""
    lr_clone: Positive = 0.1
    """Learning rate of the student."""
    lr_gen: Positive = 1e-3
    """Learning rate of the generator."""
    lr_dis: Positive = 1e-4
    """Learning rate of the critic."""
    opt: Literal["sgd", "adam"] = "sgd"
    """Optimiser of all three; SGD has momentum 0.9, both have weight decay 5e-4."""
    lr_scheduler: Literal["cosine", "cosine_warm", "none"] = "cosine"
    """Learning rates fall to zero once, or again and again, or stay."""
    teacher_norm: Norm = "none"
    """What is done to a teacher's logits so that none dominates (ours)."""
    teacher_reduce: Reduce = "mean"
    """How the teachers' logits become one answer (ours)."""
    cycles: Count = 1
    """Equal parts of the budget, in each of which a cosine falls to zero (ours)."""
    plateau: Fraction | None = None
    """End after a cycle that changed the agreement with the teachers by at most this (ours)."""
    early_stopping: bool = False
    """Stop once the student has the target accuracy on held-out server data."""
    frac_recover_acc: Positive = 1.0
    """Target accuracy, as a share of the teachers' own."""
    log_iter: Positive = 1e5
    """Nominal queries between two looks at the held-out data."""
    amp_enabled: bool = False
    """Run students and teachers in bfloat16."""
    channels_last: bool = False
    """Run all but the critic in the layout fastest on a CPU, equal up to rounding (ours)."""
    disable_pbar: bool = False
    """Kept from the original: the distillation draws no bar of its own."""

    @property
    def queries_per_iteration(self) -> int:
        """Nominal queries of an iteration, as the original counts them."""
        steps = max(0, self.iter_clone - 1) + (1 + _DIRECTIONS) * self.iter_gen
        return self.batch_size * max(1, steps)

    @property
    def iterations(self) -> int:
        """Number of iterations.

        Examples
        --------
        >>> MazeArgs(budget=5e6, batch_size=512).iterations
        651
        """
        return self.distill_iters or int(self.budget // self.queries_per_iteration)

    def cycle(self, iterations: int) -> int:
        """Return the length of a cycle.

        Examples
        --------
        >>> MazeArgs(cycles=4).cycle(60), MazeArgs(cycles=4).cycle(30)
        (15, 8)
        """
        return max(1, -(-iterations // self.cycles))


@dataclass
class Distillation:
    """What a distillation did; the student itself is trained in place."""

    iterations: int = 0
    member_forwards: int = 0
    """Images answered by teachers, counted once for each of them."""
    removed: int = 0
    """Teachers left out for unbounded logits."""
    accuracy: float = float("nan")
    """The student's accuracy on held-out server data, after the run."""
    teacher_accuracy: float = float("nan")
    agreement: float = float("nan")
    """Share of images on which student and teachers agreed at the end of the last cycle."""
    samples: Tensor = field(default_factory=lambda: torch.empty(0))
    """(k, C, H, W) images of the generator after the run, in [-1, 1]."""
    seconds: dict[str, float] = field(default_factory=dict[str, float])


def distill(
    ensemble: Ensemble,
    student: nn.Module,
    generator: Generator,
    critic: Critic | None,
    seed_images: Tensor,
    args: MazeArgs,
    rng: torch.Generator,
    *,
    holdout: Labelled | None = None,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> Distillation:
    """Train `student` to answer as `ensemble` does, on images of its own making.

    Parameters
    ----------
    ensemble
        The teachers; must have members.
    student, generator, critic
        Trained in place; the critic is None for the data-free mode.
    seed_images
        (S, C, H, W) clean images in [-1, 1]; not used without a critic.
    rng
        Source of all randomness.
    holdout
        What accuracy is measured on, if at all.
    augment
        Applied to the clean images that the critic sees, with `args.augment`.
    """
    device = next(student.parameters()).device
    report = Distillation()
    watch = Stopwatch()
    iterations = args.iterations
    if args.channels_last:
        lay_out(ensemble, student, generator)
    optimisers = {
        "student": new_optimiser(student, args, args.lr_clone),
        "generator": new_optimiser(generator, args, args.lr_gen),
    }
    if critic is not None:
        optimisers["critic"] = new_optimiser(critic, args, args.lr_dis)
    critic_steps = args.iter_clone if args.iter_dis is None else args.iter_dis
    steps = {
        "student": args.iter_clone + args.iter_exp,
        "generator": args.iter_gen,
        "critic": critic_steps,
    }
    schedules = [
        new_schedule(optimiser, args, iterations)
        for name, optimiser in optimisers.items()
        if steps[name]
    ]

    def sample() -> Tensor:
        return generator(generator.noise(args.batch_size, rng).to(device))

    def ask(x: Tensor) -> Tensor:
        with watch("teachers"), torch.no_grad(), autocast(device, args.amp_enabled):
            return ensemble(x)

    def lesson(x: Tensor, answers: Tensor) -> None:
        with autocast(device, args.amp_enabled):
            own = student(x)
        loss = disagreement(answers, own.float(), args.loss_type, args.temperature)
        descend(optimisers["student"], loss)

    # The first look at the teachers: on clean images, or on noise where there are none.
    generator.eval()
    with torch.no_grad():
        probe = sample() if critic is None else seed_images.to(device)
    started_with = len(ensemble.members)
    ensemble.filter_by_bound(probe)
    if not ensemble.members:
        report.removed = started_with
        return report
    replay = Replay(
        args.replay_capacity or len(seed_images) + iterations * args.batch_size,
        probe.shape[1:],
        ask(probe[:1]).shape[1],
        device,
    )
    real: Iterator[Tensor] | None = None
    if critic is not None:
        for part in seed_images.to(device).split(args.batch_size):
            replay.add(part, ask(part))
        real = _real_batches(seed_images.to(device), args, rng, augment if args.augment else None)

    exam = Exam(
        holdout,
        ensemble,
        student,
        every=args.log_iter,
        target=args.frac_recover_acc if args.early_stopping else None,
    )
    plateau = new_plateau(args, iterations, ensemble, student, generator, holdout, rng)
    for report.iterations in range(1, iterations + 1):
        batch: tuple[Tensor, Tensor] | None = None
        with watch("generator"):
            generator.train()
            student.eval()
            for _ in range(args.iter_gen):
                x = sample()
                answers = ensemble(x)
                loss = -disagreement(answers, student(x), args.loss_type, args.temperature)
                if critic is not None:
                    loss = loss - args.alpha_gan * critic(x).mean()
                descend(optimisers["generator"], loss)
                batch = x.detach(), answers.detach()
            generator.eval()
            student.train()
        for turn in range(args.iter_clone):
            if turn or batch is None:  # the first turn learns from the generator's own batch
                with watch("generator"), torch.no_grad():
                    x = sample()
                batch = x, ask(x)
            with watch("student"):
                lesson(*batch)
            if critic is not None and real is not None and turn < critic_steps:
                with watch("critic"):
                    clean = next(real)
                    score = critic(batch[0]).mean() - critic(clean).mean()
                    penalty = gradient_penalty(critic, batch[0], clean, rng)
                    descend(optimisers["critic"], score + args.lambda1 * penalty)
        with watch("replay"):
            if batch is not None:
                replay.add(*batch)
            for _ in range(args.iter_exp if len(replay) else 0):
                lesson(*replay.draw(args.batch_size, rng))
        for schedule in schedules:
            schedule.step()
        if batch is not None and report.iterations % RECHECK == 0:
            ensemble.filter_by_bound(batch[0])
            if not ensemble.members:
                break
        with watch("holdout"):
            queries = report.iterations * args.queries_per_iteration
            if exam.passed(queries) or plateau.reached(report.iterations):
                break

    report.agreement = plateau.agreement
    report.removed = started_with - len(ensemble.members)
    return conclude(report, ensemble, student, generator, exam, watch, rng)


def conclude(
    report: Distillation,
    ensemble: Ensemble,
    student: nn.Module,
    generator: Generator,
    exam: Exam,
    watch: Stopwatch,
    rng: torch.Generator,
) -> Distillation:
    """Put both networks to rest and write down what became of them."""
    student.eval()
    generator.eval()
    with watch("holdout"):
        report.accuracy = exam.accuracy()
    report.teacher_accuracy = exam.teacher_accuracy
    device = next(student.parameters()).device
    with torch.no_grad():
        report.samples = generator(generator.noise(16, rng).to(device)).cpu()
    report.member_forwards = ensemble.forwards
    report.seconds = watch.seconds
    return report


def lay_out(ensemble: Ensemble, *modules: nn.Module) -> None:
    """Put weights into the channels-last layout, which activations then follow."""
    for module in (*ensemble.members, *modules):
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def new_plateau(
    args: MazeArgs,
    iterations: int,
    ensemble: Ensemble,
    student: nn.Module,
    generator: Generator,
    holdout: Labelled | None,
    rng: torch.Generator,
) -> Plateau:
    """Return what ends a distillation of this many iterations early, if anything is to."""
    device = next(student.parameters()).device
    length = args.cycle(iterations)
    if args.plateau is None:
        return Plateau(None, length, lambda: float("nan"))

    def sample(fresh: torch.Generator) -> Tensor:
        with torch.no_grad():
            return generator(generator.noise(PROBES, fresh).to(device))

    held_out = None if holdout is None else holdout.x.to(device)
    return Plateau(args.plateau, length, comparison(student, ensemble, held_out, sample, rng))


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step, with gradients for this optimiser's own parameters only."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward(inputs=[p for group in optimiser.param_groups for p in group["params"]])
    optimiser.step()


def new_optimiser(module: nn.Module, args: MazeArgs, lr: float) -> torch.optim.Optimizer:
    """Return the configured optimiser of one of the networks."""
    if args.opt == "adam":
        return torch.optim.Adam(module.parameters(), lr=lr, weight_decay=5e-4, fused=True)
    return torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, fused=True)


def new_schedule(
    optimiser: torch.optim.Optimizer, args: MazeArgs, iterations: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the configured schedule of one of the optimisers, stepped once an iteration."""
    schedulers = torch.optim.lr_scheduler
    if args.lr_scheduler == "cosine" and args.cycles > 1:
        return schedulers.CosineAnnealingWarmRestarts(optimiser, args.cycle(iterations))
    if args.lr_scheduler == "cosine":
        return schedulers.CosineAnnealingLR(optimiser, iterations)
    if args.lr_scheduler == "cosine_warm":
        return schedulers.CosineAnnealingWarmRestarts(optimiser, max(1, iterations // 100))
    return schedulers.ConstantLR(optimiser, factor=1.0)


def _real_batches(
    images: Tensor,
    args: MazeArgs,
    rng: torch.Generator,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None,
) -> Iterator[Tensor]:
    """Yield clean batches for ever, in shuffled passes over the repeated seed images."""
    while True:
        order = torch.randperm(len(images) * args.num_repeat_real, generator=rng) % len(images)
        for batch in order.split(args.batch_size):
            if len(batch) == args.batch_size:
                x = images[batch.to(images.device)]
                yield x if augment is None else augment(x, rng)
