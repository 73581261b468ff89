"""What a run left for the report: generated images, linkages of clients, an attack's example."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from scipy.cluster.hierarchy import is_valid_linkage

from entity.reading import open_regular, parse_json
from entity.record.json_fields import mapping

MOST_TREES = 60
"""Rounds of a run that a page offers to look at."""


@dataclass(frozen=True)
class Images:
    """Images (k, C, H, W) uint8 that the generator made in a round."""

    round: int
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Tree:
    """A linkage (n-1, 4) of the n `clients` that were selected in a round."""

    round: int
    linkage: NDArray[np.float64]
    clients: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """Test images of a finished run's attack, and the final model's probabilities for them."""

    triggered: NDArray[np.uint8]
    """(k, C, H, W)."""
    triggered_scores: NDArray[np.float64]
    """(k, classes)."""
    target: int
    """The class that the attacker wants."""
    class_names: tuple[str, ...]
    """Empty where they are not known."""
    clean: NDArray[np.uint8] | None = None
    """The same images without the trigger; None where the attack has images of its own."""
    clean_scores: NDArray[np.float64] | None = None
    labels: tuple[int, ...] = ()
    """Their true classes."""
    parts: NDArray[np.uint8] | None = None
    """(m, C, H, W) the first image as the clients of a distributed attack trigger it."""


_TENSORS = frozenset(("triggered", "triggered_scores", "clean", "clean_scores", "labels", "parts"))
MOST_EXAMPLES = 16
MOST_PIXELS = 1 << 24
"""Values of an example's images; more would be no example."""


def read_example(folder: Path) -> Example | None:
    """Read `example.safetensors`; None where there is none that can be read and shown."""
    file = folder / "example.safetensors"
    try:
        open_regular(file).close()
        with safe_open(file, framework="numpy") as content:
            said = mapping(parse_json((content.metadata() or {}).get("example", "")))
            names = _TENSORS.intersection(content.keys())
            sizes = (math.prod(content.get_slice(name).get_shape()) for name in names)
            if sum(sizes) > MOST_PIXELS:
                return None
            tensors = {name: content.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError):
        return None
    target, classes = said.get("target"), said.get("classes")
    triggered = _pictures(tensors.get("triggered"))
    if not isinstance(target, int) or not isinstance(classes, list) or triggered is None:
        return None
    shape, called = triggered.shape, tuple(map(str, cast("list[object]", classes)))
    scores = _scores(tensors.get("triggered_scores"), shape[0])
    if scores is None or shape[0] > MOST_EXAMPLES:
        return None
    clean, parts = (_pictures(tensors.get(name)) for name in ("clean", "parts"))
    clean_scores, labels = _scores(tensors.get("clean_scores"), shape[0]), tensors.get("labels")
    if clean is None or clean.shape != shape or clean_scores is None or labels is None:
        return Example(triggered, scores, target, called)
    if labels.shape != shape[:1] or labels.dtype != np.int64:
        return Example(triggered, scores, target, called)
    if parts is not None and (parts.shape[1:] != shape[1:] or len(parts) > MOST_EXAMPLES):
        parts = None
    true = tuple(int(label) for label in labels)
    return Example(triggered, scores, target, called, clean, clean_scores, true, parts)


def _pictures(tensor: NDArray[np.generic] | None) -> NDArray[np.uint8] | None:
    """Return what are grey images or images in colour."""
    if tensor is None or tensor.ndim != 4 or not tensor.size or tensor.dtype != np.uint8:
        return None
    return tensor.astype(np.uint8, copy=False) if tensor.shape[1] in (1, 3) else None


def _scores(tensor: NDArray[np.generic] | None, count: int) -> NDArray[np.float64] | None:
    """Return what are probabilities, not necessarily numbers, of so many images."""
    if tensor is None or tensor.ndim != 2 or tensor.dtype != np.float32:
        return None
    return tensor.astype(np.float64) if tensor.shape[0] == count and tensor.shape[1] else None


def last_images(folder: Path) -> Images | None:
    """Find the images of the last distillation."""
    for index, pixels in _newest_first(folder, "generated"):
        if pixels.ndim == 4 and pixels.size and pixels.dtype == np.uint8:
            return Images(index, pixels.astype(np.uint8, copy=False))
    return None


def all_trees(folder: Path, selected: Mapping[int, Sequence[str]]) -> tuple[Tree, ...]:
    """Find the linkages whose leaves are the clients selected in that round, first round first.

    Of very many it takes some that lie evenly, the last among them.
    """
    found: list[Tree] = []
    for index, linkage in _newest_first(folder, "linkage", MOST_TREES):
        clients = tuple(selected.get(index, ()))
        if linkage.shape == (len(clients) - 1, 4) and len(clients) > 1:
            rows = linkage.astype(np.float64)
            if is_valid_linkage(rows):
                found.append(Tree(index, rows, clients))
    return tuple(reversed(found))


def _newest_first(
    folder: Path, tensor: str, most: int | None = None
) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Read one tensor from `round_0010.safetensors` and the like, last round first."""
    numbered = [
        (int(digits), file)
        for file in folder.glob("round_*.safetensors")
        if (digits := file.stem.removeprefix("round_")).isdecimal()
    ]
    numbered.sort(reverse=True)
    step = math.ceil(len(numbered) / most) if most and numbered else 1
    for index, file in numbered[::step]:
        try:
            open_regular(file).close()
            with safe_open(file, framework="numpy") as tensors:
                if tensor in tensors.keys():  # noqa: SIM118  (no `in` on the handle itself)
                    yield index, tensors.get_tensor(tensor)
        except (SafetensorError, OSError):  # a crash cut it off while it was written
            continue
