"""Reading what another process writes, or has written: rounds as they come, the last line."""

from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from entity.reading import MOST_BYTES, TooLarge, open_regular, parse_json


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
        self.line = b""
        """The last of them: the line that ends there."""
        self.round = 0
        """Number of the last round."""
        self.damage = ""
        """What cannot be read, where that is not only a line that is not finished yet."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rounds that were written since the last call.

        A resumed run may cut off rounds and write them again; each is still yielded once.
        """
        try:
            with open_regular(self.path) as file:
                file.seek(self.offset - len(self.line))
                if file.read(len(self.line)) != self.line:  # cut off, and perhaps written again
                    self.offset, self.line = file.seek(0), b""
                self.damage = ""
                yield from self._rounds_in(file)
        except FileNotFoundError:
            return
        except OSError as error:
            self.damage = f"{self.path.name} cannot be read ({error.strerror})"

    def _rounds_in(self, file: BufferedReader) -> Iterator[dict[str, Any]]:
        """Yield the rounds that an open file has from here on."""
        while line := file.readline(MOST_BYTES + 1):
            if len(line) > MOST_BYTES:
                raise TooLarge(self.path, MOST_BYTES)
            values: Any = None
            number: Any = None
            with suppress(ValueError, LookupError, TypeError):
                values = parse_json(line)
                number = values["round"]
            if not line.endswith(b"\n"):
                return
            if not isinstance(number, int):
                self.damage = f"{self.path.name} is damaged after round {self.round}"
                return
            self.offset, self.line = self.offset + len(line), line
            if number > self.round:
                self.round = number
                yield values


def ending(path: Path, most: int = 1 << 16) -> str:
    """Return what is at the end of a text file, in at most so many bytes; "" without a file."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, file.seek(0, 2) - most))
            return file.read(most).decode("utf-8", errors="replace")
    except OSError:
        return ""


def last_line(path: Path) -> str:
    """Return the last line of a text file that is not empty; "" if there is none, or no file."""
    lines = reversed(ending(path).split("\n"))
    return next((line.strip() for line in lines if line.strip()), "")
