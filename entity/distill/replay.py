"""Experience replay: images that the student has seen, with the teachers' answers."""

import torch
from torch import Tensor

from entity.devices import to_device


class Replay:
    """A ring of (image, logits) pairs.

    Images are kept in half precision, which in [-1, 1] is exact to 5e-4, a sixteenth of a grey
    level; the oldest make room once the capacity is reached.
    """

    def __init__(
        self, capacity: int, image: torch.Size, classes: int, device: torch.device
    ) -> None:
        self._x = torch.empty(capacity, *image, dtype=torch.float16, device=device)
        self._answers = torch.empty(capacity, classes, device=device)
        self._next = 0
        self._filled = 0

    def __len__(self) -> int:
        return self._filled

    def add(self, x: Tensor, answers: Tensor) -> None:
        """Append a batch; of one larger than the capacity, its end."""
        capacity = len(self._x)
        x, answers = x[-capacity:], answers[-capacity:]
        place = (self._next + torch.arange(len(x), device=x.device)) % capacity
        self._x[place] = x.half()
        self._answers[place] = answers
        self._next = (self._next + len(x)) % capacity
        self._filled = min(capacity, self._filled + len(x))

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw `count` pairs uniformly: images as float32 and their logits."""
        pick = torch.randint(self._filled, (count,), generator=generator)
        pick = to_device(pick, self._x.device)
        return self._x[pick].float(), self._answers[pick]
