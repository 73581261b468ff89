"""Clients: the benign one, the basis of malicious ones, and those of client-side defenses.

The attacks themselves are in `attacks/`, the data poisons in `poisons/`.
"""

from typing import TYPE_CHECKING

from entity.client.attacker import Attacker
from entity.client.client import Broadcast, Client, TrainingContext
from entity.client.data import LocalData
from entity.client.flip import FlipClient
from entity.moved import names_of

__all__ = [
    "CLIENTS_OF_DEFENSES",
    "Attacker",
    "Broadcast",
    "Client",
    "LocalData",
    "TrainingContext",
]

CLIENTS_OF_DEFENSES: dict[str, type[Client]] = {"flip": FlipClient}
"""Benign clients of defenses that act on the clients' side, by the name of the defense."""

if not TYPE_CHECKING:
    __getattr__ = names_of(__name__)
