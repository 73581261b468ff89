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
- with `min_agreement` (off by default) it is kept, too, where the student has collapsed: now and
  then one that started from random weights ends near chance, and would undo the whole training.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from entity.config.schema import ConfigError, Fraction, Positive, Whole, unknown
from entity.defenses.droplet import ActivityServer, DropletArgs
from entity.distill import (
    PROBES,
    Distillation,
    Ensemble,
    Labelled,
    MazeArgs,
    agreement,
    dfme,
    distill,
)
from entity.layout import ModelState, ParamSpec
from entity.models import CRITICS, GENERATORS, Generator
from entity.models.critics import SMALLEST
from entity.seeding import global_stream
from entity.server.contract import CleanData, Needs, Resources, Setting, step
from entity.training import Recipe, fit, shuffled
from entity.updates import Aggregation, Stopwatch, Updates

log = logging.getLogger("entity")


@dataclass(frozen=True)
class DropArgs(MazeArgs, DropletArgs):
    """Settings of DROP: those of DROPlet and of the distillation, and when to distil."""

    K: int = 5
    """Distil every K rounds; -1 never, which is DROPlet."""
    K_start: Whole = 0
    """First round that may distil."""
    reschedule: bool = False
    """Make up for a distillation that found nobody admitted in the next round (ours)."""
    ensemble: bool = True
    """Teach from the admitted clients' models; false teaches from their average."""
    clone_init_with_global: bool = False
    """Start the student from the global model before this round, else from random weights."""
    random_S_alpha: Fraction = 0.0
    """Share of random weights mixed into that global model."""
    random_weight_S: Fraction = 1.0
    """Share of random weights in a student that does not start from the global model;
    the rest is the student of the distillation before."""
    random_weight_G: Fraction = 1.0
    """The same for the generator."""
    random_weight_D: Fraction = 1.0
    """The same for the critic."""
    prev_global_weight: Fraction = 0.0
    """Share of the averaged model in the new global model; the rest is the student."""
    min_agreement: Fraction | None = None
    """Keep the averaged model where the student agrees with its teachers on a smaller share of the
    clean images, or of generated ones where the server is granted none; null never does (ours)."""
    finetune: bool = False
    """Fine-tune the student on the labelled clean images."""
    finetune_lr: Positive = 0.01
    """Learning rate of the fine-tuning (ours)."""
    finetune_epochs: Whole = 5
    """Epochs of the fine-tuning (ours)."""
    stealing_method: Literal["maze", "dfme"] = "maze"
    """Method of the distillation: MAZE, or DFME, which touches no clean image."""

    @property
    def uses_critic(self) -> bool:
        """Whether generated images are compared with clean ones."""
        return self.stealing_method == "maze" and self.alpha_gan > 0

    @property
    def total_iterations(self) -> int:
        """Number of iterations of the chosen method."""
        return self.iterations if self.stealing_method == "maze" else dfme.iterations(self)


