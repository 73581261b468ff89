"""DROP+ with parts of it replaced, as a plugin, for the study `looks`.

    python benchmarks/run_study.py looks

What each variant is compared by is not sketched: with ten clients there is room for all of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from entity.defenses.drop_plus import DropPlus, DropPlusArgs
from entity.layout import ModelState
from entity.models import head_of
from entity.server import Resources
from entity.server.coalition_search import CoalitionSearch
from entity.server.sketches import Described, unit
from entity.server.visible import View
from entity.updates import ClientId


@dataclass(frozen=True)
class VariantArgs(DropPlusArgs):
    """Settings of DROP+, and what is replaced of it."""

    describes: Literal["parts", "weights", "head", "features", "answers"] = "parts"
    """What clients are compared by: both parts of every layer's update, as DROP+; whole updates;
    that of the output layer; or what their models make of the clean images: penultimate features,
    or log-probabilities."""
    centred: bool = True
    """The round's mean is taken off before they are compared."""
    linkage: Literal["average", "ward", "single", "complete"] = "average"
    """How the two groups are found."""
    looks_again: bool = True
    """Who is left when a coalition is taken out is looked at again."""
    images: Literal["clean", "upside down", "noise"] = "clean"
    """What the server's images are: as they are, upside down, or uniform noise."""


class _OneLook(CoalitionSearch):
    """A search that is content with one coalition."""

    def _next(self, known: Mapping[ClientId, str], times: int) -> dict[ClientId, str]:
        return {} if known else super()._next(known, times)


class DropPlusVariant(DropPlus):
    """DROP+, with a part of it replaced."""

    summary = "DROP+ with parts replaced, for its ablation"
    hyperparameters = VariantArgs
    args: VariantArgs

    def __init__(self, args: VariantArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        if args.images == "upside down":
            self.images = self.images.flip(-2)
        elif args.images == "noise":
            rng = resources.seeds.generator("noise for images")
            self.images = torch.rand(self.images.shape, generator=rng) * 2 - 1
        search = self.search
        for look in search.looks.values():
            look.method = args.linkage
        if not args.looks_again:
            self.search = _OneLook(search.histories, search.looks, search.judge, args.amounts)

    def describe(self, updates: Tensor, model: nn.Module, of: Sequence[View]) -> Described:
        """Return what updates (n, P) are like, by what the settings say."""
        described = super().describe(updates, model, of)
        if self.args.describes == "parts" and self.args.centred:
            return described
        rows = self._parts(updates, of)
        if self.args.describes in ("features", "answers"):
            both = [self._made_of_images(updates, model)] * 2
        elif self.args.describes == "parts":
            both = [[part[i] for part in rows.values()] for i in range(2)]
        else:
            names = [head_of(model)[0]] if self.args.describes == "head" else rows
            both = [[sum(rows[name]) for name in names]] * 2
        hidden, shown = (unit(torch.cat([self._alone(row) for row in each], 1)) for each in both)
        return described._replace(hidden=hidden, shown=shown)

    def _alone(self, rows: Tensor) -> Tensor:
        return unit(rows - rows.mean(0) if self.args.centred else rows)

    def _parts(self, updates: Tensor, of: Sequence[View]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the invisible and the visible part (n, ...) of every layer's update."""
        whole = {view.name: view.of(updates) for view in of}
        shown = {view.name: view.visible(whole[view.name]).flatten(1) for view in of}
        return {name: (whole[name].flatten(1) - shown[name], shown[name]) for name in whole}

    def _made_of_images(self, updates: Tensor, model: nn.Module) -> list[Tensor]:
        """Return what each client's model makes of the clean images, (n, ...)."""
        spec = self.resources.spec
        start, answers = spec.flatten(model), list[Tensor]()
        model.eval()
        for update in updates:
            spec.load(model, ModelState(start.weights + update, start.buffers))
            with torch.no_grad():
                found = model.features(self.images)  # pyright: ignore[reportCallIssue]
                if self.args.describes == "answers":
                    found = model.head(found).log_softmax(1)  # pyright: ignore[reportCallIssue]
            answers.append(found.flatten())
        spec.load(model, start)
        return [torch.stack(answers)]


DEFENSES = {"drop_plus_variant": DropPlusVariant}
