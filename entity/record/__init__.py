"""The run directory: its writer, its lock, its checkpoints, and readers that tolerate damage."""

from typing import TYPE_CHECKING

from entity.moved import names_of

if not TYPE_CHECKING:
    __getattr__ = names_of(__name__)
