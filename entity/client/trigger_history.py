"""Which triggers a FLIP client has found, how they grew, and which pair of classes comes next.

Zhang et al., "FLIP: A Provable Defense Framework for Backdoor Mitigation in Federated Learning",
ICLR 2023, arXiv 2210.12873; where we leave the authors' code is listed in `entity.client.flip`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from entity.client.trigger_inversion import Triggers

ANY = -1
"""The source of a universal trigger."""
_LOWERED = 0.1
"""By how much a growth falls at least. A share of its size would take it to -inf in a long run."""

Side = tuple[int, int]
"""(source, target)."""


def choose_pair(
    growth: Tensor, present: list[int], previous: int, chance: float, generator: torch.Generator
) -> Side | None:
    """Choose the pair of classes that a batch is hardened against.

    Parameters
    ----------
    growth
        (K, K) growth of the trigger from source (row) to target, -inf where there is none.
    present
        Classes that the batch holds enough of.
    previous
        Source of the last pair; not taken again by growth.
    chance
        Of a random pair.

    Returns
    -------
    (source, target) or None
        None if there is nothing to choose from.

    Examples
    --------
    >>> growth = torch.tensor([[-torch.inf, 0.9, 0.1], [0.2, -torch.inf, 0.3], [0, 0, -torch.inf]])
    >>> choose_pair(growth, [0, 1], previous=0, chance=0, generator=torch.Generator())
    (1, 2)
    """
    classes = len(growth)
    if not present or classes < 2:
        return None
    if torch.rand((), generator=generator) < chance:
        source = present[int(torch.randint(len(present), (), generator=generator))]
        target = int(torch.randint(classes - 1, (), generator=generator))
        return source, target + (target >= source)
    sources = [source for source in present if source != previous]
    if not sources or growth[sources].max() == -torch.inf:
        return None
    row, target = divmod(int(growth[sources].argmax()), classes)
    return sources[row], target


def grown(growth: float, old: float, new: float) -> float:
    """Return how fast the trigger of a pair of classes grows; 0 for its first size.

    Parameters
    ----------
    growth
        So far: the mean of the last relative changes, newer ones counting more.
    old, new
        Sizes (L1 norm of the mask) before and now; 0 for none.

    Examples
    --------
    >>> grown(0.5, old=20.0, new=30.0)
    0.5
    """
    return (growth + (new - old) / old) / 2 if old > 0 else 0.0


def lowered(growth: float) -> float:
    """Return the growth of a pair without a usable trigger: half of it, and at least 0.1 less.

    Half of a negative growth would be more than it was.

    Examples
    --------
    >>> lowered(1.0), lowered(-0.5)
    (0.5, -0.6)
    """
    return growth - max(growth / 2, _LOWERED)


@dataclass
class TriggerHistory:
    """The triggers of a client, from round to round."""

    sizes: Tensor
    """(K, K) pixels of the last trigger from source (row) to target; 0 before the first."""
    growth: Tensor
    """(K, K) its growth, the last changes the most; -inf where there is no pair."""
    triggers: dict[Side, Triggers]
    """The last triggers found, those of the warm-up under the source `ANY`."""
    warmed: int = 0
    """Targets that the warm-up has been through."""

    @classmethod
    def blank(cls, classes: int) -> "TriggerHistory":
        """Return the history of a client that has not begun."""
        return cls(torch.zeros(classes, classes), torch.full((classes, classes), -math.inf), {})

    def __len__(self) -> int:
        return len(self.sizes)

    def finish_warm_up(self) -> None:
        """Rank the pairs by their universal triggers' sizes, the largest 1."""
        self.growth = self.sizes / self.sizes.max().clamp_min(1e-6)
        self.growth.fill_diagonal_(-math.inf)

    def known(self, side: Side) -> Triggers | None:
        """Return the trigger that an inversion of this pair starts from, if there is any."""
        return self.triggers.get(side) or self.triggers.get((ANY, side[1]))

    def add(self, side: Side, new: Triggers | None) -> None:
        """Add a pair's new trigger; None is one that cannot be used."""
        old, growth = float(self.sizes[side]), float(self.growth[side])
        if new is None:
            self.growth[side] = lowered(growth)
            return
        size = float(new.sizes)
        self.growth[side] = grown(growth, old, size)
        self.sizes[side] = size
        self.triggers[side] = new

    def add_universal(self, target: int, new: Triggers | None) -> None:
        """Add the warm-up's trigger from every class to a target; None is one of no use.

        After the last target the pairs are ranked.
        """
        self.warmed += 1
        if new is not None:
            self.triggers[ANY, target] = new
            self.sizes[:, target] = new.sizes
            self.sizes[target, target] = 0
        if self.warmed == len(self):
            self.finish_warm_up()

    def state_dict(self) -> dict[str, Tensor]:
        """Return sizes, growth and triggers, under the names that the authors' code has."""
        state = {
            "mat_warm": self.sizes,
            "mat_diff": self.growth,
            "warmed": torch.tensor(self.warmed),
        }
        if self.triggers:
            joined = Triggers.join(list(self.triggers.values()))
            state["pairs"] = torch.tensor(list(self.triggers))
            state["masks"], state["patterns"] = joined.mask, joined.pattern
        return state

    @classmethod
    def of(cls, state: dict[str, Tensor]) -> "TriggerHistory":
        """Return the history that `state_dict` was taken of; it shares no size and no growth."""
        triggers: dict[Side, Triggers] = {}
        if "pairs" in state:
            joined = Triggers(state["masks"], state["patterns"])
            for i, (source, target) in enumerate(state["pairs"].tolist()):
                triggers[source, target] = joined[i]
        return cls(
            state["mat_warm"].clone(), state["mat_diff"].clone(), triggers, int(state["warmed"])
        )
