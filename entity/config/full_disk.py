"""A disk that is full, or a file that may not grow: nobody's setting is wrong then."""

import errno
import os

from entity.config.schema import CannotGoOn

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)


class DiskFull(CannotGoOn):
    """A file cannot be written though its place is right; the sentence begins with its path."""

    def __init__(self, path: object, reason: object) -> None:
        super().__init__(f"{path}: cannot be written ({reason}).")


def is_full(error: BaseException) -> bool:
    """Whether an error says so; libraries in other languages say it in their text alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(os.strerror(number) in str(error) for number in _FULL)


def reason(error: BaseException) -> str:
    """Return what an error says, on one line.

    Examples
    --------
    >>> reason(OSError(28, "No space left on device", "runs/x"))
    'No space left on device'
    """
    said = error.strerror if isinstance(error, OSError) else None
    return said or " ".join(str(error).split()) or type(error).__name__
