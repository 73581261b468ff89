"""The command `drop list`: every registry, and the shipped configurations, as rows of text."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from entity.attacks import ATTACKS
from entity.cli import console
from entity.cli.options import add_plugins
from entity.config.schema import ConfigError, unknown
from entity.config.shipped import names, shipped
from entity.dataset import DATASETS, OWN_DATASETS
from entity.dataset.imagefolder import PREFIX, SUMMARY
from entity.defenses import ALIASES, DEFENSES
from entity.models import MODELS
from entity.poisons import POISONS
from entity.server import Server, StreamingServer
from entity.setup.plugins import use
from entity.setup.read import read

Row = dict[str, str]


def _defenses() -> list[Row]:
    aliases: dict[str, list[str]] = {}
    for alias, name in ALIASES.items():
        aliases.setdefault(name, []).append(alias)
    return [
        {
            "name": name,
            "group": group_of(name),
            "summary": server.summary,
            "paper": server.paper,
            "needs": str(server.needs(server.hyperparameters())),
            "streams": _streams(server),
            "aliases": ", ".join(aliases.get(name, [])),
        }
        for name, server in sorted(DEFENSES.items(), key=lambda one: _ORDER.index(group_of(one[0])))
    ]


GROUPS = {
    "averages": ("undefended", "random_aggregation"),
    "who is averaged": (
        *("droplet", "krum", "multikrum", "flame", "flare", "deepsight", "rflbat", "freqfed"),
        *(
            "multi_metrics",
            "alignins",
            "snowball",
            "backdoor_indicator",
            "crowdguard",
            "foolsgold",
            "fltrust",
            "dnc",
            "signguard",
        ),
        "fldetector",
    ),
    "robust averages": ("median", "trimmed_mean", "rfa", "bulyan", "rlr"),
    "bounds and noise": ("norm_clipping", "weak_dp", "centered_clipping", "crfl"),
    "cleans the model": ("drop", "drop_plus", "finetuning"),
    "trains clients otherwise": ("flip",),
}
"""Defenses by what they change in a round."""
OTHERS = "others"
_ORDER = [*GROUPS, OTHERS]


def group_of(defense: str) -> str:
    """Return the group of a defense; `others` for those that somebody registered."""
    return next((group for group, names in GROUPS.items() if defense in names), OTHERS)


def _streams(server: type[Server[Any]]) -> str:
    if not issubclass(server, StreamingServer):
        return "no"
    return server.streams_with or "yes"


def _entries(registry: dict[str, Any]) -> Callable[[], list[Row]]:
    return lambda: [
        {"name": name, "summary": entry.summary, "paper": entry.paper}
        for name, entry in registry.items()
    ]


def _datasets() -> list[Row]:
    own = {"name": f"{PREFIX}NAME", "summary": SUMMARY, "paper": ""}
    return [*_entries(DATASETS)(), *_entries(OWN_DATASETS)(), own]


def _configs() -> list[Row]:
    """One row for every folder of shipped configurations."""
    folders: dict[str, list[str]] = {}
    for name in names():
        folder, _, defense = name.rpartition("/")
        if defense in DEFENSES:
            folders.setdefault(folder, []).append(defense)
    return [_config_row(folder, defenses) for folder, defenses in folders.items()]


def _config_row(folder: str, defenses: list[str]) -> Row:
    tables = read(shipped(f"{folder}/federation"))
    federation = tables["federation"]
    only = "" if set(DEFENSES) == set(defenses) else f" (only {', '.join(defenses)})"
    return {
        "name": f"{folder}/DEFENSE",
        "summary": f"{tables['model']} on {tables['dataset']}: {federation['size']} clients, "
        f"{federation['number_of_malicious_clients']} malicious, {federation['round_size']} a "
        f"round, {federation['rounds']} rounds{only}",
        "paper": "",
        "defenses": ", ".join(defenses),
    }


CATALOGUE: dict[str, Callable[[], list[Row]]] = {
    "defenses": _defenses,
    "attacks": _entries(ATTACKS),
    "poisons": _entries(POISONS),
    "datasets": _datasets,
    "models": _entries(MODELS),
    "configs": _configs,
}


def rows(kind: str) -> list[Row]:
    """Return one registry, in its order.

    Raises
    ------
    ConfigError
        If there is no such registry.
    """
    if kind not in CATALOGUE:
        raise ConfigError(unknown(f"drop list {kind}", kind, CATALOGUE))
    return CATALOGUE[kind]()


def add_list_command(commands: Any) -> None:
    """Add `drop list`."""
    parser = commands.add_parser(
        "list",
        help="list defenses, attacks, data sets and all else to choose from",
        allow_abbrev=False,
    )
    parser.add_argument("kind", nargs="?", metavar="KIND", help=", ".join(CATALOGUE))
    parser.add_argument(
        "word", nargs="?", metavar="WORD", help="only what has this word in its name or text"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    add_plugins(parser, "Python files, folders and modules whose methods and data are listed, too")
    parser.set_defaults(go=_list)


def _list(options: argparse.Namespace) -> int:
    use(options.plugins)
    kind, word = options.kind, options.word
    if kind is not None and kind not in CATALOGUE and word is None:
        kind, word = None, kind  # `drop list krum`
    registries = {each: rows(each) for each in ([kind] if kind else CATALOGUE)}
    if word is not None:
        registries = {each: _with(word, entries) for each, entries in registries.items()}
        registries = {each: entries for each, entries in registries.items() if entries}
        if not registries:
            if options.word is None:
                rows(options.kind)  # says that it is no kind
            raise ConfigError(f"drop list {options.kind} {word}: there is nothing of that word.")
    if options.json:
        print(json.dumps(registries[kind] if kind else registries, indent=2))
        return 0
    for kind, entries in registries.items():
        console.out.print(_listing(kind, entries))
    return 0


def _with(word: str, entries: list[Row]) -> list[Row]:
    """Return the rows that have a word anywhere."""
    return [row for row in entries if word.lower() in " ".join(row.values()).lower()]


def _listing(kind: str, rows: list[Row]) -> Table:
    """Return a registry as a table; on a narrow terminal the paper stands below the summary."""
    narrow, needs = console.out.width < 110, kind == "defenses"
    table = Table(
        title=kind, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("name", no_wrap=True)
    for heading in ("what it is", *(() if narrow else ("paper",)), *(("needs",) if needs else ())):
        table.add_column(heading)
    if needs:
        table.add_column("streams", max_width=8)
    group = None
    for row in rows:
        if row.get("group", group) != group:
            group = row["group"]
            table.add_section()
            table.add_row(Text(group, style="italic"))
        about = [Text(row["summary"]), Text(row["paper"], style="dim")]
        cells = [Text("\n").join(part for part in about if part)] if narrow else about
        table.add_row(row["name"], *cells, *([row["needs"], row["streams"]] if needs else []))
    return table
