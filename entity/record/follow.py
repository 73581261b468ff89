"""Reading what another process writes, or has written: rounds as they come, the last line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Tail:
    """The rounds of a run directory, each once, as soon as its line is complete.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> tail = Tail(folder)
    >>> written = (folder / "rounds.jsonl").write_text('{"round": 1}' + chr(10) + '{"rou')
    >>> list(tail), list(tail)
    ([{'round': 1}], [])
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "rounds.jsonl"
        self.offset = 0
        """Bytes that have been read."""
        self.round = 0
        """Number of the last round."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rounds that were written since the last call.

        A resumed run may cut off rounds and write them again; each is still yielded once.
        """
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self.offset:
                    self.offset = 0
                file.seek(self.offset)
                content = file.read()
        except OSError:
            return
        for line in content.splitlines(keepends=True):
            try:
                values = json.loads(line)
                number = values["round"]
            except (ValueError, LookupError, TypeError, RecursionError):
                return
            if not isinstance(number, int) or not line.endswith(b"\n"):
                return
            self.offset += len(line)
            if number > self.round:
                self.round = number
                yield values


def last_line(path: Path) -> str:
    """Return the last line of a text file that is not empty; "" if there is none, or no file."""
    try:
        lines = path.read_text("utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
