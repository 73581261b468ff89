"""The run directory: its writer, its checkpoints, and safe reading of what others wrote."""

from typing import TYPE_CHECKING

from entity.moved import names_of

if not TYPE_CHECKING:
    __getattr__ = names_of(__name__)
