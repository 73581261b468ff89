"""Standard output and error in any encoding, on any device."""

import codecs
import os
import sys
import unicodedata
from contextlib import suppress
from typing import Any

_NEAREST = {
    **dict.fromkeys("─━\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}", "-"),
    **dict.fromkeys("│┃", "|"),
    **dict.fromkeys("\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}", "'"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("▁▂▃", "_"),
    **dict.fromkeys("▄▅▆", "-"),
    **dict.fromkeys("▇█▓▒░", "#"),
    **{"≥": ">", "≤": "<", "±": "~", "\N{MULTIPLICATION SIGN}": "x", "·": ".", "…": "."},
}
"""A letter for a letter, so that what stood in columns still does."""
_HANDLER = "drop.nearest"


def _nearest(error: UnicodeError) -> tuple[str | bytes, int]:
    """Stand in for letters that an encoding has not: the nearest of ASCII, or a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    codes = [ord(letter) for letter in letters]
    if all(0xDC80 <= code <= 0xDCFF for code in codes):  # bytes of a file's name, as they were
        return bytes(code - 0xDC00 for code in codes), error.end
    return "".join(map(_ascii, letters)), error.end


def _ascii(letter: str) -> str:
    if letter in _NEAREST:
        return _NEAREST[letter]
    plain = unicodedata.normalize("NFKD", letter)[0]  # é is e with an accent
    return plain if plain.isascii() else "?"


codecs.register_error(_HANDLER, _nearest)


def take_any_letter() -> None:
    """Let both streams write what their encoding has no letter for in the nearest that it has."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)  # pyright: ignore[reportAttributeAccessIssue]


def give_up_output() -> None:
    """Drop what standard output did not take; Python would try again, and fail, at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError, AttributeError):
                _to_nowhere(stream)


def _to_nowhere(stream: Any) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
