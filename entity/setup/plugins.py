"""Anybody's own defenses, attacks, data poisons, data sets and models, in the registries.

A plugin is a Python file, a folder of them, or a module, with any of the tables of `TABLES`:

    DEFENSES = {"my_defense": MyDefense}

A package does the same by entry points of the groups `entity.defenses`, `entity.attacks`,
`entity.poisons`, `entity.datasets` and `entity.models`. A configuration names files, folders and
modules in `plugins`, next to those of the command line and of the environment variable
DROP_PLUGINS. Loading one runs it. What an experiment uses of a plugin makes the plugin, and the
hash of its code, a part of the experiment; a plugin that it uses nothing of is none.
"""

import importlib.metadata
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from entity import defenses, models
from entity.attacks import ATTACKS
from entity.client import Attacker
from entity.client.poison import Poison
from entity.config import schema
from entity.config.fields import AttackConfig, ExperimentConfig
from entity.config.schema import ConfigError, show
from entity.dataset.registry import DATASETS, OWN_DATASETS, PythonData
from entity.defenses import DEFENSES
from entity.models import MODELS, ModelEntry
from entity.models.user_model import checked
from entity.poisons import POISONS
from entity.server import Server
from entity.setup.plugin_files import (
    MARK,
    Code,
    absolute,
    digest_of,
    digest_of_package,
    failed,
    is_path,
    load,
    note_place,
    refuse_changed,
    show_name,
    split,
)
from entity.setup.plugin_source import Source
from entity.setup.signatures import refuse_other_signatures

log = logging.getLogger("entity")

VARIABLE = "DROP_PLUGINS"
"""Environment variable with plugins for every experiment, parted as PATH is."""


@dataclass(frozen=True)
class Table:
    """One of the tables that a plugin may have."""

    field: str
    """The field that chooses from it."""
    group: str
    """The group of entry points."""
    registries: tuple[dict[str, Any], ...]
    """Where the names must be new; entries go into the last."""
    kind: str
    """What its entries are, for messages."""
    ready: Callable[[Any, str, str], Any]
    """Check an entry, given what it belongs to and its name, and return what is registered."""
    taken: frozenset[str] = frozenset()
    """Other names of what there is, which a configuration may have."""

    @property
    def one(self) -> str:
        """Return one of its entries in words: `an attack`."""
        return f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"


def _method(base: type[Any]) -> Callable[[Any, str, str], Any]:
    def ready(entry: Any, owner: str, name: str) -> Any:
        if not (isinstance(entry, type) and issubclass(entry, base)):
            raise ConfigError(f"is no subclass of {base.__module__}.{base.__name__}")
        if missing := sorted(getattr(entry, "__abstractmethods__", ())):
            raise ConfigError(f"lacks the method {', '.join(missing)}")
        if not isinstance(getattr(entry, "summary", None), str):
            raise ConfigError("lacks `summary`, the line of `drop list`")
        settings = getattr(entry, "hyperparameters", None)
        if not (isinstance(settings, type) and is_dataclass(settings)):
            raise ConfigError("lacks `hyperparameters`, the dataclass of its settings")
        try:
            schema.hints(settings)
            schema.docs(settings)
        except Exception as error:
            raise ConfigError(f"has settings that cannot be read ({error})") from error
        taken = (
            [] if base is Server else [*{*schema.hints(settings)} & {*schema.hints(AttackConfig)}]
        )
        if taken:  # they stand in one table
            raise ConfigError(f"has a setting {sorted(taken)[0]}, as every attack has; rename it")
        bare = [each.name for each in fields(settings) if each.default is each.default_factory]
        if bare and base is Server:  # what a defense needs is asked of its defaults
            raise ConfigError(f"lacks a default of its settings {', '.join(bare)}")
        refuse_other_signatures(entry)
        return entry

    return ready


def _model(entry: Any, owner: str, name: str) -> ModelEntry:
    if not callable(entry):
        raise ConfigError("is no function that returns a torch.nn.Module")
    return ModelEntry(checked(name, entry), _first_line(entry), own=True)


