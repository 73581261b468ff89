"""Paths that a user gives, in a file, on the command line or in a program."""

from pathlib import Path

from entity.config.schema import ConfigError


def user_path(path: str | Path) -> Path:
    """Return a path with `~` as the user's home, which a shell leaves as it is in `--out=~/runs`.

    A `~name` of nobody stays as it is.

    Raises
    ------
    ConfigError
        If it is no path.

    Examples
    --------
    >>> user_path("~/runs") == Path.home() / "runs", user_path("a/~").as_posix()
    (True, 'a/~')
    """
    try:
        given = Path(path)
    except TypeError:
        text = f"{path!r}: is no path; allowed is text, or a pathlib.Path."
        raise ConfigError(text) from None
    try:
        return given.expanduser()
    except RuntimeError:
        return given
