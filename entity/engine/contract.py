"""Where local training happens, as the experiment sees it."""

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from torch import Tensor

from entity.client import Broadcast
from entity.layout import ModelState
from entity.updates import Updates

Accept = Callable[[int, ModelState], None]
"""Takes the model of a row of the round; it is overwritten as soon as this returns."""


class Engine(Protocol):
    """Trains the selected clients of a round.

    Every engine trains a client with one thread, the same memory format and the same optimiser,
    from the client's own random streams: their updates are identical to the bit.
    """

    memory: dict[int, dict[str, Tensor]]
    """What clients keep from round to round, by id, for those that keep anything.

    It is also the last checkpoint's: entries are replaced, never changed.
    """

    def train(self, broadcast: Broadcast, client_ids: tuple[int, ...]) -> Updates:
        """Return the clients' updates, in the order of `client_ids`.

        The matrix belongs to the engine and is overwritten in the next round.
        """
        ...

    def stream(self, broadcast: Broadcast, client_ids: tuple[int, ...], accept: Accept) -> None:
        """Hand on the clients' models as they come, in the order of `client_ids`, and keep none.

        For `settings.streaming`, which also tells the engine to hold no matrix of the round.
        """
        ...

    def __enter__(self) -> Self:
        """Return the engine."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop what the engine started."""
        ...
