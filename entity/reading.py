"""Reading what others wrote, within bounds: regular files of a size, JSON of a depth.

Folders of runs and of data are shared, edited and damaged. A pipe among the files would stop the
reader for ever, a lie in a header would fill the memory, and JSON nested deeply enough ends every
function that recurses. Whoever reads a file that a user can change opens it here.
"""

import errno
import json
import os
import stat
from collections.abc import Callable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

MOST_BYTES = 1 << 28
"""Size of a file, or of a line of one, that is read into memory whole."""
MOST_LEVELS = 100
"""Objects and lists within one another that JSON may have."""
MOST_DIGITS = 308
"""Digits of a whole number in JSON; a longer one is larger than any float."""
PRINTABLE_DIGITS = 4_000
"""Digits of a whole number that is shown in a refusal, or kept exactly: Python prints 4,300."""


class TooDeep(ValueError):
    """Tables and lists lie in one another at too many levels."""

    def __init__(self) -> None:
        super().__init__("it is nested too deeply")


class NotRegular(OSError):
    """A pipe, a device or a socket is where a file should be."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "Not a regular file", str(path))


class TooLarge(OSError):
    """A file is larger than its reader takes; more is damage or malice."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(errno.EFBIG, f"More than {most:,} bytes", str(path))


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes; opening anything else never waits.

    Raises
    ------
    NotRegular
        If it is something else.
    OSError
        If it is a folder, or cannot be opened.
    """
    # A pipe without a writer keeps whoever opens it waiting, unless he says that he does not wait.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise NotRegular(path)


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a regular file of at most so many bytes.

    Raises
    ------
    NotRegular, TooLarge
        If it is none.
    OSError
        If it cannot be read.
    """
    with open_regular(path) as file:
        return at_most(file, most, path)


def at_most(file: Any, most: int, path: Path) -> bytes:
    """Read what is left of an open file, plain or unpacked while it is read.

    Parameters
    ----------
    file
        Anything with `read(size)`.
    most
        Bytes that there may be.
    path
        Names the file in the error.

    Raises
    ------
    TooLarge
        If there are more.
    """
    content: bytes = file.read(most + 1)
    if len(content) > most:
        raise TooLarge(path, most)
    return content


def parse_json(
    text: str | bytes,
    *,
    most_digits: int = MOST_DIGITS,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Parse JSON that any function here can walk and any number type can hold.

    Parameters
    ----------
    text
        The JSON.
    most_digits
        Digits that a whole number may have.
    pairs
        Makes an object of its keys and values; None makes a dict.

    Raises
    ------
    TooDeep
        If it is nested too deeply.
    ValueError
        If it is no JSON, or holds half a character or a whole number of too many digits.

    Examples
    --------
    >>> parse_json("[1, {}]")
    [1, {}]
    >>> parse_json("[" * 500 + "]" * 500)
    Traceback (most recent call last):
    entity.reading.TooDeep: it is nested too deeply
    """

    def whole(digits: str) -> int:
        count = len(digits.removeprefix("-"))
        if count > most_digits:
            raise ValueError(f"a whole number has {count:,} digits")
        return int(digits)

    try:
        value = json.loads(text, parse_int=whole, object_pairs_hook=pairs)
    except RecursionError:
        raise TooDeep from None
    if deeper_than(value, MOST_LEVELS):
        raise TooDeep
    _refuse_halves(text, value)
    return value


def _refuse_halves(text: str | bytes, value: Any) -> None:
    """Refuse half a character (a lone surrogate), which no file and no terminal takes."""
    if (b"\\u" if isinstance(text, bytes) else "\\u") in text:  # pyright: ignore[reportOperatorIssue]
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a character") from None


def deeper_than(value: object, most: int) -> bool:
    """Say whether tables and lists lie in one another at more levels; endless ones do."""
    level = [value] if isinstance(value, Mapping | list | tuple) else []
    for _ in range(most):
        if not level:
            return False
        items = [item.values() if isinstance(item, Mapping) else item for item in level]
        inner = [
            cast("Mapping[Any, Any] | list[Any] | tuple[Any, ...]", child)
            for item in items
            for child in item
            if isinstance(child, Mapping | list | tuple)
        ]
        level = list({id(child): child for child in inner}.values())  # each shared one once
    return bool(level)
