"""The command `drop fields`: every field of a configuration."""

import argparse
import dataclasses
from typing import Any

from rich.padding import Padding
from rich.text import Text

from entity.cli import console
from entity.cli.options import add_plugins
from entity.config import schema
from entity.setup import resolve
from entity.setup.plugins import use


def add_fields_command(commands: Any) -> None:
    """Add `drop fields`."""
    parser = commands.add_parser(
        "fields", help="show every field of a configuration", allow_abbrev=False
    )
    parser.add_argument(
        "--defense", default="drop", metavar="NAME", help="show its defense_args (default: drop)"
    )
    parser.add_argument(
        "--attack", default="badnets", metavar="NAME", help="show its fields (default: badnets)"
    )
    parser.add_argument(
        "--poison", default="pixel", metavar="NAME", help="show its fields (default: pixel)"
    )
    add_plugins(parser, "Python files and modules that bring methods of your own")
    parser.set_defaults(go=_fields)


def _fields(options: argparse.Namespace) -> int:
    use(options.plugins)
    for field in resolve.fields_of(options.defense, options.attack, options.poison):
        default = field.default
        shown = "" if default is dataclasses.MISSING else f" [{schema.show(default)}]"
        console.out.print(
            Text.assemble((field.path, "bold"), f": {schema.describe(field.kind)}{shown}")
        )
        if field.doc:
            console.out.print(Padding(Text(" ".join(field.doc.split())), (0, 0, 0, 4)))
    return 0
