"""From the models of a round to a student that takes the place of the averaged one."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from entity.distill import dfme, maze
from entity.distill.agreement import PROBES, agreement
from entity.distill.ensemble import Ensemble
from entity.distill.held_out import Labelled
from entity.distill.settings import StudentArgs
from entity.distill.training import Distillation, Networks
from entity.layout import ModelState, ParamSpec
from entity.models import CRITICS, GENERATORS
from entity.seeding import global_stream
from entity.server.averaging import step
from entity.server.contract import CleanData, Resources
from entity.training import Recipe, fit, shuffled

log = logging.getLogger("entity")


class Distiller:
    """Distils again and again; the networks of the last time can be mixed into those of the next.

    Parameters
    ----------
    args
        Settings.
    resources
        What the server was granted: clean data, seeds, the classifier's layout.
    """

    def __init__(self, args: StudentArgs, resources: Resources) -> None:
        self.args = args
        self.resources = resources
        self.previous: dict[str, ModelState] = {}
        """Student, generator and critic of the last distillation that was of use."""

    def distil(
        self, round: int, states: list[ModelState], start: ModelState, averaged: ModelState
    ) -> tuple[ModelState | None, Distillation]:
        """Distil the teachers into a student.

        Parameters
        ----------
        round
            Number of the round, for the seeds.
        states
            Models of the admitted clients, at least one.
        start
            The global model before the round.
        averaged
            The average of the clients' models.

        Returns
        -------
        tuple
            The model that takes the place of the averaged one, None to keep that, and a report.
        """
        args = self.args
        rng = self.resources.seeds.generator("distill", round=round)
        networks = self._networks(states if args.ensemble else [averaged], start, rng)
        seeds, holdout = self._clean_parts()
        if args.stealing_method == "dfme":
            report = dfme.distill(networks, args, rng, holdout=holdout)
        else:
            augment = self.resources.augment
            report = maze.distill(networks, seeds.x, args, rng, holdout=holdout, augment=augment)
        if not networks.teachers.members:
            return None, report
        if args.finetune:
            self._finetune(networks.student, seeds, rng)
        student = self.resources.spec.flatten(networks.student)
        if not all(vector.isfinite().all() for vector in student):
            return None, report
        if args.min_agreement is not None:
            report.agreement = self._agreement(networks, round)
            if not report.agreement >= args.min_agreement:
                log.warning(
                    "round %d: the student agrees with its teachers on %.1f %% of the images, "
                    "below min_agreement = %g: the averaged model is kept",
                    round,
                    100 * report.agreement,
                    args.min_agreement,
                )
                return None, report
        self._remember(networks)
        return mix(self.resources.spec, student, averaged, args.prev_global_weight), report

    def _networks(
        self, states: list[ModelState], start: ModelState, rng: torch.Generator
    ) -> Networks:
        """Return the teachers, and the others as their settings say that they start."""
        args, resources = self.args, self.resources
        channels, size = resources.image
        teachers = [resources.module(state) for state in states]
        student = resources.build(rng)
        with global_stream(rng):
            generator = GENERATORS[args.model_gen](
                channels, size, args.latent_dim, args.gen_width, resources.classes
            )
            critic = None
            if args.uses_critic:
                critic = CRITICS[args.model_dis](channels, size, args.dis_width)
        if args.clone_init_with_global:
            fresh = resources.spec.flatten(student)
            resources.spec.load(student, mix(resources.spec, start, fresh, args.random_S_alpha))
        else:
            self._recall("student", student, args.random_weight_S)
        self._recall("generator", generator, args.random_weight_G)
        if critic is not None:
            self._recall("critic", critic, args.random_weight_D)
        device = resources.device
        return Networks(
            Ensemble(teachers, args.teacher_norm, args.teacher_reduce),
            student.to(device),
            generator.to(device),
            None if critic is None else critic.to(device),
        )

    def _recall(self, name: str, module: nn.Module, random_share: float) -> None:
        """Mix the network of the distillation before into a fresh one."""
        if name in self.previous and random_share < 1:
            spec = ParamSpec.of(module)
            fresh = spec.flatten(module)
            spec.load(module, mix(spec, self.previous[name], fresh, random_share))

    def _remember(self, networks: Networks) -> None:
        for name in ("student", "generator", "critic"):
            module: nn.Module | None = getattr(networks, name)
            if module is not None:
                self.previous[name] = ParamSpec.of(module).flatten(module)

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
        first, rest = order[: self.args.seeds_used], order[self.args.seeds_used :]
        seeds = CleanData(clean.x[first], clean.y[first])
        holdout = Labelled(clean.x[rest], clean.y[rest]) if len(rest) else None
        return seeds, holdout

    def _finetune(self, student: nn.Module, seeds: CleanData, rng: torch.Generator) -> None:
        args, device = self.args, self.resources.device
        x, y = seeds.x.to(device), seeds.y.to(device)
        recipe = Recipe(args.finetune_lr, 0.9, 5e-4, min(64, len(y)), args.finetune_epochs)
        order = shuffled(len(y), recipe.batch_size, recipe.epochs, rng)
        fit(student, ((x[batch], y[batch]) for batch in order), recipe)
        student.eval()

    def _agreement(self, networks: Networks, round: int) -> float:
        """Return the share of images on which student and teachers agree; no label is read."""
        device, clean = self.resources.device, self.resources.clean
        if clean is not None:
            return agreement(networks.student, networks.teachers, clean.x.to(device))
        rng = self.resources.seeds.generator("agreement", round=round)
        with torch.no_grad():
            images = networks.generator(networks.generator.noise(PROBES, rng).to(device))
        return agreement(networks.student, networks.teachers, images)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return the networks that the next distillation may mix in."""
        args = self.args
        mixes = min(args.random_weight_S, args.random_weight_G, args.random_weight_D) < 1
        return {
            name: {"weights": state.weights, "buffers": state.buffers}
            for name, state in (self.previous if mixes else {}).items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.previous = {
            name: ModelState(vectors["weights"], vectors["buffers"])
            for name, vectors in state.items()
        }


def mix(spec: ParamSpec, base: ModelState, other: ModelState, share: float) -> ModelState:
    """Return `(1 - share) * base + share * other`; counters (`spec.counters`) take the maximum."""
    buffers = step(base.buffers, other.buffers, share)
    if share == 0:
        return base
    highest = torch.maximum(base.buffers, other.buffers)
    return ModelState(
        step(base.weights, other.weights, share), torch.where(spec.counters, highest, buffers)
    )
