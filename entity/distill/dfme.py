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

from dataclasses import replace

import torch

from entity.distill.held_out import Labelled
from entity.distill.settings import MazeArgs
from entity.distill.training import RECHECK, Distillation, Networks, Run


def iterations(args: MazeArgs) -> int:
    """Return the number of iterations: the budget counts one batch in each.

    Examples
    --------
    >>> iterations(MazeArgs(budget=5e6, batch_size=512))
    9765
    """
    return args.iterations_of(args.batch_size)


def distill(
    networks: Networks,
    args: MazeArgs,
    rng: torch.Generator,
    *,
    holdout: Labelled | None = None,
) -> Distillation:
    """Train the student to answer as the teachers do, on the generator's images alone.

    Parameters
    ----------
    networks
        Teachers, student and generator.
    args
        Those that apply: budget or distill_iters, batch_size, iter_gen, iter_clone, lr_clone,
        lr_gen, opt, lr_scheduler, cycles, plateau, early_stopping, frac_recover_acc, log_iter,
        amp_enabled, channels_last.
    rng
        Source of all randomness.
    holdout
        What accuracy is measured on, if at all.
    """
    run = Run(
        networks,
        replace(args, loss_type="l1", temperature=1.0),
        rng,
        iterations=iterations(args),
        queries=args.batch_size,
        steps={"student": args.iter_clone, "generator": args.iter_gen},
    )
    run.generator.train()  # throughout: images are normalised by their own batch, as published
    with torch.no_grad():
        probe = run.sample()
    if not run.begin(probe, holdout):
        return run.report
    for iteration in range(1, run.iterations + 1):
        improve_generator(run)
        for _ in range(args.iter_clone):
            x, answers = run.new_batch()
            with run.watch("student"):
                run.learn(x, answers)
        with torch.no_grad():
            probe = run.sample() if iteration % RECHECK == 0 else None
        if run.ends(iteration, probe):
            break
    return run.conclude()


def improve_generator(run: Run) -> None:
    """Move the generator to where student and teachers disagree."""
    with run.watch("generator"):
        run.student.eval()
        for _ in range(run.args.iter_gen):
            x = run.sample()
            run.descend("generator", -run.disagreement(run.teachers(x), run.student(x)))
        run.student.train()
