"""The fields of an experiment, and the strict reading of them."""

from typing import TYPE_CHECKING

from entity.moved import names_of

if not TYPE_CHECKING:
    __getattr__ = names_of(__name__)
