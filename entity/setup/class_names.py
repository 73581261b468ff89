"""Classes by name: `--target_class dog` for `--target_class 5`."""

from collections.abc import Mapping, Sequence
from typing import Any

from entity.config.fields import SettingsConfig
from entity.config.paths import user_path
from entity.config.schema import ConfigError, show, suggest
from entity.dataset import find
from entity.setup.field_list import CLASSES, table_at


def number_classes(tables: Mapping[str, Any]) -> None:
    """Write the numbers of classes that an experiment's tables name, in place.

    A number is a class's number, also where a class is called like another's number. A name may be
    given in small letters where that is no other class.

    Parameters
    ----------
    tables
        The experiment, not yet typed.

    Raises
    ------
    ConfigError
        If the data set has no class of that name.
    """
    attack = table_at(tables, "client", "attack")
    for path in CLASSES:
        name = path.rpartition(".")[2]
        value, dataset = attack.get(name), tables.get("dataset")
        if isinstance(value, str) and isinstance(dataset, str) and isinstance(attack, dict):
            attack[name] = _number(path, value, _class_names(tables, dataset), dataset)


def place_of(value: str, names: Sequence[str]) -> int | None:
    """Return the number of a class by its name, also in small letters; None for no class.

    Examples
    --------
    >>> place_of("DOG", ["cat", "dog"]), place_of("t", ["T", "t"]), place_of("x", ["T", "t"])
    (1, 1, None)
    """
    if value in names:
        return names.index(value)
    small = [name.lower() for name in names]
    return small.index(value.lower()) if small.count(value.lower()) == 1 else None


def _class_names(tables: Mapping[str, Any], dataset: str) -> tuple[str, ...]:
    root = table_at(tables, "settings").get("datasets_path", SettingsConfig().datasets_path)
    form = [tables.get(name) for name in ("image_size", "image_channels")]
    size, channels = (value if isinstance(value, int) else None for value in form)
    return find(dataset, user_path(str(root)), size, channels).class_names


def _number(path: str, value: str, names: tuple[str, ...], dataset: str) -> int:
    place = place_of(value, names)
    if place is not None:
        return place
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    hint = suggest(value, names) or f" Its classes: {shown}."
    raise ConfigError(f"{path} = {show(value)}: is no class of {dataset}.{hint}")
