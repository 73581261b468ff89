"""Classes of runs by name: `--where target_class=dog` for `--where target_class=5`.

Names of shipped data sets are known; those of others are in the summary of a run, or, of one that
an earlier version has made, in its example.
Nothing of a run directory is run for them: no plugin is loaded, and no data is read.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from entity.dataset import DATASETS
from entity.reading import open_regular, parse_json
from entity.record.directory import EXAMPLE, read_summary
from entity.record.json_fields import mapping
from entity.setup.class_names import place_of
from entity.setup.field_list import CLASSES

_ENDS = frozenset(path.rpartition(".")[2] for path in CLASSES)


class Label(int):
    """A class of a data set: its number, which knows what it is called."""

    dataset: str
    names: tuple[str, ...]
    """Of all classes of its data set; empty where nobody knows them."""

    @classmethod
    def of(cls, number: int, dataset: str, names: tuple[str, ...]) -> "Label":
        """Make one.

        Examples
        --------
        >>> dog = Label.of(1, "pets", ("cat", "dog"))
        >>> dog == 1, dog.is_called("Dog"), dog.shown, Label.of(1, "digits", ("0", "1")).shown
        (True, True, '1 (dog)', 1)
        """
        label = cls(number)
        label.dataset, label.names = dataset, names
        return label

    def is_called(self, text: str) -> bool:
        """Say whether a text is its name."""
        return place_of(text, self.names) == self

    @property
    def shown(self) -> str | int:
        """Its number with its name; the number alone where that is its name, or it has none."""
        name = self.names[self] if 0 <= self < len(self.names) else str(int(self))
        return int(self) if name == str(int(self)) else f"{int(self)} ({name})"


def is_class(name: str) -> bool:
    """Say whether a name, maybe without its first tables, is that of a field with a class."""
    return name.rpartition(".")[2] in _ENDS


def labelled(row: Mapping[str, object], folder: Path) -> dict[str, object]:
    """Return the fields of a run with a `Label` for every class.

    Parameters
    ----------
    row
        The fields by dotted path.
    folder
        Its directory.
    """
    dataset = str(row.get("dataset"))
    names = DATASETS[dataset].class_names if dataset in DATASETS else _noted(folder)
    found = {path: row.get(path) for path in CLASSES}
    labels = {
        path: Label.of(value, dataset, names)
        for path, value in found.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    return {**row, **labels}


def _noted(folder: Path) -> tuple[str, ...]:
    """Return the names that a run directory says; none where it does not."""
    return _texts(read_summary(folder).get("classes")) or _texts(_of_example(folder))


def _of_example(folder: Path) -> object:
    file = folder / EXAMPLE
    try:
        open_regular(file).close()
        with safe_open(file, framework="numpy") as content:
            said = mapping(parse_json((content.metadata() or {}).get("example", "")))
    except (SafetensorError, OSError, ValueError):
        return ()
    return said.get("classes")


def _texts(names: object) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)
