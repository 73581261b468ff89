"""Where every random number comes from.

A generator is named by what it is for, the round and the client, and derived from the
experiment's seed alone. So a client draws the same numbers on any engine, in any order, and
after a resume; and adding a client or a purpose moves nobody else's stream.
"""

import hashlib
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

_WORDS, _BEFORE = 624, 24
"""Words of a Mersenne Twister's state, and bytes that torch writes before them."""


@dataclass(frozen=True)
class Seeds:
    """The source of all generators of one experiment.

    Examples
    --------
    >>> seeds = Seeds(71)
    >>> a = torch.rand(2, generator=seeds.generator("fit", round=3, client=7))
    >>> b = torch.rand(2, generator=seeds.generator("fit", round=3, client=7))
    >>> bool((a == b).all())
    True
    """

    seed: int
    """The experiment's seed."""
    secret: bytes = field(default=b"", repr=False)
    """Of a server of real nodes, who know the seed: 64 bytes at most (`server_secret`)."""

    def number(self, purpose: str, *, round: int = 0, client: int | str = 0) -> int:
        """Return the 63-bit seed of one named stream.

        Parameters
        ----------
        purpose
            What the numbers are for, such as `fit`.
        round
            The round; 0 is before the first.
        client
            The client's id; 0 where it makes no difference.
        """
        return int.from_bytes(self._digest(purpose, round, client, 8), "big") >> 1

    def generator(self, purpose: str, *, round: int = 0, client: int | str = 0) -> torch.Generator:
        """Return a fresh CPU generator of torch for one named stream; parameters as of `number`.

        Torch's own seeds have 32 bits, which who sees some of a stream can try one by one. With a
        secret the whole state of its Mersenne Twister is drawn; without one there is nothing to
        hide, and two streams in four thousand million are the same.
        """
        generator = torch.Generator().manual_seed(self.number(purpose, round=round, client=client))
        return (
            generator.set_state(self._state(purpose, round, client)) if self.secret else generator
        )

    def _digest(self, purpose: str, round: int, client: int | str, size: int) -> bytes:
        name = f"{self.seed}/{purpose}/{round}/{client}".encode()
        return hashlib.blake2b(name, digest_size=size, key=self.secret).digest()

    def _state(self, purpose: str, round: int, client: int | str) -> Tensor:
        """Return a state of torch's CPU generator whose 624 words are of one named stream."""
        key = self._digest(purpose, round, client, 64)
        drawn = np.frombuffer(hashlib.shake_256(key).digest(4 * _WORDS), np.uint32)
        state = torch.Generator().manual_seed(0).get_state()  # one that draws its next words first
        words = state[_BEFORE : _BEFORE + 8 * _WORDS].view(torch.int64)
        words.copy_(torch.from_numpy(drawn.astype(np.int64)))
        return state

    def numpy(self, purpose: str, *, round: int = 0, client: int | str = 0) -> np.random.Generator:
        """Return a fresh generator of NumPy for one named stream; parameters as of `number`."""
        return np.random.default_rng(self.number(purpose, round=round, client=client))


def own_stream(owner: object, generator: torch.Generator) -> AbstractContextManager[None]:
    """Let code of the user's own draw from torch's global stream, as `global_stream` does.

    Parameters
    ----------
    owner
        The object, or the class, whose code it is. The project's own draws nothing there.
    generator
        What it draws from.
    """
    kind = owner if isinstance(owner, type) else type(owner)
    return nullcontext() if is_ours(kind) else global_stream(generator)


def is_ours(kind: type) -> bool:
    """Whether a class is the project's, and no plugin's."""
    return kind.__module__.partition(".")[0] == __name__.partition(".")[0]


@contextmanager
def global_stream(generator: torch.Generator) -> Generator[None]:
    """Let code that can only draw from torch's global stream draw from `generator` instead.

    Module constructors and dropout take no generator. Inside this block they are seeded from
    `generator`; on leaving, the global stream is put back as it was found.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    # Without a card, to ask for all of them would look for a driver each time.
    with torch.random.fork_rng(None if torch.cuda.is_available() else []):
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)
        if not torch.backends.mps.is_available():
            yield
            return
        before = torch.mps.get_rng_state()
        torch.mps.manual_seed(seed)
        try:
            yield
        finally:
            torch.mps.set_rng_state(before)
