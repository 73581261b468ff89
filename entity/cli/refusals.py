"""Errors of the library in the words of the command line."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from entity.config.schema import ConfigError
from entity.record.atomic import CannotWrite
from entity.record.directory import NoRun, RunExists


@contextmanager
def given_by(option: str, *kinds: type[ConfigError]) -> Generator[None]:
    """Put the option before the sentence about its value, as in `--out x: cannot be written`.

    Parameters
    ----------
    option
        The option as it was given, such as `--out`.
    kinds
        Errors that are about its value; without any, all ConfigErrors are.

    Raises
    ------
    ConfigError
        With the option named.
    """
    about = kinds or (ConfigError,)
    try:
        yield
    except about as error:
        raise ConfigError(f"{option} {error}") from error


@contextmanager
def run_folder(folder: Path, option: str = "--out") -> Generator[None]:
    """Name the option that gave the folder of a run, and those that help if it holds one.

    Parameters
    ----------
    folder
        The run directory.
    option
        `--out` or `--resume`.

    Raises
    ------
    ConfigError
        With the options named.
    """
    try:
        with given_by(option, CannotWrite, NoRun):
            yield
    except RunExists as error:
        raise ConfigError(
            f"{option} {folder}: already holds a run; choose another folder, go on with it by "
            f"--resume {folder}, or add --overwrite."
        ) from error