def _data(entry: Any, owner: str, name: str) -> PythonData:
    if isinstance(entry, type) or not callable(entry):
        raise ConfigError("is no function that returns entity.dataset.Arrays")
    function: Callable[[], Any] = entry
    return PythonData(name, function, _first_line(entry), split(owner)[1] or owner)


def _first_line(entry: Any) -> str:
    return (inspect.getdoc(entry) or "").partition("\n")[0].rstrip(".")


TABLES: dict[str, Table] = {
    "DEFENSES": Table(
        "server.defense.type",
        "defenses",
        (DEFENSES,),
        "defense",
        _method(Server),
        frozenset(defenses.ALIASES),
    ),
    "ATTACKS": Table(
        "client.attack.type",
        "attacks",
        (ATTACKS,),
        "attack",
        _method(Attacker),
        frozenset({"none"}),
    ),
    "POISONS": Table("client.attack.poison", "poisons", (POISONS,), "data poison", _method(Poison)),
    "DATASETS": Table("dataset", "datasets", (DATASETS, OWN_DATASETS), "data set", _data),
    "MODELS": Table("model", "models", (MODELS,), "model", _model, frozenset(models.ALIASES)),
}
"""Everything that can be added, by the name of the table in a plugin."""

_owners: dict[tuple[str, str], str] = {}
"""The entry that brought each (table, name)."""
_sources: dict[str, Source | None] = {}
"""What the files and folders of loaded entries held."""
_generation = [0]


def generation() -> int:
    """Return a number that changes with the registries, for what is computed from them once."""
    return _generation[0]


def use(entries: Iterable[str]) -> tuple[str, ...]:
    """Load plugins and add what they have to the registries; return them with their hashes.

    Those of DROP_PLUGINS and of installed packages are loaded, too.

    Parameters
    ----------
    entries
        Files, folders and modules; relative paths begin at the working directory.

    Raises
    ------
    ConfigError
        If one is missing, fails, has nothing to add, or adds a name that there is already.
    """
    _load_installed()
    every = [*entries, *_of_environment()]
    return tuple(dict.fromkeys(_use_one(entry) for entry in every))


def relocated(tables: Mapping[str, Any], named: Iterable[object]) -> dict[str, Any]:
    """Return a recorded experiment with the places of plugins that are named anew.

    Parameters
    ----------
    tables
        The experiment; its plugins have hashes.
    named
        Files; those of DROP_PLUGINS count, too. One that holds what a recorded plugin held takes
        its place. None is run.
    """
    places = {
        digest: name
        for each in [*map(str, named), *_of_environment()]
        if is_path(name := split(absolute(each, Path()))[0]) and (digest := digest_of(Path(name)))
    }
    entries = tables.get("plugins")
    if not isinstance(entries, list) or not all(isinstance(each, str) for each in entries):
        return dict(tables)  # and `located` says what is wrong with it
    marked = [(entry, split(entry)[1]) for entry in entries]
    now = [f"{places[d]}{MARK}{d}" if d in places else entry for entry, d in marked]
    return {**tables, "plugins": now}


def _of_environment() -> list[str]:
    return [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part.strip()]


def _use_one(entry: str, source: Source | None = None) -> str:
    name, _ = split(entry)
    if "==" in name:
        return _use_package(entry)
    code = load(entry, source)
    if code.entry not in _sources:
        _forget_earlier(code)
        if not any(split(owner)[1] == code.sha256 for owner in _owners.values()):
            # else the same file at another place has done so
            _register(code, may_be_bare=split(entry)[1] is not None)
        _sources[code.entry] = code.source
    return code.entry


def _forget_earlier(code: Code) -> None:
    """Take out what an earlier state of the same file has added, as after an edit."""
    known = [*_owners.values(), *_sources]  # the owner may be the same file at another place
    digests = {split(entry)[1] for entry in known if split(entry)[0] == code.name}
    for key in [key for key, owner in _owners.items() if split(owner)[1] in digests]:
        _remove(*key)
    for entry in [entry for entry in _sources if split(entry)[1] in digests]:
        del _sources[entry]


