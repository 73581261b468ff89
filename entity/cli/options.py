"""Commands whose options are the fields of a configuration: `--DPR 0.25 --client.lr 0.1`."""

import argparse
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import simple_parsing

from entity.cli.declaration import HelpFormatter, declare, given_texts
from entity.config.commas import between_commas
from entity.config.fields import ExperimentConfig
from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.config.shipped import file_or_shipped
from entity.defenses import ALIASES
from entity.record.directory import NoRun
from entity.setup import resolve
from entity.setup.field_list import ARGS, ATTACK, DEFENSE, table_at
from entity.setup.overrides import field_named
from entity.setup.plugins import use
from entity.setup.resume import recorded_tables

OTHER_METHODS = (
    "Which settings of the attack, the data poison and the defense are listed depends on --config, "
    "--attack, --poison and --defense: drop run --defense flame --help."
)
CONFIG_HELP = "JSON or YAML file, or a shipped configuration such as mnist5k/drop"


def add_commands(parser: argparse.ArgumentParser, dest: str) -> Any:
    """Let a parser have commands; `add_parser(..., takes_fields=True)` makes a `FieldParser`."""
    parser_class: Any = _command_parser
    return parser.add_subparsers(
        dest=dest, required=True, metavar="COMMAND", parser_class=parser_class
    )


def _command_parser(
    *, takes_fields: bool = False, takes_axes: bool = False, **kwargs: Any
) -> argparse.ArgumentParser:
    if takes_axes:
        return AxisParser(**kwargs)
    return FieldParser(**kwargs) if takes_fields else argparse.ArgumentParser(**kwargs)


