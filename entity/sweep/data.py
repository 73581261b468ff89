"""The data of a sweep, looked for once, before the first of its runs."""

from collections.abc import Sequence
from pathlib import Path

from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.dataset.files import Files
from entity.dataset.registry import source_of
from entity.seeding import Seeds
from entity.setup.assembly import split_data
from entity.sweep.cells import Cell


def missing(cells: Sequence[Cell]) -> list[tuple[Files, Path]]:
    """Return what of the data of some cells is not in its data folder, each data set once.

    Raises
    ------
    ConfigError
        If a folder of images is not as it must be.
    """
    configs = {
        (cell.config.dataset, cell.config.settings.datasets_path): cell.config for cell in cells
    }
    every = [
        (source_of(config).files, user_path(config.settings.datasets_path))
        for config in configs.values()
    ]
    return [
        (files, root) for files, root in every if files is not None and files.locate(root) is None
    ]


def provide(cells: Sequence[Cell]) -> None:
    """Download what is missing of the data of some cells, each data set once.

    Raises
    ------
    DiskFull
        If the disk is full.
    ConfigError
        If it cannot be downloaded.
    """
    for files, root in missing(cells):
        if files.download is None or files.obtain(root, files.download) is None:
            raise files.missing(root)


def forecast(cells: Sequence[Cell]) -> list[str]:
    """Say what of the data is missing, and whether a run would download it."""
    try:
        lacking = missing(cells)
    except ConfigError as error:
        return [str(error)]
    return [
        str(files.missing(root))
        if files.download is None
        else f"{files.title} is not in {root / files.folders[0]}: it will be downloaded first."
        for files, root in lacking
    ]


def refuse_changed(cells: Sequence[Cell]) -> None:
    """Refuse finished runs whose data are others by now: they would stand beside runs on these.

    Of a run that did not record its data, and of data that are not here, nothing is known.

    Raises
    ------
    ConfigError
        If a cell's data are not what its finished run was trained and judged on.
    """
    known = dict[tuple[object, ...], str | None]()
    for cell in cells:
        if cell.done is None or not cell.done.finished:
            continue  # resuming a run compares them
        config, before = cell.config, cell.done.data
        root, seed = config.settings.datasets_path, config.settings.seed
        which = config.dataset, root, seed, config.server.held_out
        if before and which not in known:
            known[which] = _digest(cell)
        if before and known[which] not in (before, None):
            raise ConfigError(
                f"{cell.done.path}: was trained on other data than settings.datasets_path = "
                f"{root} now holds of {config.dataset}; put the old data back, choose another "
                "folder, or remove the run."
            )


def _digest(cell: Cell) -> str | None:
    try:
        return split_data(cell.config, Seeds(cell.config.settings.seed)).digest()
    except ConfigError:  # whoever needs them says what is missing
        return None
