"""What MAZE and DFME share: networks, optimisers, checks of the teachers, and the end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from entity.devices import to_device
from entity.distill.agreement import PROBES, Plateau, comparison
from entity.distill.ensemble import Ensemble
from entity.distill.held_out import Exam, Labelled
from entity.distill.losses import disagreement
from entity.distill.optimisers import descend, new_optimiser, new_schedule
from entity.distill.settings import MazeArgs
from entity.models import Critic, Generator
from entity.training import autocast
from entity.updates import Stopwatch

RECHECK = 50
"""Iterations between checks that the teachers' logits are bounded."""

Batch = tuple[Tensor, Tensor]
"""Images (b, C, H, W) in [-1, 1] and the teachers' logits (b, classes) for them."""


class Networks(NamedTuple):
    """The networks of a distillation; all but the teachers are trained in place."""

    teachers: Ensemble
    """Must have members."""
    student: nn.Module
    generator: Generator
    critic: Critic | None = None
    """None is the data-free mode."""


@dataclass
class Distillation:
    """The report on a distillation; the student itself is trained in place."""

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


class Run:
    """A distillation under way.

    Parameters
    ----------
    networks
        Teachers, student, generator and perhaps a critic.
    args
        Settings; loss_type and temperature are what `disagreement` measures.
    rng
        Source of all randomness.
    iterations
        How many there will be, unless it ends early.
    queries
        Nominal queries of one iteration, for the looks at held-out data.
    steps
        Optimiser steps in an iteration of each network that is trained, by its name in
        `Networks`. One that takes none gets no schedule.
    """

    exam: Exam
    plateau: Plateau

    def __init__(
        self,
        networks: Networks,
        args: MazeArgs,
        rng: torch.Generator,
        *,
        iterations: int,
        queries: int,
        steps: Mapping[str, int],
    ) -> None:
        self.teachers, self.student, self.generator, self.critic = networks
        self.args = args
        self.rng = rng
        self.iterations = iterations
        self.queries = queries
        self.device = next(self.student.parameters()).device
        self.watch = Stopwatch()
        self.report = Distillation()
        self._first_members = len(self.teachers.members)
        if args.channels_last:
            for module in (*self.teachers.members, self.student, self.generator):
                module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        rates = {"student": args.lr_clone, "generator": args.lr_gen, "critic": args.lr_dis}
        self.optimisers = {
            name: new_optimiser(getattr(networks, name), args, rates[name]) for name in steps
        }
        self.schedules = [
            new_schedule(self.optimisers[name], args, iterations) for name in steps if steps[name]
        ]

    def begin(self, probe: Tensor, holdout: Labelled | None) -> bool:
        """Leave out teachers that answer the images `probe` without bound; false if none is left.

        `holdout` is what accuracy and, with `args.plateau`, agreement are measured on.
        """
        if not self.has_teachers_for(probe):
            self.report.removed = self._first_members
            return False
        self.exam = Exam(
            holdout,
            self.teachers,
            self.student,
            every=self.args.log_iter,
            target=self.args.frac_recover_acc if self.args.early_stopping else None,
        )
        self.plateau = self._new_plateau(holdout)
        return True

    def sample(self) -> Tensor:
        """Return images (b, C, H, W) that the generator makes of fresh noise."""
        return self._images(self.args.batch_size, self.rng)

    def _images(self, count: int, rng: torch.Generator) -> Tensor:
        return self.generator(to_device(self.generator.noise(count, rng), self.device))

    def answers(self, x: Tensor) -> Tensor:
        """Return the teachers' logits (b, classes), without a gradient."""
        with self.watch("teachers"), torch.no_grad(), autocast(self.device, self.args.amp_enabled):
            return self.teachers(x)

    def new_batch(self) -> Batch:
        """Return new images and the teachers' answers."""
        with self.watch("generator"), torch.no_grad():
            x = self.sample()
        return x, self.answers(x)

    def disagreement(self, answers: Tensor, own: Tensor) -> Tensor:
        """Return how far the student's logits are from the teachers', both (b, classes)."""
        return disagreement(answers, own, self.args.loss_type, self.args.temperature)

    def learn(self, x: Tensor, answers: Tensor) -> None:
        """Take one step of the student towards the teachers' answers."""
        with autocast(self.device, self.args.amp_enabled):
            own = self.student(x)
        self.descend("student", self.disagreement(answers, own.float()))

    def descend(self, name: str, loss: Tensor) -> None:
        """Take one step of the network with this name."""
        descend(self.optimisers[name], loss)

    def ends(self, iteration: int, x: Tensor | None) -> bool:
        """Finish an iteration (from 1) and say whether it is the last one.

        Every `RECHECK` iterations the teachers' logits on the images `x` are checked, if there
        are any.
        """
        self.report.iterations = iteration
        for schedule in self.schedules:
            schedule.step()
        if iteration % RECHECK == 0 and x is not None and not self.has_teachers_for(x):
            return True
        with self.watch("holdout"):
            return self.exam.passed(iteration * self.queries) or self.plateau.reached(iteration)

    def has_teachers_for(self, x: Tensor) -> bool:
        """Leave out teachers whose logits on `x` are not bounded; whether any is left."""
        self.teachers.filter_by_bound(x)
        return bool(self.teachers.members)

    def conclude(self) -> Distillation:
        """Put both networks into evaluation mode and return the report."""
        report = self.report
        self.student.eval()
        self.generator.eval()
        with self.watch("holdout"):
            report.accuracy = self.exam.accuracy()
        report.teacher_accuracy = self.exam.teacher_accuracy
        report.agreement = self.plateau.agreement
        report.removed = self._first_members - len(self.teachers.members)
        with torch.no_grad():
            report.samples = self._images(16, self.rng).cpu()
        report.member_forwards = self.teachers.forwards
        report.seconds = self.watch.seconds
        return report

    def _new_plateau(self, holdout: Labelled | None) -> Plateau:
        ends = self.args.cycle_ends(self.iterations)
        if self.args.plateau is None:
            return Plateau(None, ends, lambda: float("nan"))

        def sample(fresh: torch.Generator) -> Tensor:
            with torch.no_grad():
                return self._images(PROBES, fresh)

        held_out = None if holdout is None else holdout.x.to(self.device)
        measure = comparison(self.student, self.teachers, held_out, sample, self.rng)
        return Plateau(self.args.plateau, ends, measure)
