"""The command line: `drop run | sweep | reproduce | results | deploy | ...`, one a function."""

import argparse
import dataclasses
import json
import logging
import re
import shlex
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.logging import RichHandler
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from entity import __version__
from entity.cli import catalogue
from entity.cli.data import add_data_commands
from entity.cli.demo import run_demo
from entity.cli.progress import Display, percent
from entity.cli.report import add_report_command
from entity.cli.reproduce import add_reproduce_command
from entity.cli.scaffold import write_app
from entity.cli.sweep import add_sweep_commands
from entity.cli.watch import add_watch_command
from entity.config import schema
from entity.config.fields import ExperimentConfig
from entity.config.schema import ConfigError
from entity.config.shipped import shipped
from entity.engine.allocator import keep_pages
from entity.experiment import Result, run
from entity.setup import resolve
from entity.setup.resume import recorded
from entity.trackers import TRACKERS

out = Console()
err = Console(stderr=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0, 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM.
    """
    handler = RichHandler(console=err, show_time=False, show_path=False, show_level=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    keep_pages()
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    try:
        if rest and not options.takes_fields:
            raise ConfigError(f"{rest[0]} is not an option of drop {options.command}.")
        with _terminable():
            return options.go(options, rest)
    except ConfigError as error:
        err.print(f"drop: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt as stop:
        err.print("drop: stopped; the finished rounds are kept.", markup=False)
        return 143 if isinstance(stop, _Terminated) else 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has left; nothing to tell anybody
        return 0


class _Terminated(KeyboardInterrupt):
    """SIGTERM; whoever cleans up after Ctrl-C does so after this."""


@contextmanager
def _terminable() -> Generator[None]:
    """Let SIGTERM, by which schedulers end a job, stop a command as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return

    def stop(number: int, frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="drop",
        description="DROP and a laboratory of backdoors and defenses in federated learning.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"drop-fl {__version__}")
    parser.set_defaults(takes_fields=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser(
        "run",
        help="run one experiment",
        description="Run one experiment from a configuration file.",
        epilog="Any field of the configuration is an option, too: --DPR 0.25 --rounds 40 "
        "--client.lr 0.1 --client.attack null. `drop fields` lists them.",
        allow_abbrev=False,
    )
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, help="JSON or YAML file")
    what.add_argument(
        "--resume", type=Path, metavar="RUN", help="run directory of a stopped run to go on with"
    )
    one.add_argument("--out", type=Path, help="run directory (default: runs/NAME)")
    one.add_argument("--overwrite", action="store_true", help="replace the run that --out holds")
    one.add_argument("--data_root", help="data folder, another name of --datasets_path")
    one.add_argument(
        "--trackers", nargs="+", metavar="TRACKER", help=f"tell {', '.join(TRACKERS)} of it, too"
    )
    one.add_argument("--quiet", action="store_true", help="show no progress")
    one.add_argument("--json", action="store_true", help="print the summary as JSON")
    one.set_defaults(go=_run, takes_fields=True)

    demo = commands.add_parser(
        "demo", help="see DROP against its undefended twin, in three minutes", allow_abbrev=False
    )
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the demo")
    demo.add_argument("--quiet", action="store_true", help="show no progress")
    demo.set_defaults(go=_demo)

    data = add_data_commands(commands, out)
    split = data.add_parser(
        "preview",
        help="who would hold what",
        description="Show which client would hold how much of which class.",
        epilog="Any field of the configuration is an option, too, as of drop run.",
        allow_abbrev=False,
    )
    split.add_argument("--config", type=Path, required=True, help="JSON or YAML file")
    split.add_argument("--data_root", help="data folder, another name of --datasets_path")
    split.set_defaults(go=_preview, takes_fields=True)

    add_sweep_commands(commands)
    add_reproduce_command(commands)
    add_watch_command(commands)

    deploy = commands.add_parser(
        "deploy", help="take a defense to a real federation", allow_abbrev=False
    )
    init = deploy.add_subparsers(dest="what", required=True, metavar="COMMAND").add_parser(
        "init",
        help="write a ready Flower app",
        description="Write a Flower app that trains and defends an experiment: see its README.md.",
        epilog="Any field of the configuration is an option, too, as of drop run.",
        allow_abbrev=False,
    )
    init.add_argument("folder", type=Path, metavar="DIR", help="folder to write, new or empty")
    init.add_argument(
        "--config",
        type=Path,
        default=shipped("mnist5k/droplet"),
        help="JSON or YAML file (default: the demo's federation with DROPlet)",
    )
    init.add_argument("--data_root", help="data folder, another name of --datasets_path")
    init.set_defaults(go=_deploy, takes_fields=True)

    add_report_command(commands)

    listing = commands.add_parser("list", help="what there is to choose from", allow_abbrev=False)
    listing.add_argument("kind", nargs="?", help=", ".join(catalogue.CATALOGUE))
    listing.add_argument("--json", action="store_true", help="print as JSON")
    listing.set_defaults(go=_list)

    fields = commands.add_parser(
        "fields", help="every field of a configuration", allow_abbrev=False
    )
    fields.add_argument("--defense", default="drop", help="whose defense_args to show")
    fields.add_argument("--attack", default="badnets", help="whose attack fields to show")
    fields.add_argument("--poison", default="pixel", help="whose poison fields to show")
    fields.set_defaults(go=_fields)
    return parser


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    if options.resume is None:
        config = _configured(options, rest)
        name = config.name or resolve.default_name(config)
        folder = options.out or _free(Path("runs") / name)
        how = {"overwrite": options.overwrite}
    else:
        folder, how = options.resume, {"resume": True}
        if options.out or options.overwrite:
            raise ConfigError(f"--resume {folder}: takes neither --out nor --overwrite.")
        config = recorded(folder, _given(options, rest))
    quiet = options.quiet or not config.settings.verbose
    try:
        result = _watched(config, folder, config.server.defense.type, quiet=quiet, **how)
    except KeyboardInterrupt:
        if (folder / "config.json").exists():
            command = f"drop run --resume {shlex.quote(str(folder))}"
            err.print(f"To go on: {command}", markup=False, highlight=False, soft_wrap=True)
        raise
    if options.json:
        print(json.dumps(schema.dump(_finite(result.summary)), indent=2))
    else:
        out.print(_table([result], [config.server.defense.type]))
        out.print(f"Written to {folder}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _configured(options: argparse.Namespace, rest: list[str]) -> ExperimentConfig:
    return resolve.experiment(resolve.read(options.config), _given(options, rest))


def _given(options: argparse.Namespace, rest: list[str]) -> list[tuple[str, str | None]]:
    """Return the fields that the command line overrides."""
    fields = overrides(rest)
    if options.data_root is not None:
        fields.append(("settings.datasets_path", options.data_root))
    if getattr(options, "trackers", None):
        fields.append(("settings.trackers", json.dumps(options.trackers)))
    return fields


def overrides(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Read `--name value`, `--name=value` and `--name` off the command line.

    Raises
    ------
    ConfigError
        For a word that belongs to no option.

    Examples
    --------
    >>> overrides(["--DPR", "0.25", "--K=-1", "--augment"])
    [('DPR', '0.25'), ('K', '-1'), ('augment', None)]
    """
    found: list[tuple[str, str | None]] = []
    waiting = False
    for word in words:
        if re.match(r"--[A-Za-z]", word):
            name, equals, value = word[2:].partition("=")
            found.append((name, value if equals else None))
            waiting = not equals
        elif waiting:
            found[-1] = (found[-1][0], word)
            waiting = False
        else:
            raise ConfigError(f'"{word}" belongs to no option; fields are given as --NAME VALUE.')
    return found


def _free(folder: Path) -> Path:
    """Return the folder, or with a number behind it where it is taken."""
    number = 2
    free = folder
    while free.exists():
        free = folder.with_name(f"{folder.name}-{number}")
        number += 1
    return free


def _watched(
    config: ExperimentConfig, folder: Path, title: str, *, quiet: bool, **how: bool
) -> Result:
    with Display(err, title, config.federation.rounds, quiet=quiet) as display:
        return run(config, folder, on_round=display, **how)


def _demo(options: argparse.Namespace, rest: list[str]) -> int:
    if not options.quiet:
        err.print(
            "Ten clients learn digits; four of them teach the model to read a 0 with four white "
            "pixels as a 7. Once without a defense, once with DROPlet, once with DROP.",
            highlight=False,
        )

    def one(defense: str, config: ExperimentConfig, folder: Path) -> Result:
        title = f"{defense:10}"
        return _watched(config, folder, title, quiet=options.quiet, overwrite=True)

    results, page = run_demo(options.out, one)
    out.print(_table(results, [result.config.name or "" for result in results]))
    out.print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _table(results: Sequence[Result], names: Sequence[str]) -> Table:
    table = Table(
        title="Mean of the last 10 rounds", title_justify="left", title_style="", box=SIMPLE_HEAD
    )
    table.add_column("run", overflow="fold")
    for heading in ("MTA", "ASR", "refused", "of attackers", "of honest", "seconds"):
        table.add_column(heading, justify="right")
    for name, result in zip(names, results, strict=True):
        summary = result.summary
        detection = _finite(summary["detection"])
        table.add_row(
            name,
            percent(summary["mta"]["last10"]),
            percent(summary["asr"]["last10"]),
            str(summary["refusals"]),
            percent(detection["tpr"]),
            percent(detection["fpr"]),
            f"{summary['seconds']['total']:.1f}",
        )
    return table


def _finite(value: Any) -> Any:
    """Return a summary with null for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and value != value else value


def _preview(options: argparse.Namespace, rest: list[str]) -> int:
    from entity.cli.preview import preview

    out.print(preview(_configured(options, rest)))
    return 0


def _deploy(options: argparse.Namespace, rest: list[str]) -> int:
    config = _configured(options, rest)
    for path in write_app(options.folder, config):
        out.print(str(path), markup=False, highlight=False, soft_wrap=True)
    return 0


def _list(options: argparse.Namespace, rest: list[str]) -> int:
    kinds = [options.kind] if options.kind else list(catalogue.CATALOGUE)
    found = {kind: catalogue.rows(kind) for kind in kinds}
    if options.json:
        print(json.dumps(found[options.kind] if options.kind else found, indent=2))
        return 0
    for kind, rows in found.items():
        out.print(_listing(kind, rows))
    return 0


def _listing(kind: str, rows: list[catalogue.Row]) -> Table:
    """Return a registry as a table; on a narrow terminal the paper stands below the summary."""
    narrow, needs = out.width < 110, kind == "defenses"
    table = Table(
        title=kind, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("name", no_wrap=True)
    for heading in ("what it is", *(() if narrow else ("paper",)), *(("needs",) if needs else ())):
        table.add_column(heading)
    if needs:
        table.add_column("streams", max_width=8)
    for row in rows:
        about = [Text(row["summary"]), Text(row["paper"], style="dim")]
        cells = [Text("\n").join(part for part in about if part)] if narrow else about
        table.add_row(row["name"], *cells, *([row["needs"], row["streams"]] if needs else []))
    return table


def _fields(options: argparse.Namespace, rest: list[str]) -> int:
    for field in resolve.fields_of(options.defense, options.attack, options.poison):
        default = field.default
        shown = "" if default is dataclasses.MISSING else f" [{schema.show(default)}]"
        out.print(f"[bold]{field.path}[/]: {schema.describe(field.kind)}", end="", highlight=False)
        out.print(shown, markup=False, highlight=False)
        if field.doc:
            out.print(Padding(Text(" ".join(field.doc.split())), (0, 0, 0, 4)))
    return 0
