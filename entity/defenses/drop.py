"""DROP: clustering, activity tracking, and distillation into a clean student.

"DROP: Poison Dilution via Knowledge Distillation for Federated Learning", arXiv 2502.07011.
DROPlet's first two stages decide in every round who is averaged. Every K rounds the admitted
clients' models are also the teachers of a student that learns from generated images only, on
which a trigger hardly ever occurs; the student then replaces the global model.

Where we leave the original code, and why (what concerns the distillation itself stands in
`distill/maze.py`):

- fine-tuning works on the student; the original fine-tunes the aggregate and then throws it away;
- no decision is taken on test data, and the clean images are in no client's data;
- where every teacher is refused for unbounded logits, or the student itself is no longer finite,
  the averaged model is kept; the original stops with an exception;
- teachers' BatchNorm statistics stay within a fence around the median of theirs: nobody looks at
  them when clients are admitted, and a small variance makes one teacher louder than all others;
- with `min_agreement` (off by default) it is kept, too, where the student has collapsed: now and
  then one that started from random weights ends near chance, and would undo the whole training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from entity.defenses.droplet import ActivityServer, DropletArgs
from entity.distill.checks import check_distillation
from entity.distill.settings import StudentArgs
from entity.distill.student import Distiller
from entity.distill.training import Distillation
from entity.layout import ModelState
from entity.seeding import global_stream
from entity.server.buffers import fenced
from entity.server.contract import Needs, Resources, Setting
from entity.updates import Aggregation, Stopwatch, Updates


@dataclass(frozen=True)
class DropArgs(StudentArgs, DropletArgs):
    """Settings of DROP: those of DROPlet, and those of the distillation and its student."""


class Drop(ActivityServer[DropArgs]):
    """DROPlet, and a distillation every K rounds."""

    summary = "DROP: DROPlet, and data-free distillation into a clean student every K rounds"
    paper = "DROP, 2025, arXiv 2502.07011"
    hyperparameters = DropArgs
    trains_on = ("batch_size",)

    def __init__(self, args: DropArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        self.due = False
        """A distillation was due and found nobody; made up for with `reschedule`."""
        self.seen: int | None = 0
        """The last round that had an update to judge; None if that is not known."""
        self._asked = False
        self.distiller = Distiller(args, resources)

    @classmethod
    def needs(cls, args: DropArgs) -> Needs:
        """Add to DROPlet's needs what the distillation looks at."""
        images = args.K != -1 and (args.uses_critic or args.finetune or args.early_stopping)
        labels = args.reference_model or (args.K != -1 and (args.finetune or args.early_stopping))
        return replace(
            super().needs(args),
            clean_data=images or args.reference_model,
            clean_labels=labels,
            images=args.K != -1,
        )

    @classmethod
    def check(cls, args: DropArgs, setting: Setting) -> None:
        """Refuse what cannot distil."""
        super().check(args, setting)
        check_distillation(args, setting)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average the admitted clients and, when it is time, distil them into a student."""
        watch = Stopwatch()
        accepted, split = self.admit(updates, watch)
        with watch("average"):
            state = self.average(updates, self.shares(updates, torch.tensor(accepted)))
        diagnostics: dict[str, float] = {}
        artifacts: dict[str, Tensor] = {}
        self._asked = self._is_time(updates.round)
        self.seen = updates.round
        if self._asked:
            rows = [row for row, kept in enumerate(accepted) if kept]
            self.due = not rows
            if rows:
                stream = self.resources.seeds.generator("distill dropout", round=updates.round)
                with watch("distill_setup"), global_stream(stream):  # dropout draws from it
                    student, report = self.distiller.distil(
                        updates.round,
                        self._teachers(updates, rows),
                        updates.global_state,
                        state,
                    )
                diagnostics = {
                    "distilled": float(student is not None),
                    **_numbers(report, self.args),
                }
                state = state if student is None else self.finish(student)
                for phase, seconds in report.seconds.items():
                    watch.seconds["distill_setup"] -= seconds
                    watch.seconds[f"distill_{phase}"] = seconds
                if len(report.samples):
                    artifacts["generated"] = ((report.samples + 1) * 127.5).round().byte()
        answer = self.answer(updates, accepted, split, watch, state, diagnostics, artifacts)
        return replace(answer, replaced=diagnostics.get("distilled") == 1)

    def withdrawn(self) -> None:
        """Note that a distillation that was due in the round is due again."""
        self.due = self.due or self._asked

    def _teachers(self, updates: Updates, rows: list[int]) -> list[ModelState]:
        """Return the models of some clients, with statistics like the others' under the median."""
        buffers = updates.buffers
        if self.resources.averaging.bn_policy == "median" and buffers.shape[1]:
            accepted = torch.zeros(len(updates), dtype=torch.bool)
            accepted[rows] = True
            buffers = fenced(buffers, accepted, updates.spec)
        return [ModelState(updates.weights[row], buffers[row]) for row in rows]

    def _is_time(self, round: int) -> bool:
        args, seen = self.args, self.seen
        if args.K == -1 or round < args.K_start:
            return False
        before = (round - 1) // args.K * args.K  # in which one was due, whoever came
        missed = seen is not None and before > seen and before >= args.K_start
        return round % args.K == 0 or (args.reschedule and (self.due or missed))

    def state_dict(self) -> dict[str, Any]:
        """Return DROPlet's state, and the networks that the next distillation may mix in."""
        own = {"due": self.due, "seen": self.seen, "previous": self.distiller.state_dict()}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        super().load_state_dict(state)
        self.due = bool(state["due"])
        self.seen = state.get("seen")  # which checkpoints of earlier versions have not
        self.distiller.load_state_dict(state["previous"])


def _numbers(report: Distillation, args: DropArgs) -> dict[str, float]:
    measured = args.min_agreement is not None or args.plateau is not None
    return {
        **({"student_agreement": report.agreement} if measured else {}),
        "distill_iterations": float(report.iterations),
        "distill_member_forwards": float(report.member_forwards),
        "distill_teachers_removed": float(report.removed),
        "student_accuracy_held_out": report.accuracy,
        "teacher_accuracy_held_out": report.teacher_accuracy,
    }
