"""What was planned: the cells of three studies of `drop reproduce`, and the budget for them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from PIL import Image

from entity.setup.identity import fingerprint, to_json
from entity.sweep import study
from entity.sweep.cells import Cell, expand
from entity.sweep.grid import SEED
from entity.sweep.study import Study

CONFIGURATIONS, CIFAR10, BUDGET = NAMES = ("configurations", "configurations-cifar10", "budget")
CORE_SECONDS = 36_000
"""Budget of the first two, written down in their files before they were run."""

Labels = tuple[str, ...]
"""Labels of a cell, on the axes of its design."""


@dataclass(frozen=True)
class Design:
    """A study, and its cells with the seeds that each is to be run with."""

    study: Study
    seeds: dict[Labels, tuple[int, ...]]

    @property
    def axes(self) -> tuple[str, ...]:
        """Axes that tell cells apart."""
        return self.study.axes

    def labels_of(self, axis: str) -> list[str]:
        """Return the labels of an axis that any cell has, in the order of the file."""
        place = self.axes.index(axis)
        known = {labels[place] for labels in self.seeds}
        every = next(each for each in self.study.grid.axes if each.name == axis)
        return [value.label for value in every.values if value.label in known]

    def fields(self, axis: str, label: str) -> dict[str, str]:
        """Return the fields that a label sets."""
        every = next(each for each in self.study.grid.axes if each.name == axis)
        return dict(next(value for value in every.values if value.label == label).overrides)


@cache
def design(name: str) -> Design:
    """Return the design of a study."""
    found = study.find(name)
    seeds: dict[Labels, tuple[int, ...]] = {}
    for cell in found.grid.assignments():
        labels = tuple(cell[axis] for axis in found.axes)
        seeds[labels] = (*seeds.get(labels, ()), int(cell[SEED]))
    return Design(found, seeds)


def identities(name: str) -> dict[str, tuple[Labels, int]]:
    """Return which cell and seed of a study an experiment is, by its identity."""
    return {cell.identity: place for place, cell in _cells(name).items()}


def experiments(name: str) -> dict[tuple[Labels, int], str]:
    """Return the identity but for the code of its methods of each cell and seed of a study."""
    cells = _cells(name).items()
    return {place: fingerprint(to_json(cell.config), code=False) for place, cell in cells}


@cache
def _cells(name: str) -> dict[tuple[Labels, int], Cell]:
    found = design(name)
    with tempfile.TemporaryDirectory() as folder, _stand_in(Path(folder)):
        cells = expand(found.study.grid, Path(folder) / "none")
    return {
        (tuple(cell.labels[axis] for axis in found.axes), int(cell.labels[SEED])): cell
        for cell in cells
    }


@contextmanager
def _stand_in(folder: Path) -> Iterator[None]:
    """Have ten black images where the study of CIFAR-10 looks for a folder of images."""
    for part, number in product(("train", "test"), range(10)):
        of_class = folder / "cifar10-folder" / part / f"class{number}"
        of_class.mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(of_class / "0.png")
    before = os.environ.get("DROP_DATA")
    os.environ["DROP_DATA"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["DROP_DATA"]
        else:
            os.environ["DROP_DATA"] = before
