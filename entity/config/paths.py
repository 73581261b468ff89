"""Paths that a user gives, in a file, on the command line or in a program."""

from pathlib import Path


def user_path(path: str | Path) -> Path:
    """Return a path with `~` as the user's home, which a shell leaves as it is in `--out=~/runs`.

    A `~name` of nobody stays as it is.

    Examples
    --------
    >>> user_path("~/runs") == Path.home() / "runs", user_path("a/~").as_posix()
    (True, 'a/~')
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
