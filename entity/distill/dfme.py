"""Data-free distillation of an ensemble into a student, in the manner of DFME.

Truong et al., "Data-Free Model Extraction", CVPR 2021, arXiv 2011.14779. A generator looks for
images on which student and teachers disagree by the L1 distance of their logits, and the student
learns the teachers' answers on fresh ones. There is no clean image, no critic and no replay: all
data is the generator's.

Where we leave the paper, and why (the first two as DROP does):

- true gradients flow through the teachers, whose logits are at hand; the paper estimates both
  from probabilities;
- optimisers, learning rates and their schedule are those of the settings shared with MAZE, by
  default SGD that falls by a cosine (the paper: SGD in steps, Adam for the generator);
- the generator learns against the student in evaluation mode, so that its steps never touch the
  student's BatchNorm statistics;
- teachers without finite, bounded logits are left out. Early stopping is by held-out data of the
  server and only where asked for; DROP's always is, by the test set.
"""

import torch
from torch import Tensor, nn

from entity.distill.ensemble import Ensemble
from entity.distill.held_out import Exam, Labelled
from entity.distill.losses import disagreement
from entity.distill.maze import (
    RECHECK,
    Distillation,
    MazeArgs,
    conclude,
    descend,
    lay_out,
    new_optimiser,
    new_plateau,
    new_schedule,
)
from entity.models import Generator
from entity.training import autocast
from entity.updates import Stopwatch


def iterations(args: MazeArgs) -> int:
    """Return the number of iterations: the budget counts one batch in each.

    Examples
    --------
    >>> iterations(MazeArgs(budget=5e6, batch_size=512))
    9765
    """
    return args.distill_iters or int(args.budget // args.batch_size)


def distill(
    ensemble: Ensemble,
    student: nn.Module,
    generator: Generator,
    args: MazeArgs,
    rng: torch.Generator,
    *,
    holdout: Labelled | None = None,
) -> Distillation:
    """Train `student` to answer as `ensemble` does, on the generator's images alone.

    Parameters
    ----------
    ensemble
        The teachers; must have members.
    student, generator
        Trained in place.
    args
        Those that apply: budget or distill_iters, batch_size, iter_gen, iter_clone, lr_clone,
        lr_gen, opt, lr_scheduler, cycles, plateau, early_stopping, frac_recover_acc, log_iter,
        amp_enabled, channels_last.
    rng
        Source of all randomness.
    holdout
        What accuracy is measured on, if at all.
    """
    device = next(student.parameters()).device
    report = Distillation()
    watch = Stopwatch()
    total = iterations(args)
    learn = new_optimiser(student, args, args.lr_clone)
    seek = new_optimiser(generator, args, args.lr_gen)
    used = [learn] * (args.iter_clone > 0) + [seek] * (args.iter_gen > 0)
    schedules = [new_schedule(optimiser, args, total) for optimiser in used]

    def sample() -> Tensor:
        return generator(generator.noise(args.batch_size, rng).to(device))

    if args.channels_last:
        lay_out(ensemble, student, generator)
    generator.train()  # throughout: images are normalised by their own batch, as published
    with torch.no_grad():
        report.removed += len(ensemble.filter_by_bound(sample()))
    if not ensemble.members:
        return report

    exam = Exam(
        holdout,
        ensemble,
        student,
        every=args.log_iter,
        target=args.frac_recover_acc if args.early_stopping else None,
    )
    plateau = new_plateau(args, total, ensemble, student, generator, holdout, rng)
    for report.iterations in range(1, total + 1):
        with watch("generator"):
            student.eval()
            for _ in range(args.iter_gen):
                x = sample()
                descend(seek, -disagreement(ensemble(x), student(x), "l1", 1.0))
            student.train()
        for _ in range(args.iter_clone):
            with torch.no_grad():
                with watch("generator"):
                    x = sample()
                with watch("teachers"), autocast(device, args.amp_enabled):
                    answers = ensemble(x).float()
            with watch("student"):
                with autocast(device, args.amp_enabled):
                    own = student(x)
                descend(learn, disagreement(answers, own.float(), "l1", 1.0))
        for schedule in schedules:
            schedule.step()
        if report.iterations % RECHECK == 0:
            with torch.no_grad():
                report.removed += len(ensemble.filter_by_bound(sample()))
            if not ensemble.members:
                break
        with watch("holdout"):
            queries = report.iterations * args.batch_size
            if exam.passed(queries) or plateau.reached(report.iterations):
                break

    report.agreement = plateau.agreement
    return conclude(report, ensemble, student, generator, exam, watch, rng)
