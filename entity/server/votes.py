"""Clients who vote on one another's models: what a defense hands out, and what comes back.

A defense that asks for votes (`Needs.client_votes`) brings the voter's side as a function of a
client's own data. Whoever runs the federation lets every voter run it, and hands back the ballots.
So the defense never sees a client's data, nor who of the voters lies.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from entity.config.schema import ConfigError
from entity.updates import Updates

Vote = Callable[[Tensor, Tensor, int], Tensor]
"""A voter's side of a defense.

Its samples (S, ...), images in [-1, 1], their labels (S,), and its own row in the round, to whom it
takes for benign: (n,) bool.
"""


class Electorate(Protocol):
    """The clients of a federation as voters."""

    def ballots(self, updates: Updates, voters: Sequence[int], vote: Vote) -> Tensor:
        """Return what some clients of a round answer: (v, n) bool, true for benign.

        Honest clients answer what `vote` returns on their training data, malicious ones what they
        like.

        Parameters
        ----------
        updates
            The round, whose n models every voter is sent.
        voters
            The rows of the v clients that are asked.
        vote
            What an honest one does.
        """
        ...


def no_voters(name: str) -> ConfigError:
    """Return the refusal of a defense that asks for votes where clients only train.

    Parameters
    ----------
    name
        The field and its value.
    """
    return ConfigError(
        f"{name}: needs clients that vote on one another's models, and Flower's nodes are asked "
        "to train only; use another defense, or run this one in the simulator."
    )
