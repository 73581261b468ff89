"""What the cells of a grid start from: configurations, and the grid's own base."""

from collections.abc import Mapping
from typing import Any

from entity.config.schema import ConfigError
from entity.config.shipped import find_config
from entity.setup import resolve
from entity.setup.read import extended
from entity.sweep.grid import CONFIG, Grid


class Bases:
    """The bases that cells start from, each read once.

    Parameters
    ----------
    grid
        Its file is where configurations are looked for first.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._read: dict[str | None, dict[str, Any]] = {}

    def __getitem__(self, name: str | None) -> Mapping[str, Any]:
        """Return the tables of a configuration, or of the grid's own base for None.

        Raises
        ------
        ConfigError
            If there is none of that name, or the grid has no base.
        """
        if name not in self._read:
            self._read[name] = self._tables(name)
        return self._read[name]

    def _tables(self, name: str | None) -> dict[str, Any]:
        base = self.grid.base if name is None else name
        if base is None:
            raise ConfigError("base is missing: give one, or an axis that chooses the config.")
        if isinstance(base, Mapping):
            return extended(base, self.grid.path, "base")
        return resolve.read(find_config(base, self.grid.path.parent), CONFIG)