class Drop(ActivityServer[DropArgs]):
    """DROPlet, and a distillation every K rounds."""

    summary = "DROP: DROPlet, and data-free distillation into a clean student every K rounds"
    paper = "DROP, 2025, arXiv 2502.07011"
    hyperparameters = DropArgs

    def __init__(self, args: DropArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        self.due = False
        """A distillation was due and found nobody; made up for with `reschedule`."""
        self.previous: dict[str, ModelState] = {}
        """Student, generator and critic of the last distillation, for the mixing weights."""

    @classmethod
    def needs(cls, args: DropArgs) -> Needs:
        """Add to DROPlet's needs what the distillation looks at."""
        images = args.K != -1 and (args.uses_critic or args.finetune or args.early_stopping)
        labels = args.reference_model or (args.K != -1 and (args.finetune or args.early_stopping))
        return replace(
            super().needs(args), clean_data=images or args.reference_model, clean_labels=labels
        )

    @classmethod
    def check(cls, args: DropArgs, setting: Setting) -> None:
        """Refuse what cannot distil."""
        super().check(args, setting)
        where = "server.defense.defense_args"
        if args.K == 0 or args.K < -1:
            raise ConfigError(f"{where}.K = {args.K}: allowed is -1 (never) or at least 1.")
        for name, known in (("model_gen", GENERATORS), ("model_dis", CRITICS)):
            value = getattr(args, name)
            if value not in known:
                raise ConfigError(unknown(f"{where}.{name} {value}", value, known))
        if args.K == -1:
            return
        if setting.image[1] % 4:
            raise ConfigError(
                f"{where}.model_gen = {args.model_gen}: generates sizes that are a multiple of 4, "
                f"the data set has {setting.image[1]}; choose another, or set K to -1 (DROPlet)."
            )
        if args.uses_critic and setting.image[1] < SMALLEST:
            raise ConfigError(
                f"{where}.model_dis = {args.model_dis}: needs images of at least {SMALLEST} "
                f"pixels, the data set has {setting.image[1]}; set alpha_gan to 0."
            )
        if args.total_iterations < 1:
            maze = args.stealing_method == "maze"
            queries = args.queries_per_iteration if maze else args.batch_size
            raise ConfigError(
                f"{where}.budget = {args.budget:g}: is less than the {queries} queries of one "
                "iteration; raise it or lower batch_size."
            )
        if args.uses_critic and (args.iter_dis or 0) > args.iter_clone:
            raise ConfigError(
                f"{where}.iter_dis = {args.iter_dis}: the critic learns beside the student, at "
                f"most iter_clone = {args.iter_clone} times an iteration; lower it."
            )
        if args.plateau is not None and args.cycles == 1:
            raise ConfigError(
                f"{where}.plateau = {args.plateau:g}: is looked for between cycles, and there is "
                "one cycle; raise cycles to at least 2."
            )
        if args.uses_critic or args.finetune:
            _check_clean_data(args, setting, where)
        if args.early_stopping and setting.clean_samples <= _seeds_used(args):
            raise ConfigError(
                f"{where}.early_stopping = true: is measured on held-out server data beside the "
                f"{_seeds_used(args)} of num_seed, and the server holds {setting.clean_samples} "
                "in all; raise server.held_out or lower num_seed."
            )

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average the admitted clients and, when it is time, distil them into a student."""
        watch = Stopwatch()
        accepted, split = self.admit(updates, watch)
        with watch("average"):
            state = self.average(updates, self.shares(updates, torch.tensor(accepted)))
        diagnostics: dict[str, float] = {}
        artifacts: dict[str, Tensor] = {}
        if self._is_time(updates.round):
            rows = [row for row, kept in enumerate(accepted) if kept]
            self.due = not rows
            if rows:
                stream = self.resources.seeds.generator("global stream", round=updates.round)
                with watch("distill_setup"), global_stream(stream):  # dropout draws from it
                    student, report = self._distilled(updates, rows, state)
                diagnostics = {
                    "distilled": float(student is not None),
                    **_numbers(report, self.args),
                }
                state = student or state
                for phase, seconds in report.seconds.items():
                    watch.seconds["distill_setup"] -= seconds
                    watch.seconds[f"distill_{phase}"] = seconds
                if len(report.samples):
                    artifacts["generated"] = ((report.samples + 1) * 127.5).round().byte()
        return self.answer(updates, accepted, split, watch, state, diagnostics, artifacts)

    def _is_time(self, round: int) -> bool:
        args = self.args
        if args.K == -1 or round < args.K_start:
            return False
        return round % args.K == 0 or (args.reschedule and self.due)

    def _distilled(
        self, updates: Updates, rows: list[int], averaged: ModelState
    ) -> tuple[ModelState | None, Distillation]:
        """Return the model that takes the place of the averaged one, or None to keep that."""
        args, resources = self.args, self.resources
        spec, device = resources.spec, resources.device
        states = [updates.state(row) for row in rows] if args.ensemble else [averaged]
        ensemble = Ensemble(
            [resources.module(state) for state in states], args.teacher_norm, args.teacher_reduce
        )
        rng = resources.seeds.generator("distill", round=updates.round)
        channels, size = resources.image
        student = resources.build(rng)
        with global_stream(rng):
            generator = GENERATORS[args.model_gen](
                channels, size, args.latent_dim, args.gen_width, resources.classes
            )
            critic = None
            if args.uses_critic:
                critic = CRITICS[args.model_dis](channels, size, args.dis_width)
        if args.clone_init_with_global:
            fresh = spec.flatten(student)
            mixed = mix(spec, updates.global_state, fresh, args.random_S_alpha)
            spec.load(student, mixed)
        else:
            self._recall("student", student, args.random_weight_S)
        self._recall("generator", generator, args.random_weight_G)
        if critic is not None:
            self._recall("critic", critic, args.random_weight_D)
        seeds, holdout = self._clean_parts()
        student, generator = student.to(device), generator.to(device)
        if args.stealing_method == "dfme":
            report = dfme.distill(ensemble, student, generator, args, rng, holdout=holdout)
        else:
            report = distill(
                ensemble,
                student,
                generator,
                None if critic is None else critic.to(device),
                seeds.x,
                args,
                rng,
                holdout=holdout,
                augment=resources.augment,
            )
        if not ensemble.members:
            return None, report
        if args.finetune:
            _finetune(student, seeds, args, rng)
        own = spec.flatten(student)
        if not all(vector.isfinite().all() for vector in own):
            return None, report
        if args.min_agreement is not None:
            report.agreement = self._agreement(student, ensemble, generator, updates.round)
            if not report.agreement >= args.min_agreement:
                log.warning(
                    "round %d: the student agrees with its teachers on %.1f %% of the images, "
                    "below min_agreement = %g: the averaged model is kept",
                    updates.round,
                    100 * report.agreement,
                    args.min_agreement,
                )
                return None, report
        for name, module in (("student", student), ("generator", generator), ("critic", critic)):
            if module is not None:
                self.previous[name] = ParamSpec.of(module).flatten(module)
        return mix(spec, own, averaged, args.prev_global_weight), report

    def _agreement(
        self, student: nn.Module, ensemble: Ensemble, generator: Generator, round: int
    ) -> float:
        """Return the share of images on which student and teachers agree; no label is read."""
        device, clean = self.resources.device, self.resources.clean
        if clean is not None:
            return agreement(student, ensemble, clean.x.to(device))
        rng = self.resources.seeds.generator("agreement", round=round)
        with torch.no_grad():
            images = generator(generator.noise(PROBES, rng).to(device))
        return agreement(student, ensemble, images)

    def _recall(self, name: str, module: nn.Module, random_share: float) -> None:
        """Mix the module of the distillation before into a fresh one."""
        if name in self.previous and random_share < 1:
            spec = ParamSpec.of(module)
            fresh = spec.flatten(module)
            spec.load(module, mix(spec, self.previous[name], fresh, random_share))

    def _clean_parts(self) -> tuple[CleanData, Labelled | None]:
        """Part the clean data into seed images and the held-out rest."""
        clean = self.resources.clean
        if clean is None:
            channels, size = self.resources.image
            none = CleanData(torch.empty(0, channels, size, size), torch.empty(0, dtype=torch.long))
            return none, None
        order = torch.randperm(
            len(clean.y), generator=self.resources.seeds.generator("distillation seeds")
        )
        count = _seeds_used(self.args)
        first, rest = order[:count], order[count:]
        seeds = CleanData(clean.x[first], clean.y[first])
        holdout = Labelled(clean.x[rest], clean.y[rest]) if len(rest) else None
        return seeds, holdout

    def state_dict(self) -> dict[str, Any]:
        """Return DROPlet's state, and the networks that the next distillation may mix in."""
        keep = any(
            weight < 1
            for weight in (
                self.args.random_weight_S,
                self.args.random_weight_G,
                self.args.random_weight_D,
            )
        )
        networks = {
            name: {"weights": state.weights, "buffers": state.buffers}
            for name, state in (self.previous if keep else {}).items()
        }
        return {**super().state_dict(), "due": self.due, "previous": networks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        super().load_state_dict(state)
        self.due = bool(state["due"])
        self.previous = {
            name: ModelState(vectors["weights"], vectors["buffers"])
            for name, vectors in state["previous"].items()
        }


def mix(spec: ParamSpec, base: ModelState, other: ModelState, share: float) -> ModelState:
    """Return `(1 - share) * base + share * other`; counters take the maximum."""
    buffers = step(base.buffers, other.buffers, share)
    if share == 0:
        return base
    highest = torch.maximum(base.buffers, other.buffers)
    return ModelState(
        step(base.weights, other.weights, share), torch.where(spec.counters, highest, buffers)
    )


def _seeds_used(args: DropArgs) -> int:
    return args.num_seed if args.uses_critic or args.finetune else 0


def _check_clean_data(args: DropArgs, setting: Setting, where: str) -> None:
    if args.num_seed > setting.clean_samples:
        raise ConfigError(
            f"{where}.num_seed = {args.num_seed}: the server holds {setting.clean_samples} clean "
            "samples; lower it or raise server.held_out."
        )
    if args.uses_critic and args.num_seed * args.num_repeat_real < args.batch_size:
        raise ConfigError(
            f"{where}.batch_size = {args.batch_size}: is more than num_seed x num_repeat_real = "
            f"{args.num_seed * args.num_repeat_real}; lower it or raise one of those."
        )


def _finetune(student: nn.Module, seeds: CleanData, args: DropArgs, rng: torch.Generator) -> None:
    device = next(student.parameters()).device
    x, y = seeds.x.to(device), seeds.y.to(device)
    recipe = Recipe(args.finetune_lr, 0.9, 5e-4, min(64, len(y)), args.finetune_epochs)
    order = shuffled(len(y), recipe.batch_size, recipe.epochs, rng)
    fit(student, ((x[batch], y[batch]) for batch in order), recipe)
    student.eval()


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