def _remove(table: str, name: str) -> None:
    TABLES[table].registries[-1].pop(name, None)
    del _owners[table, name]
    _generation[0] += 1


def _register(code: Code, may_be_bare: bool) -> None:
    """Add the tables of a plugin to the registries: all of them, or on a fault none.

    A recorded one may have none: it is the module of `model: module:function`.
    """
    where = f"plugins = {show_name(code.name)}"
    found = _tables_of(code, where)
    added = [(table, name) for table, entries in found.items() for name in entries]
    if not added and not may_be_bare:
        raise ConfigError(
            f"{where}: adds nothing; it must have a table "
            f"{', '.join([*TABLES][:-1])} or {[*TABLES][-1]}."
        )
    done: list[tuple[str, str]] = []
    try:
        for table, name in added:
            _add(table, name, found[table][name], code.entry, f"{where}: {table}")
            done.append((table, name))
    except ConfigError:
        for key in done:
            _remove(*key)
        raise


def _tables_of(code: Code, where: str) -> dict[str, dict[Any, Any]]:
    """Return the tables of a plugin, whose own code may run here: that of a `__getattr__`."""
    try:
        found: dict[str, Any] = {
            table: getattr(code.module, table) for table in TABLES if hasattr(code.module, table)
        }
        wrong = [
            table
            for table, entries in found.items()
            if not isinstance(entries, dict) or any(entries is r for r in TABLES[table].registries)
        ]
        if not wrong:
            return {table: dict(entries) for table, entries in found.items()}
    except (Exception, SystemExit) as error:
        raise failed(code.name, error) from error
    raise ConfigError(f'{where}: {wrong[0]} must be a table of its own, such as {{"mine": Mine}}.')


