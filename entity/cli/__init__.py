"""The command line `drop`: one file a command."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (`entity.cli.app.main`).

    What it needs takes seconds to import, in which Ctrl-C stops it in one sentence, too.
    """
    try:
        from entity.cli import app
    except KeyboardInterrupt:
        sys.stderr.write("drop: stopped before anything was begun.\n")
        return 130
    return app.main(argv)
