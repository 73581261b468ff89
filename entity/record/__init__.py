"""The run directory: its writer, its lock, its checkpoints, and readers that tolerate damage."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from entity.moved import names_of

if find_spec("fcntl") is None:
    raise ImportError(
        "Runs are locked by fcntl, which Windows has not: use Linux, macOS, or WSL 2 on Windows."
    )

if not TYPE_CHECKING:
    __getattr__ = names_of(__name__)
