"""The command `drop run`: one experiment."""

import argparse
import json
import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from entity.api.progress import Display, percent
from entity.cli import console
from entity.cli.options import CONFIG_HELP, configured
from entity.cli.refusals import run_folder
from entity.config.fields import ExperimentConfig
from entity.config.paths import user_path
from entity.config.schema import CannotGoOn, ConfigError
from entity.experiment import Result, run
from entity.record.atomic import writing
from entity.record.json_fields import mapping, number
from entity.record.json_files import finite
from entity.record.window import Window, remark, span
from entity.setup import resolve
from entity.setup.resume import recorded


def add_run_command(commands: Any) -> None:
    """Add `drop run`."""
    parser = commands.add_parser(
        "run",
        help="run one experiment",
        description="Run one experiment from a configuration file.",
        usage="%(prog)s (FILE | --resume RUN) [OPTION ...] [--FIELD VALUE ...]",
        allow_abbrev=False,
        takes_fields=True,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config", type=user_path, metavar="FILE", help=f"{CONFIG_HELP}; a first word is one, too"
    )
    what.add_argument(
        "--resume",
        type=user_path,
        metavar="RUN",
        help="run directory of a stopped run to go on with",
    )
    parser.add_argument(
        "--out", type=user_path, metavar="DIR", help="run directory (default: runs/NAME)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run that --out holds")
    parser.add_argument("--quiet", action="store_true", help="show nothing but what goes wrong")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(go=_run)


def _run(options: argparse.Namespace) -> int:
    if options.resume is None:
        if options.overwrite and not options.out:
            raise ConfigError("--overwrite: needs --out DIR, which holds the run to replace.")
        config = configured(options)
        name = config.name or resolve.default_name(config)
        place = nullcontext(options.out) if options.out else own_folder(Path("runs") / name)
        with place as folder:
            return _run_in(folder, config, options, overwrite=options.overwrite)
    folder = options.resume
    if options.out or options.overwrite:
        raise ConfigError(f"--resume {folder}: takes neither --out nor --overwrite.")
    with run_folder(folder, "--resume"):
        config = recorded(folder, options.given)
    return _run_in(folder, config, options, resume=True)


def _run_in(
    folder: Path, config: ExperimentConfig, options: argparse.Namespace, **how: bool
) -> int:
    quiet = options.quiet or not config.settings.verbose
    try:
        log = None if options.json else console.out
        title = config.server.defense.type
        result = run_shown(config, folder, title, quiet=quiet, log=log, **how)
    except KeyboardInterrupt:
        _say_how_to_go_on(folder)
        raise
    except CannotGoOn as error:
        console.warn(str(error), style="red")
        _say_how_to_go_on(folder)
        return 1
    if options.json:
        print(json.dumps(finite(result.summary), indent=2))
    elif not options.quiet:
        console.out.print(summaries([result], [config.server.defense.type]))
        console.say(f"Written to {folder}")
    return 0


def _say_how_to_go_on(folder: Path) -> None:
    if (folder / "config.json").exists():
        console.note(f"To go on: drop run --resume {shlex.quote(str(folder))}")


def _make(folder: Path) -> bool:
    with writing(folder):
        try:
            folder.mkdir()
        except FileExistsError:
            return False
    return True


@contextmanager
def own_folder(folder: Path) -> Generator[Path]:
    """Make a folder or, where the name is taken, one with a number appended, and give its path.

    Making it takes the name: of runs that start at once each gets another. It is removed where
    nothing was written into it, as for a run that is refused.
    """
    parent, was_there = folder.parent, folder.parent.exists()
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
    names = chain([folder.name], (f"{folder.name}-{number}" for number in count(2)))
    made = next(place for name in names if _make(place := folder.with_name(name)))
    try:
        yield made
    finally:
        with suppress(OSError):  # it is not empty
            made.rmdir()
            if not was_there:
                parent.rmdir()


def run_shown(
    config: ExperimentConfig,
    folder: Path,
    title: str,
    *,
    quiet: bool,
    log: Console | None = None,
    **how: bool,
) -> Result:
    """Run an experiment and show its rounds on standard error, or in a log.

    Parameters
    ----------
    config
        A checked config.
    folder
        Run directory.
    title
        Text before every round.
    quiet
        Show nothing.
    log
        Takes a plain line a round where it is no terminal; see `Display`.
    how
        `overwrite` or `resume`, as `experiment.run` takes them.
    """
    option = "--resume" if how.get("resume") else "--out"
    with (
        Display(console.err, title, config.federation.rounds, quiet=quiet, log=log) as display,
        run_folder(folder, option),
    ):
        return run(config, folder, on_round=display, **how)


def summaries(results: Sequence[Result], names: Sequence[str]) -> Table:
    """Return what some runs came to, a row for each."""
    windows = [Window.read(result.summary) for result in results]
    table = Table(
        title=f"Mean of the {span(windows)}", title_justify="left", title_style="",
        caption=remark(zip(names, windows, strict=True)) or None, caption_justify="left",
        box=SIMPLE_HEAD, pad_edge=False, padding=0,
    )  # fmt: skip
    table.add_column("run", overflow="fold", min_width=min(16, max(map(len, names), default=0)))
    for heading in ("MTA", "ASR", "worst\nASR", "on\nvictims", "refused", "of\nattackers",
                    "of\nhonest", "seconds"):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    for name, result in zip(names, results, strict=True):
        summary = result.summary
        detection = mapping(summary.get("detection"))
        seconds = number(mapping(summary.get("seconds")), "total")
        table.add_row(
            name,
            percent(number(mapping(summary.get("mta")), "last10")),
            percent(number(mapping(summary.get("asr")), "last10")),
            percent(number(mapping(summary.get("consistency")), "worst_asr")),
            percent(number(mapping(summary.get("victim_accuracy")), "last10")),
            str(summary.get("refusals", "-")),
            percent(number(detection, "tpr")),
            percent(number(detection, "fpr")),
            "-" if seconds is None else f"{seconds:.1f}",
        )
    return table