def add_plugins(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `--plugins` to a command that does not take the fields of a configuration.

    Parameters
    ----------
    parser
        Of the command.
    text
        For the help.
    """
    parser.add_argument(
        "--plugins", nargs="+", action="extend", default=[], metavar="FILE", help=text
    )


def configured(options: argparse.Namespace) -> ExperimentConfig:
    """Return the experiment of `--config` with the fields that the command line overrides."""
    return resolve.experiment(options.tables, options.given)


def values_of(name: str, text: str) -> list[str]:
    """Return the values that stand between commas; those within brackets and quotes are no ends.

    Raises
    ------
    ConfigError
        If one of them is empty.

    Examples
    --------
    >>> values_of("defense", "drop,flame"), values_of("trigger_pattern", "[[0, 0]],4pixel")
    (['drop', 'flame'], ['[[0, 0]]', '4pixel'])
    """
    values = between_commas(text)
    if "" in values:
        raise ConfigError(f"--{name} {text}: has an empty value; allowed is VALUE[,VALUE ...].")
    return values


class AxisParser(argparse.ArgumentParser):
    """The parser of a command that takes fields of a configuration with several values each.

    What it returns holds `axes`, the values of each field that was given, as texts. Whether there
    is such a field is said where it is given a value: that depends on the methods, which may be
    among what varies.
    """

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the words of a command.

        Parameters
        ----------
        args
            The words.
        namespace
            Where to put the values.

        Raises
        ------
        ConfigError
            If a field is given twice, or has an empty value.
        """
        kept: list[str] = []
        axes: dict[str, list[str]] = {}
        words = list(args or ())
        while words:
            word = words.pop(0)
            option, given, text = word.partition("=")
            if not re.match(r"--[A-Za-z]", word) or option in self._option_string_actions:
                kept.append(word)
                continue
            if not given:  # without a value it means true, as for `drop run`
                alone = not words or re.match(r"--[A-Za-z]|-h$", words[0])
                text = "true" if alone else words.pop(0)
            name = option.removeprefix("--")
            if name in axes:
                raise ConfigError(f"{option}: is given twice; its values have commas between them.")
            axes[name] = values_of(name, text)
        options = argparse.Namespace() if namespace is None else namespace
        _, rest = super().parse_known_args(kept, options)
        options.axes = axes
        return options, rest


class FieldParser(simple_parsing.ArgumentParser):
    """The parser of a command that has `--config` and takes the fields of a configuration.

    Where the command has no arguments but options, a first word that is no option is the value of
    `--config`. What the parser returns holds `tables`, those of `--config`, and `given`, the fields
    for `resolve.experiment`.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("epilog", OTHER_METHODS)
        super().__init__(formatter_class=HelpFormatter, **kwargs)

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        args: Sequence[str] | None = None,
        namespace: argparse.Namespace | None = None,
        attempt_to_reorder: bool = False,
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the words of a command; none is left over.

        Parameters
        ----------
        args
            The words.
        namespace
            Where to put the values.
        attempt_to_reorder
            Of simple-parsing; without a meaning here.

        Raises
        ------
        ConfigError
            If the file of `--config` cannot be read, or a word is no option.
        """
        words = list(args or ())
        if not self._get_positional_actions():
            words = _named_first(words)
        tables, types = _look_ahead(words, self.get_default("config"))
        fields = {field.path: field for field in resolve.fields(types)}
        names = declare(self, list(fields.values()), _owners(types))
        options, rest = super().parse_known_args(_joined(words, names), namespace)
        for word in rest:
            if re.match(r"--[A-Za-z]", word):
                field_named(word[2:].partition("=")[0], fields)  # says what is wrong with it
            raise ConfigError(f'"{word}" belongs to no option; fields are given as --NAME VALUE.')
        options.tables = tables
        options.given = [
            # what lacks a value is refused by its shortest name
            (path if text is not None else names[path][0].removeprefix("--"), text)
            for path, text in given_texts(options)
        ]
        return options, []


def _named_first(words: list[str]) -> list[str]:
    """Take a first word that is no option for the value of `--config`, where that is not given."""
    bare = bool(words) and not words[0].startswith("-")
    given = any(word.partition("=")[0] in ("--config", "--resume") for word in words)
    return ["--config", *words] if bare and not given else words


def _look_ahead(words: Sequence[str], config: Path | None) -> tuple[dict[str, Any], Any]:
    """Return the tables of `--config`, and tables of the types that decide which fields exist."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="?", default=config)
    parser.add_argument("--resume", nargs="?")
    parser.add_argument("--plugins", nargs="*", action="extend", default=[])
    for path in (f"{ATTACK}.type", f"{ATTACK}.poison", f"{DEFENSE}.type"):
        short = path.partition(".")[2]
        names = [f"--{path}", f"--{short}", *(["--poison"] if short == "attack.poison" else [])]
        names += ["--defense"] if short == "defense.type" else []
        parser.add_argument(*names, nargs="?", dest=short)
    parser.add_argument("--attack", f"--{ATTACK}", nargs="?")
    options = vars(parser.parse_known_args(words)[0])
    if (options["attack"] or "none").lower() not in ("none", "null"):
        options["attack.type"] = options["attack"]
    try:
        use(options["plugins"])
        tables, types = _tables_of(options["config"], options["resume"], options["plugins"])
    except ConfigError:
        if not {"-h", "--help"}.intersection(words):
            raise
        tables, types = {}, _SHOWN  # the help is what somebody with a broken file asks for
    attack, defense = table_at(types, "client", "attack"), table_at(types, "server", "defense")
    kind = str(options["defense.type"] or defense.get("type") or "undefended").lower()
    return tables, {
        "client": {
            "attack": {
                "type": options["attack.type"] or attack.get("type"),
                "poison": options["attack.poison"] or attack.get("poison", "pixel"),
            }
        },
        "server": {"defense": {"type": ALIASES.get(kind, kind)}},
    }


def _tables_of(
    config: Path | None, resume: str | None, plugins: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tables of `--config`, and those that say which types there are."""
    if config is not None:
        tables = resolve.read(file_or_shipped(config, Path()))
        return tables, tables
    if resume:
        with suppress(NoRun):  # which the command says better
            return {}, recorded_tables(user_path(resume), plugins, "--resume")
    return {}, _SHOWN


def _owners(types: Mapping[str, Any]) -> dict[str, str]:
    """Return whose fields are in the tables that depend on a type, by the table's path."""
    attack, defense = types["client"]["attack"], types["server"]["defense"]
    owners = {ARGS: str(defense["type"])}
    if attack["type"]:
        owners[ATTACK] = f"{attack['type']} and {attack['poison']}"
    return owners


_SHOWN: dict[str, Any] = {
    "client": {"attack": {"type": "badnets", "poison": "pixel"}},
    "server": {"defense": {"type": "drop"}},
}
"""Whose fields the help lists where no configuration is named."""


def _joined(words: Sequence[str], names: Mapping[str, Sequence[str]]) -> list[str]:
    """Write `--lr -1e-3` as `--lr=-1e-3`: argparse takes -1e-3, like -x, for an option."""
    options = {name for several in names.values() for name in several}
    joined: list[str] = []
    for word in words:
        is_value = word.startswith("-") and word != "-h" and not re.match(r"--[A-Za-z]", word)
        if is_value and joined and joined[-1] in options:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined
