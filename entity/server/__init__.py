"""The server around a defense: its contract, and what several defenses share.

The defenses themselves are in `defenses/`.
"""

from typing import TYPE_CHECKING

from entity.moved import names_of
from entity.server.averaging import Averaging
from entity.server.contract import CleanData, Needs, Resources, Server, Setting
from entity.server.gate import admit
from entity.server.optimiser import OptimiserArgs
from entity.server.streaming import Stream, StreamingServer

__all__ = [
    "Averaging",
    "CleanData",
    "Needs",
    "OptimiserArgs",
    "Resources",
    "Server",
    "Setting",
    "Stream",
    "StreamingServer",
    "admit",
]

if not TYPE_CHECKING:
    __getattr__ = names_of(__name__)
