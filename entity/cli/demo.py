"""The command `drop demo`: one attacked federation undefended, with DROPlet, DROP and DROP+."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from entity.cli import console
from entity.cli.run import run_shown, summaries
from entity.config.fields import ExperimentConfig
from entity.config.paths import user_path
from entity.config.shipped import shipped
from entity.experiment import Result
from entity.report import write_page
from entity.setup import resolve

DEFENSES = ("undefended", "droplet", "drop", "drop_plus")
"""The shipped configurations of `mnist5k` that are run, as they are."""


def add_demo_command(commands: Any) -> None:
    """Add `drop demo`."""
    parser = commands.add_parser(
        "demo", help="see DROP against its undefended twin, in three minutes", allow_abbrev=False
    )
    parser.add_argument(
        "--out",
        type=user_path,
        default=Path("runs/demo"),
        metavar="FOLDER",
        help="default: runs/demo",
    )
    parser.add_argument("--quiet", action="store_true", help="show nothing but what goes wrong")
    parser.set_defaults(go=_demo)


def _demo(options: argparse.Namespace) -> int:
    if not options.quiet:
        console.err.print(
            "Ten clients learn digits; four of them teach the model to read a 0 with four white "
            "pixels as a 7. Once without a defense, once with DROPlet, with DROP, and with DROP+.",
            highlight=False,
        )

    def one(defense: str, config: ExperimentConfig, folder: Path) -> Result:
        title, quiet = f"{defense:10}", options.quiet
        return run_shown(config, folder, title, quiet=quiet, log=console.out, overwrite=True)

    results, page = run_demo(options.out, one)
    if not options.quiet:
        console.out.print(summaries(results, [result.config.name or "" for result in results]))
        console.say(f"Report: {page}")
    return 0


def run_demo(
    out: Path, one: Callable[[str, ExperimentConfig, Path], Result]
) -> tuple[list[Result], Path]:
    """Run the four experiments and write their report.

    Parameters
    ----------
    out
        Folder for the four run directories and `report.html`.
    one
        Runs a (defense, config, folder); the command line shows progress around it.

    Returns
    -------
    tuple
        The four results, and the path of the report.
    """
    results: list[Result] = []
    for defense in DEFENSES:
        config = resolve.experiment(resolve.read(shipped(f"mnist5k/{defense}")))
        results.append(one(defense, replace(config, name=defense), out / defense))
    page = write_page(
        [out / defense for defense in DEFENSES], out / "report.html", title="DROP demo"
    )
    return results, page
