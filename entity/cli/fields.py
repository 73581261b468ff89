"""The command `drop fields`: every field of a configuration, in groups, or those of a word."""

import argparse
import dataclasses
from typing import Any

from rich.padding import Padding
from rich.text import Text

from entity.cli import console
from entity.cli.declaration import TABLES
from entity.cli.options import add_plugins
from entity.config import schema
from entity.config.schema import ConfigError, suggest
from entity.setup import resolve
from entity.setup.field_list import ARGS, ATTACK, Field, every_field
from entity.setup.plugins import use

_SHOWN = {"defense": "drop", "attack": "badnets", "poison": "pixel"}
"""Of which methods the fields are, where none is named."""


def add_fields_command(commands: Any) -> None:
    """Add `drop fields`."""
    parser = commands.add_parser(
        "fields",
        help="show every field of a configuration",
        description="Show the fields of a configuration, or, of every method, those with a word "
        "in their name or meaning.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "word", nargs="?", metavar="WORD", help="such as alpha: only fields that have it"
    )
    for name, default in _SHOWN.items():
        what = "defense_args" if name == "defense" else "fields"
        parser.add_argument(
            f"--{name}", metavar="NAME", help=f"show its {what} (default: {default})"
        )
    add_plugins(parser, "Python files, folders and modules that bring methods of your own")
    parser.set_defaults(go=_fields)


def _fields(options: argparse.Namespace) -> int:
    use(options.plugins)
    given = {name: value for name in _SHOWN if (value := getattr(options, name)) is not None}
    if options.word is not None:
        if given:
            raise ConfigError(
                f"--{next(iter(given))}: has no effect beside {options.word}, which is looked for "
                "in the fields of every method."
            )
        return _search(options.word)
    defense, attack, poison = {**_SHOWN, **given}.values()
    owners = {ARGS: defense, ATTACK: f"{attack} and {poison}"}
    found = resolve.fields_of(defense, attack, poison)
    for table, (title, _) in TABLES.items():
        own = [field for field in found if field.path.rpartition(".")[0] == table]
        if own:
            of = f" of {owners[table]}" if table in owners else ""
            console.out.print(Text(f"{title}{of}", style="bold underline"))
        for field in own:
            _show(field)
    return 0


def _search(word: str) -> int:
    """Show the fields with a word: in their names first, then in their texts."""
    known = every_field()
    named = [each for each in known if word.lower() in each[0].path.lower()]
    told = [each for each in known if each not in named and word.lower() in each[0].doc.lower()]
    if not named and not told:
        names = {field.path.rpartition(".")[2] for field, _ in known}
        raise ConfigError(f"drop fields {word}: no field has that word.{suggest(word, names)}")
    for field, owners in (*named, *told):
        _show(field, owners)
    return 0


def _show(field: Field, owners: str = "") -> None:
    default = field.default
    shown = "" if default is dataclasses.MISSING else f" [{schema.show(default)}]"
    of = f" ({owners})" if owners else ""
    console.out.print(
        Text.assemble((field.path, "bold"), f": {schema.describe(field.kind)}{shown}{of}")
    )
    if field.doc:
        console.out.print(Padding(Text(" ".join(field.doc.split())), (0, 0, 0, 4)))
