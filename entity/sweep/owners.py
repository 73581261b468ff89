"""One owner a cell: sweeps that share a folder, on one machine or on several, divide its cells.

A cell is owned while its lock in `.owners/` is held. The lock is the kernel's, so that it ends with
the process that holds it, however that ends; over a network file system it holds as far as that
one's locks do, and where there are none a line in the log says so.
"""

from contextlib import ExitStack
from pathlib import Path

from entity.record.lock import InUse, is_locked, locked, owner_of
from entity.sweep.cells import Cell

FOLDER = ".owners"


class Owners:
    """The cells that this sweep owns."""

    def __init__(self) -> None:
        self._held: dict[str, ExitStack] = {}
        self.orphans: set[str] = set()
        """Identities of cells that nobody owned when asked, but at whose run a process was at work:
        a single run, or the worker of a sweep that was killed, which has a moment left."""

    def take(self, cell: Cell) -> str:
        """Become the owner of a cell; return who has it, an empty text if it is ours now.

        Raises
        ------
        ConfigError
            If the folder of the sweep cannot be written.
        """
        self.orphans.discard(cell.identity)
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(_place(cell)))
            except InUse as error:
                return error.owner
            if is_locked(cell.folder):
                self.orphans.add(cell.identity)
                return owner_of(cell.folder)
            self._held[cell.identity] = stack.pop_all()
        return ""

    def release(self, cell: Cell) -> None:
        """Give a cell back, if it is ours."""
        if cell.identity in self._held:
            self._held.pop(cell.identity).close()

    def close(self) -> None:
        """Give all back."""
        while self._held:
            self._held.popitem()[1].close()


def _place(cell: Cell) -> Path:
    return cell.out / FOLDER / cell.identity


__all__ = ["Owners"]
