"""The commands `drop data list | fetch | verify | where | preview`: what data is here."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from entity.cli import console
from entity.cli.options import CONFIG_HELP, add_commands, add_plugins, configured
from entity.config.fields import SettingsConfig
from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.dataset import DATASETS, OWN_DATASETS, Images, Source, differs, find
from entity.dataset.cache import cache_folders, caches
from entity.dataset.imagefolder import PREFIX, image_folders
from entity.seeding import Seeds
from entity.setup.plugins import use


def add_data_command(commands: Any) -> None:
    """Add `drop data` with its commands."""
    data = commands.add_parser("data", help="the data sets and their files", allow_abbrev=False)
    kinds = add_commands(data, "data_command")

    def add(name: str, text: str, go: Callable[[Namespace], int]) -> ArgumentParser:
        parser = kinds.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
        )
        parser.add_argument(
            "--data_root", metavar="FOLDER", help="data folder (default: DROP_DATA, or ./data)"
        )
        parser.set_defaults(go=go)
        return parser

    listing = add("list", "list the data sets, and which of them are here", _list)
    fetch = add("fetch", "download a data set", _fetch)
    verify = add("verify", "read all files of a data set again and check them", _verify)
    for parser in (listing, verify):
        add_plugins(parser, "Python files, folders and modules that bring data sets of your own")
    for parser in (fetch, verify):
        parser.add_argument("name", metavar="NAME", help=f"data set, or {PREFIX}NAME")
    verify.add_argument(
        "--image_size", type=int, metavar="PIXELS", help=f"height and width of an {PREFIX}NAME"
    )
    verify.add_argument(
        "--image_channels", type=int, choices=(1, 3), help=f"colour channels of an {PREFIX}NAME"
    )
    add("where", "show the data folder and the caches of decoded images", _where)

    split = kinds.add_parser(
        "preview",
        help="show which client would hold which classes",
        description="Show which client would hold how much of which class.",
        usage="%(prog)s [--config] FILE [--FIELD VALUE ...]",
        allow_abbrev=False,
        takes_fields=True,
    )
    split.add_argument("--config", type=user_path, metavar="FILE", required=True, help=CONFIG_HELP)
    split.set_defaults(go=_preview)


def data_root(option: str | None) -> tuple[Path, str]:
    """Return the data folder and why it is that one: an option, the environment or neither."""
    if option:
        return user_path(option), "--data_root says so"
    if named := os.environ.get("DROP_DATA"):
        return user_path(named), "the environment variable DROP_DATA says so"
    return user_path(
        SettingsConfig().datasets_path
    ), "the default; --data_root or DROP_DATA change it"


def _list(options: Namespace) -> int:
    root, _ = data_root(options.data_root)
    use(options.plugins)
    console.say(f"data sets; folders are in {root}")
    table = _table("name", "classes", "images", "shape", "state", "folder")
    for name, source in DATASETS.items():
        state, folder, counts = _state(source, root)
        table.add_row(name, str(source.num_classes), counts, _shape(source), state, folder)
    for name, own in OWN_DATASETS.items():
        source = own.source(root)
        _, _, counts = _state(source, root)
        table.add_row(name, str(source.num_classes), counts, _shape(source), "plugin", "")
    console.out.print(table)
    if own := [name for name in image_folders(root) if not _is_known(name)]:
        console.say("image folders")
        table = _table("name", "classes", "images", "shape", "state")
        for name in own:
            table.add_row(PREFIX + name, *_image_folder(PREFIX + name, root))
        console.out.print(table)
    return 0


def _state(source: Source, root: Path) -> tuple[str, str, str]:
    """Return whether a data set is here, its folder below the root, and how many images it has."""
    published = _numbers(*source.counts) if source.counts else ""
    if source.files is None:
        return "built in", "", published
    try:
        found = source.files.locate(root)
    except ConfigError:  # `drop data verify` says what is wrong
        return "damaged", source.files.folders[0], published
    if found is None:
        return "missing", source.files.folders[0], published
    folder, stamps = found
    where = os.path.relpath(folder, root)
    if (images := source.files.cached(root, stamps)) is None:
        return "here", where, published
    return "cached", where, _numbers(*map(len, images))


def _image_folder(name: str, root: Path) -> tuple[str, str, str, str]:
    try:
        source = find(name, root)
    except ConfigError:  # it is not known what it is to be used with
        return "", "", "", "here"
    state, _, counts = _state(source, root)
    return str(source.num_classes), counts, _shape(source), state


def _is_known(folder: str) -> bool:
    return any(source.files and folder in source.files.folders for source in DATASETS.values())


def _fetch(options: Namespace) -> int:
    root, _ = data_root(options.data_root)
    source = find(options.name, root)
    files = source.files
    if files is None:
        console.say(f"{source.name} comes with the installation.")
        return 0
    found = files.locate(root)
    if found is not None:
        console.say(f"{files.title} is in {found[0]} already.")
        return 0
    download = files.fetch or files.download
    found = files.obtain(root, download) if download else None
    if found is None:
        raise files.missing(root)
    train, test = files.read(root)
    console.say(f"{files.title} is in {found[0]}: {_numbers(len(train), len(test))} images.")
    return 0


def _verify(options: Namespace) -> int:
    root, _ = data_root(options.data_root)
    use(options.plugins)
    source = find(options.name, root, options.image_size, options.image_channels)
    damaged = False
    if source.files is None:
        train, test = source.read(root, Seeds(SettingsConfig().seed))
    else:
        (train, test), damaged = source.files.verify(root)
        # A user's function may by now return other classes.
        source = find(options.name, root, options.image_size, options.image_channels)
    console.say(f"{source.name}: {_shape(source)}")
    table = _table("class", "training", "test")
    counts = [torch.bincount(part.y, minlength=source.num_classes) for part in (train, test)]
    for name, *numbers in zip(
        source.class_names, *(count.tolist() for count in counts), strict=True
    ):
        table.add_row(name, *(f"{number:,}" for number in numbers))
    table.add_section()
    table.add_row("all", f"{len(train):,}", f"{len(test):,}")
    console.out.print(table)
    console.say(f"sha256 of the {'pixels' if train.dtype == torch.uint8 else 'samples'}")
    for name, part in (("training", train), ("test", test)):
        console.say(f"{name:9}{part.sha256()}")
    if damaged:
        own = options.name in OWN_DATASETS
        was = "not what the function returns now" if own else "damaged"
        console.say(f"The cache was {was}, and has been made anew.")
    _check(source, train, test, counts)
    console.say("All is as it should be.")
    return 0


def _check(source: Source, train: Images, test: Images, counts: list[torch.Tensor]) -> None:
    """Refuse a data set that is not the published one, or lacks a class."""
    for part, count in zip(("training", "test"), counts, strict=True):
        if (count == 0).any():
            name = source.class_names[int(count.argmin())]
            one = "image" if train.dtype == torch.uint8 else "sample"
            raise ConfigError(f"{source.name}: no {part} {one} is of class {name}.")
    if source.counts not in (None, (len(train), len(test))):
        raise ConfigError(f"{differs(source, (len(train), len(test)))}.")


def _where(options: Namespace) -> int:
    root, why = data_root(options.data_root)
    console.say(f"data folder  {root.absolute()}{'' if root.is_dir() else ' (not there)'}")
    console.say(f"why          {why}")
    for number, place in enumerate(cache_folders(root)):
        console.say(f"{'' if number else 'caches':12} {place.absolute()}")
    found = caches(root)
    if found:
        table = _table("cache", "MB")
        for folder, size in found:
            table.add_row(folder.name, f"{size / 1e6:,.1f}")
        table.add_section()
        table.add_row("all", f"{sum(size for _, size in found) / 1e6:,.1f}")
        console.out.print(table)
    return 0


def _preview(options: Namespace) -> int:
    from entity.cli.preview import preview

    console.out.print(preview(configured(options)))
    return 0


_RIGHT = ("classes", "images", "training", "test", "MB")


def _table(*headings: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        right = heading in _RIGHT
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    return table


def _shape(source: Source) -> str:
    return source.form


def _numbers(train: int, test: int) -> str:
    return f"{train:,}+{test:,}"