def _add(table: str, name: Any, entry: Any, owner: str, where: str) -> None:
    kind = TABLES[table]
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(
            f"{where}: the name {show(name)} must be of small letters, digits and underscores."
        )
    if name in kind.taken:
        raise ConfigError(
            f"{where}: {name} is another name of {kind.one} of the project itself; rename it."
        )
    if any(name in registry for registry in kind.registries):
        other = _owners.get((table, name))
        by = show_name(split(other)[0]) if other else "the project itself"
        raise ConfigError(f"{where}: there is {kind.one} {name} already, of {by}; rename it.")
    try:
        ready = kind.ready(entry, owner, name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {name} {error}.") from error
    kind.registries[-1][name] = ready
    _owners[table, name] = owner
    _generation[0] += 1


@cache
def _load_installed() -> None:
    """Add what installed packages bring; of one that is broken, warn."""
    points = {
        table: importlib.metadata.entry_points(group=f"entity.{kind.group}")
        for table, kind in TABLES.items()
    }
    modules: dict[str, set[str]] = {}
    for point in chain.from_iterable(points.values()):
        modules.setdefault(_package_of(point), set()).add(point.module)
    for table, found in points.items():
        for point in found:
            package = _package_of(point)
            where = f"entry point {point.name} of {package or point.value}"
            try:
                if package and package not in _packages:  # before any of it is run
                    _packages[package] = digest_of_package(package, modules[package])
                owner = f"{package}{MARK}{_packages[package]}" if package else point.value
                _add(table, point.name, point.load(), owner, where)
                note_place(sys.modules[point.module])
            except ConfigError as error:
                log.warning("%s", error)
            except (Exception, SystemExit) as error:
                log.warning("%s: %s", where, str(failed(point.module, error))[len("plugins = ") :])


def _package_of(point: importlib.metadata.EntryPoint) -> str:
    """Return name and version of the package that has an entry point; "" if it is of none."""
    return f"{point.dist.name}=={point.dist.version}" if point.dist else ""


_packages: dict[str, str] = {}
"""SHA-256 of the packages that this process has loaded, by name and version."""


def _use_package(entry: str) -> str:
    """Check that an installed package is the one that an experiment was recorded with.

    Return it with the hash of its code, which earlier versions did not record.
    """
    package, expected = split(entry)
    name, _, version = package.partition("==")
    if not name.strip() or not version.strip():
        raise ConfigError(
            f"plugins = {show(entry)}: allowed is a package with its version, such as "
            "my-package==1.2."
        )
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError(f"plugins = {package}: the package {name} is not installed.") from None
    if found != version:
        raise ConfigError(f"plugins = {package}: version {found} is installed; install {version}.")
    if package not in _packages:  # it brings nothing
        return entry
    refuse_changed(package, _packages[package], expected)
    return f"{package}{MARK}{_packages[package]}"


def used(config: ExperimentConfig, entries: Sequence[str]) -> tuple[str, ...]:
    """Return those of some plugins that an experiment uses something of.

    The module of `model: module:function` is one.

    Parameters
    ----------
    config
        The experiment, whose names are all known.
    entries
        Loaded plugins, as `use` returned them.

    Raises
    ------
    ConfigError
        If it uses something of another plugin, which another experiment has loaded.
    """
    attack = config.client.attack
    chosen = [
        ("DEFENSES", config.server.defense.type),
        ("DATASETS", config.dataset),
        ("MODELS", config.model),
        *([("ATTACKS", attack.type), ("POISONS", attack.poison)] if attack else []),
    ]
    named = {split(entry)[1]: entry for entry in reversed(entries)}
    needed: dict[str, None] = {}
    for table, name in chosen:
        owner = _owners.get((table, name))
        if owner is None:
            continue
        package = "==" in split(owner)[0]
        entry = owner if package else named.get(split(owner)[1])
        if entry is None:
            raise ConfigError(
                f"{TABLES[table].field} = {name}: is of the plugin {split(owner)[0]}, which this "
                "experiment does not name; add it to plugins."
            )
        needed[entry] = None
    if model := _code_of_model(config.model):
        needed[model] = None
    return tuple(sorted(needed))


def _code_of_model(model: str) -> str | None:
    """Return the entry of the module of `module:function`; None for other models."""
    module, colon, _ = model.partition(":")
    if not colon or module == "__main__":  # which may have no file
        return None
    try:
        return load(module).entry
    except ConfigError:
        if module in sys.modules:  # as it was before an edit
            raise
        return None  # `check` says it of the field that names it


class Sent:
    """The plugins of an experiment on their way to another process.

    Put before an object that is pickled, so that its classes are there when it is unpickled.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self.entries = [(entry, _sources.get(entry)) for entry in entries]

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (self.entries,)


def _receive(entries: list[tuple[str, Source | None]]) -> Sent:
    _load_installed()
    return Sent([_use_one(entry, source) for entry, source in entries])


def rebuilt(sent: Sent, cls: type[Any], values: dict[str, Any]) -> Any:
    """Return an object of a dataclass with these values, once the plugins are loaded."""
    made: Any = object.__new__(cls)
    vars(made).update(values)
    return made


def located(tables: dict[str, Any], folder: Path, where: str) -> None:
    """Write the paths of `plugins` and `initial` as seen from the folder of their file, in place.

    Parameters
    ----------
    tables
        What a file holds.
    folder
        Its folder.
    where
        What holds the tables, for the message.

    Raises
    ------
    ConfigError
        If `plugins` is no list of texts.
    """
    if (entries := tables.get("plugins")) is not None:
        if not isinstance(entries, list) or not all(isinstance(each, str) for each in entries):
            raise ConfigError(
                f"{where}: plugins = {show(entries)}: allowed is a list of files, folders and "
                "modules."
            )
        tables["plugins"] = [absolute(entry, folder) for entry in entries]
    initial = tables.get("initial")
    if isinstance(initial, str) and os.path.exists(path := folder / initial):
        tables["initial"] = os.path.abspath(path)
