"""Classes by name: `--target_class dog` for `--target_class 5`."""

from collections.abc import Collection, Mapping, Sequence
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
        If the data set has no class of that name, or what is given is no name.
    """
    attack = table_at(tables, "client", "attack")
    for path in CLASSES:
        name = path.rpartition(".")[2]
        value, dataset = attack.get(name), tables.get("dataset")
        if not isinstance(dataset, str) or not isinstance(attack, dict):
            continue
        if isinstance(value, str):
            attack[name] = _number(path, value, _class_names(tables, dataset), dataset)
        elif isinstance(value, Collection):
            null = ", or null for all but the target" if name == "victim_class" else ""
            raise ConfigError(
                f"{path} = {show(value)}: allowed is one class of {dataset}, its number or its "
                f"name{null}. {_listed(_class_names(tables, dataset))}"
            )


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
    hint = suggest(value, names) or f" {_listed(names)}"
    raise ConfigError(f"{path} = {show(value)}: is no class of {dataset}.{hint}")


def _listed(names: Sequence[str], most: int = 10) -> str:
    return f"Its classes: {', '.join(names[:most])}{', ...' if len(names) > most else ''}."
