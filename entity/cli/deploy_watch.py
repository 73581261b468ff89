"""The command `drop deploy watch`: a real federation in the terminal, from its state folder."""

import argparse
import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from entity.cli import console
from entity.cli.watch import BAR, add_pace_options
from entity.config.paths import user_path
from entity.deployment.followed import FollowedFederation, summary_of
from entity.record.json_fields import mapping, number, text
from entity.record.json_files import finite

_SHOWN = 8
"""Rounds in the table, and refused clients below it."""


def add_deploy_watch_command(commands: Any) -> None:
    """Add `drop deploy watch`."""
    parser = commands.add_parser(
        "watch",
        help="follow a running federation",
        description="Follow a federation from the state folder of its server, until it ends.",
        epilog="Exit code 0 if the federation is finished or runs, 1 if it ended before that.",
        allow_abbrev=False,
    )
    parser.add_argument("state", type=user_path, metavar="STATE", help="state folder of the server")
    add_pace_options(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quiet", action="store_true", help="show nothing but what goes wrong")
    how.add_argument("--json", action="store_true", help="print a line of JSON a round")
    parser.set_defaults(go=_watch)


def _watch(options: argparse.Namespace) -> int:
    federation = FollowedFederation(options.state)
    if console.out.is_terminal and not (options.quiet or options.json):
        _show(federation, options)
    else:
        _print_lines(federation, options)
    said = _ending(federation)
    if federation.state in ("failed", "stopped"):
        console.warn(said)
    elif not (options.quiet or options.json):
        console.say(said)
    if federation.damage:
        console.warn(f"{federation.folder}: {federation.damage}")
    return 0 if federation.state in ("finished", "running") else 1


def _show(federation: FollowedFederation, options: argparse.Namespace) -> None:
    federation.look()
    if options.once:
        console.out.print(_screen(federation))
        return
    with Live(_screen(federation), console=console.out, auto_refresh=False) as live:
        while federation.state == "running":
            time.sleep(options.every)
            federation.look()
            live.update(_screen(federation), refresh=True)


def _print_lines(federation: FollowedFederation, options: argparse.Namespace) -> None:
    while True:
        new = federation.look()
        for line in new[-1:] if options.once else new:
            facts = summary_of(line)
            if options.json:
                print(json.dumps(finite(facts)), flush=True)
            elif not options.quiet:
                console.say(_plain(facts, federation.rounds))
            if line.get("aggregated") is False and not options.json:
                console.warn(f"round {line['round']}: the global model stayed as it was")
        if options.once or federation.state != "running":
            return
        time.sleep(options.every)


def _plain(facts: Mapping[str, Any], rounds: int) -> str:
    refused = [f"{each['name'] or each['client']} ({each['reason']})" for each in facts["refused"]]
    names = f": {', '.join(refused)}" if refused else ""
    pardoned = [
        each.get("name") or each["client"]
        for each in facts["decisions"]
        if each.get("kind") == "pardon"
    ]
    return (
        f"{facts['round']:>3}/{rounds}  accepted {facts['accepted']} of {facts['asked']}  "
        f"{facts['seconds']:.1f} s  refused {len(refused)}{names}"
        + (f"  pardoned {', '.join(pardoned)}" if pardoned else "")
    )


def _screen(federation: FollowedFederation) -> RenderableType:
    defense = text(federation.now, "defense") or "a federation"
    head = Text(
        f"{defense} in {federation.folder}", style="bold", overflow="ellipsis", no_wrap=True
    )
    full = BAR * federation.done // max(1, federation.rounds)
    bar = Text.assemble(
        ("━" * full, "green"),
        ("─" * (BAR - full), "dim"),
        f"  round {federation.done}/{federation.rounds}  {federation.doing}",
        overflow="ellipsis",
        no_wrap=True,
    )
    parts: list[RenderableType] = [head, bar]
    if federation.damage:
        parts.append(Text(federation.damage, style="red"))
    if federation.lines:
        parts.append(_rounds(federation))
    if federation.totals.refusals:
        kinds = sorted(federation.totals.refusals.items(), key=lambda pair: -pair[1])
        said = ", ".join(f"{number} {kind}" for kind, number in kinds)
        parts.append(Text(f"refused so far: {said}", overflow="ellipsis", no_wrap=True))
    return Group(*parts, *_refused(federation))


def _rounds(federation: FollowedFederation) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("round", "ended", "asked", "accepted", "refused", "s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("global model", no_wrap=True)
    for line in federation.lines[-_SHOWN:]:
        facts = summary_of(line)
        ended = number(line, "time")
        model = {True: "new", False: "stayed"}.get(facts["aggregated"], "not known")
        table.add_row(
            str(facts["round"]),
            f"{datetime.fromtimestamp(ended):%H:%M:%S}" if ended else "-",
            str(facts["asked"]),
            str(facts["accepted"]),
            str(len(facts["refused"])),
            f"{facts['seconds']:.1f}",
            model,
        )
    return table


def _refused(federation: FollowedFederation) -> list[RenderableType]:
    """Return the refused clients of the last round, and pardons since the last few rounds."""
    if not federation.lines:
        return []
    facts = summary_of(federation.lines[-1])
    lines = [
        f"{each['client']}{' (' + each['name'] + ')' if each['name'] else ''}: {each['reason']}"
        for each in facts["refused"]
    ]
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"... and {len(lines) - _SHOWN} more"]
    if lines:
        lines.insert(0, f"refused in round {facts['round']}:")
    for line in federation.lines[-_SHOWN:]:
        for each in map(mapping, line.get("decisions") or ()):
            done = {"pardon": "pardoned", "rekey": "got a new key"}.get(text(each, "kind"), "")
            lines.append(
                f"round {line['round']}: {text(each, 'client')} {done}: {text(each, 'reason')}"
            )
    return [Text(line, overflow="ellipsis", no_wrap=True) for line in lines]


def _ending(federation: FollowedFederation) -> str:
    """Return the last line: what the federation came to, and what can be done now."""
    if federation.state == "running":
        done = f"round {federation.done} of {federation.rounds} is done"
        return f"running: {done}; {federation.doing}"
    if federation.state == "finished":
        refusals = sum(federation.totals.refusals.values())
        return f"finished: {federation.done} rounds, {refusals} refusals"
    why = f": {federation.reason}" if federation.reason else ""
    return (
        f"{federation.state} after round {federation.done} of {federation.rounds}{why}; flwr run "
        "with the same state goes on"
    )
