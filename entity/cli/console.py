"""The two streams that the commands write to; a test can put others in their place."""

from typing import Any

from rich.console import Console


def plain(**how: Any) -> Console:
    """Make a console that prints texts as they are: a path may hold :x: and [b], as names may."""
    return Console(emoji=False, markup=False, **how)


out = plain()
"""Standard output: what a command was asked for."""

err = plain(stderr=True)
"""Standard error: progress, and why something is not done."""


def say(line: str) -> None:
    """Print a line as it is: no markup, no colours, and folded by the terminal alone."""
    _print(out, line)


def paragraph(text: str) -> None:
    """Print a text folded at its words."""
    out.print(text, markup=False, emoji=False, highlight=False)


def note(line: str) -> None:
    """Print a line as it is to standard error."""
    _print(err, line)


def warn(line: str, style: str = "") -> None:
    """Print a line to standard error, with the name of the program before it."""
    _print(err, f"drop: {line}", style)


def _print(console: Console, line: str, style: str = "") -> None:
    console.print(line, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)
