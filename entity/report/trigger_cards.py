"""The attack at the top of the page: an image, the same one triggered, and every model's answers.

Runs that were shown the same pair of images share a card, which is all runs of one data set and
attack; an adaptive attack learns a trigger of its own in every run, and has a card for each.
"""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from entity.report.artifacts import Example
from entity.report.entries import Entry, Group
from entity.report.seed_bands import by_group
from entity.results.formatting import counted, percent

MOST_CARDS = 8
MOST_PARTS = 6
BUDGET = 600_000
"""Bytes of PNG up to which further images are shown."""

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Picture:
    """An image for an `img`."""

    src: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Answer:
    """What the models of a group say of an image."""

    said: str
    """The class; of several seeds the commonest, and how many of them say so."""
    confidence: str
    """Mean probability of that class, of those that say it."""
    kind: str
    """`wanted` by the attacker, `right` or `wrong`."""


@dataclass(frozen=True)
class Row:
    """The answers of one group of runs to the first image."""

    group: Group
    clean: Answer | None
    triggered: Answer
    others: list[tuple[Answer | None, Answer]]
    """To the further images, clean and triggered."""


@dataclass(frozen=True)
class Card:
    """One trigger, and the runs whose models were shown it."""

    pictures: list[Picture]
    others: list[tuple[Picture | None, Picture]]
    """Further images, clean and triggered; none where the page would weigh too much."""
    caption: str
    rows: list[Row]


@dataclass(frozen=True)
class Triggers:
    """What the page shows of the attacks."""

    cards: list[Card]
    left_out: int
    """Cards of which there is no room."""
    unknown: list[str]
    """Attacked runs, or groups of them, that left no example."""


def draw_triggers(entries: Sequence[Entry]) -> Triggers:
    """Draw the examples of all runs that have one."""
    of_pair: dict[tuple[bytes, bytes], list[Entry]] = {}
    for entry in entries:
        if example := entry.run.example:
            clean = b"" if example.clean is None else example.clean.tobytes()
            of_pair.setdefault((clean, example.triggered.tobytes()), []).append(entry)
    cards: list[Card] = []
    spent = 0
    for members in list(of_pair.values())[:MOST_CARDS]:
        if cards and spent > BUDGET:
            break
        card = _card(members, further=spent < BUDGET / 2)
        spent += sum(len(one.src) for one in card.pictures)
        spent += sum(len(one.src) for pair in card.others for one in pair if one)
        cards.append(card)
    known = {entry.group.index for members in of_pair.values() for entry in members}
    lacking = (group[0] for group in by_group(entries) if group[0].group.index not in known)
    return Triggers(
        cards,
        len(of_pair) - len(cards),
        [entry.group.label for entry in lacking if entry.run.attack != "none"] if cards else [],
    )


def _card(entries: Sequence[Entry], *, further: bool) -> Card:
    example = entries[0].run.example
    assert example is not None
    pictures = [_triggered(example, 0)]
    if example.clean is not None:
        pictures.insert(0, _clean(example, 0))
        pictures += _difference(example.clean[0], example.triggered[0])
    if example.parts is not None:
        pictures += [
            Picture(png(part), f"The image with part {place} alone", f"part {place}")
            for place, part in enumerate(example.parts[:MOST_PARTS], 1)
        ]
    shown = range(1, len(example.triggered)) if further else range(0)
    return Card(
        pictures,
        [
            (_clean(example, at) if example.labels else None, _triggered(example, at))
            for at in shown
        ],
        _caption(example),
        [_row(group, list(shown)) for group in by_group(entries)],
    )


def _clean(example: Example, at: int) -> Picture:
    assert example.clean is not None
    name = named(example, example.labels[at])
    return Picture(png(example.clean[at]), f"Clean test image of class {name}", f"clean: {name}")


def _triggered(example: Example, at: int) -> Picture:
    wanted = named(example, example.target)
    alt = f"The same image with the trigger; the attacker wants class {wanted}"
    if example.clean is None:
        return Picture(png(example.triggered[at]), "Image of the attack", "image of the attack")
    if np.array_equal(example.clean[at], example.triggered[at]):
        return Picture(png(example.triggered[at]), alt, "as attacked: unchanged")
    return Picture(png(example.triggered[at]), alt, "triggered")


def _difference(clean: Pixels, triggered: Pixels) -> list[Picture]:
    """Show where a trigger is, amplified to the whole range of grey; nothing without one."""
    change = triggered.astype(np.int16) - clean
    largest = int(np.abs(change).max())
    if not largest:
        return []
    drawn = np.round(128 + change * (127 / largest)).astype(np.uint8)
    factor = 127 / largest
    times = f", {factor:.0f} times" if factor >= 2 else ""
    return [Picture(png(drawn), "The difference of the two images", f"difference{times}")]


def _caption(example: Example) -> str:
    """Say which images these are and what the trigger does to them."""
    wanted = named(example, example.target)
    if example.clean is None:
        return f"The attack has images of its own, and wants them taken for {wanted}."
    which = "The first image of the test set that the attack changes, chosen before any training."
    change = np.abs(example.triggered[0].astype(np.int16) - example.clean[0])
    _, height, width = change.shape
    touched = int(change.any(axis=0).sum())
    if not touched:
        return f"{which} There is no trigger: the attack wants it taken for {wanted} as it is."
    said = (
        f"{which} The attack wants it taken for {wanted}. The trigger changes {touched:,} of "
        f"{height * width:,} pixels, the most changed by {counted(int(change.max()), 'level')} "
        "of 255."
    )
    if example.parts is None:
        return said
    return f"{said} Every malicious client stamps one of {len(example.parts)} parts of it."


def _row(group: Sequence[Entry], further: Sequence[int]) -> Row:
    examples = [entry.run.example for entry in group if entry.run.example]
    return Row(
        group[0].group,
        *_both(examples, 0),
        others=[_both(examples, at) for at in further],
    )


def _both(examples: Sequence[Example], at: int) -> tuple[Answer | None, Answer]:
    first = examples[0]
    label = first.labels[at] if first.labels else None
    clean = [each.clean_scores[at] for each in examples if each.clean_scores is not None]
    return (
        answer(first, clean, label) if clean else None,
        answer(first, [each.triggered_scores[at] for each in examples], label),
    )


def answer(example: Example, scores: Sequence[Scores], label: int | None) -> Answer:
    """Sum up what models say of one image.

    Parameters
    ----------
    example
        What its classes are called.
    scores
        The probabilities (classes,) of each model.
    label
        The image's true class; None where it is not known.
    """
    said = [int(one.argmax()) if np.isfinite(one).all() else None for one in scores]
    (best, times), *_ = Counter(said).most_common(1)
    how_often = f" ({times} of {len(scores)} seeds)" if times < len(scores) else ""
    if best is None:
        return Answer(f"no number{how_often}", "", "wrong")
    sure = fmean(float(one[best]) for one, its in zip(scores, said, strict=True) if its == best)
    kind = "right" if best == label else "wanted" if best == example.target else "wrong"
    return Answer(f"{named(example, best)}{how_often}", percent(sure), kind)


def named(example: Example, label: int) -> str:
    """Return a class by its name, or by its number where it has none."""
    names = example.class_names
    return names[label] if 0 <= label < len(names) else f"{label}"


def png(pixels: Pixels) -> str:
    """Return an image (C, H, W) as the source of an `img`."""
    grey = pixels.shape[0] == 1
    buffer = io.BytesIO()
    array = pixels[0] if grey else np.moveaxis(pixels, 0, -1)
    Image.fromarray(np.ascontiguousarray(array), "L" if grey else "RGB").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
