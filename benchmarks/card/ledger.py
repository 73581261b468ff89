"""What was found, a line of JSON for each finding, on disk as soon as it is known."""

import json
import os
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Ledger:
    """A file of findings that every call adds to.

    Parameters
    ----------
    path
        The file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, part: str, **found: Any) -> Line:
        """Write a finding of a part and return its line."""
        line: Line = {"part": part, **found}
        before = self.path.read_bytes() if self.path.exists() else b""
        with self.path.open("a") as file:
            if before and not before.endswith(b"\n"):  # a call was killed while it wrote
                file.write("\n")
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return line

    def lines(self, part: str | None = None) -> list[Line]:
        """Return the findings, of one part or of all; a line that is cut off is passed over."""
        found: list[Line] = []
        if not self.path.exists():
            return found
        for text in self.path.read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if part in (None, line["part"]):
                found.append(line)
        return found
