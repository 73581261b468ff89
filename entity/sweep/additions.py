"""Methods that a study does not have, beside those that it has: `defense=norm_gate`.

A word is AXIS=NAME, or several names with commas between, and the settings of one are words
NAME.FIELD=VALUE, as in `norm_gate.factor=1.5`. A name that is no method has one among its settings:
`tight.defense=norm_gate` or `tight.config=mine.json`; so there can be several of one method.

All that the study says holds for the new cells, too, but for what it says of other values of the
axis by name. A paper has no figure of them. What a study with one value of an axis expects is
expected of that value alone.
"""

from collections.abc import Sequence
from dataclasses import replace

from entity.config.schema import ConfigError, unknown
from entity.setup.plugins import use
from entity.sweep.added_value import Asked, CannotAdd, added_value, tables_of
from entity.sweep.grid import Axis, Grid, label_of, with_values
from entity.sweep.study import Study


def with_added(study: Study, words: Sequence[str]) -> Study:
    """Return a study with more values on some of its axes.

    Parameters
    ----------
    study
        The study; the plugins of its grid are loaded.
    words
        What is added, and its settings.

    Raises
    ------
    CannotAdd
        One sentence that begins with the word, or the value, that cannot be added.
    ConfigError
        If a plugin cannot be loaded.
    """
    if not words:
        return study
    use(study.grid.plugins)
    for asked in _asked(study.grid, words):
        axis = _axis(study.grid, asked)
        value = added_value(study.grid, axis, asked)
        try:
            grid = with_values(study.grid, axis.name, [value])
        except ConfigError as error:
            raise CannotAdd(f"{asked.said}: {error}") from error
        study = replace(_without_the_new(study, axis), grid=grid)
    return study


def _asked(grid: Grid, words: Sequence[str]) -> list[Asked]:
    """Read the words: first what is added, then the settings of it, in whatever order."""
    axes = [axis.name for axis in grid.axes]
    parted = [(word, *_parted(word)) for word in words]
    found = [
        Asked(name, label.strip(), {})
        for _, name, text in parted
        if name in axes
        for label in text.split(",")
    ]
    labels = [asked.label for asked in found]
    for asked in found:
        if not asked.label or labels.count(asked.label) > 1:
            wrong = "comes twice" if asked.label else "has an empty name"
            raise CannotAdd(f"{asked.said}: {wrong}; allowed is AXIS=NAME[,NAME ...].")
    settings: dict[str, dict[str, str]] = {label: {} for label in labels}
    for word, name, text in parted:
        if name not in axes:
            label, field = _setting(word, name, labels, axes)
            if field in settings[label]:
                raise CannotAdd(f"{word}: {label}.{field} comes twice.")
            settings[label][field] = text
    return [replace(asked, settings=settings[asked.label]) for asked in found]


def _parted(word: str) -> tuple[str, str]:
    name, equals, text = word.partition("=")
    if not (name.strip() and equals):
        raise CannotAdd(
            f"{word}: allowed is AXIS=NAME[,NAME ...], such as defense=norm_gate, or "
            "NAME.FIELD=VALUE, such as norm_gate.factor=1.5."
        )
    return name.strip(), text.strip()


def _setting(word: str, name: str, labels: Sequence[str], axes: Sequence[str]) -> tuple[str, str]:
    """Return whose setting a word is, and the field."""
    for label in labels:
        if name.startswith(f"{label}.") and name != f"{label}.":
            return label, name.removeprefix(f"{label}.")
    first = name.partition(".")[0]
    if "." not in name:
        raise CannotAdd(f"{word}: axis {unknown(name, name, axes)}")
    raise CannotAdd(f"{word}: the added value {unknown(first, first, labels)}")


def _axis(grid: Grid, asked: Asked) -> Axis:
    """Return the axis of a value, which chooses among methods and lacks the value."""
    axis = next(each for each in grid.axes if each.name == asked.axis)
    if not tables_of(axis):
        others = [each.name for each in grid.axes if tables_of(each)]
        raise CannotAdd(
            f"{asked.said}: the axis {axis.name} is no choice of a method; allowed here: "
            f"{', '.join(others) or 'nothing'}."
        )
    if asked.label in [value.label for value in axis.values]:
        raise CannotAdd(
            f"{asked.said}: {axis.name} has the value {label_of(asked.label)} already; another one "
            f"of that method has another name, such as mine, and mine.{axis.name}={asked.label}."
        )
    return axis


def _without_the_new(study: Study, axis: Axis) -> Study:
    """Return a study whose figures and expectations are none of values that an axis will have.

    Rows are told apart by the axis from now on.
    """
    own = tuple(value.label for value in axis.values)
    expectations = study.expectations
    if len(own) == 1:
        expectations = tuple(
            replace(each, cells={axis.name: own, **each.cells}) for each in expectations
        )
    paper = study.published
    return replace(
        study,
        axes=study.axes if axis.name in study.axes else (*study.axes, axis.name),
        expectations=expectations,
        published=None if paper is None else paper.of_values(axis.name, own),
    )
