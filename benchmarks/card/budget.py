"""A budget of seconds, of which every part has a share; what runs over is cut off."""

import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


class TimeUp(BaseException):
    """A part's time is over. No `Exception`, so that nothing on its way takes it for a failure."""


class Budget:
    """The seconds of one call.

    Parameters
    ----------
    seconds
        From now.
    clock
        Says what time it is.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._ends = [self._end]

    @property
    def left(self) -> float:
        """Seconds left to whatever runs now."""
        return self._ends[-1] - self._clock()

    @contextmanager
    def share(self, seconds: float) -> Generator[None]:
        """Give a block so many seconds, or what is left of those around it.

        Raises
        ------
        TimeUp
            Inside the block, when they are over; it ends the block, and nothing around it, unless
            the time around it is over, too. Blocks may be nested, in the main thread.
        """
        self._ends.append(min(self._clock() + seconds, self._ends[-1]))
        before = signal.signal(signal.SIGALRM, _cut_off)
        try:
            self._set_alarm()
            yield
        except TimeUp:
            if self._clock() >= self._ends[-2]:
                raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self._ends.pop()
            if len(self._ends) > 1:
                self._set_alarm()

    def _set_alarm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, max(1e-3, self._ends[-1] - self._clock()))


def _cut_off(signal: int, frame: FrameType | None) -> None:
    raise TimeUp
