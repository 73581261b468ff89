"""Who is in a coalition: two groups of clients are looked for until nothing is found any more.

In the part of the updates that clean images do not show, and in the other one, those who push
together are told from the rest (`coalition.py`), and which of the two groups is the coalition is
judged (`judge.py`). Of its members those are left out who are clearly more like it than like the
others. One coalition may be the bait for another. So who is left when it is taken out is looked at
again, in both parts. But who differs because others are left out is no coalition: after each one
that is found, two groups must be further apart.
"""

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from entity.server.coalition import Coalition
from entity.server.judge import Judge
from entity.server.sketches import Described
from entity.updates import ClientId

REASONS = {
    "hidden": "pushes with others where no clean image looks",
    "shown": "pushes with others, all more alike than the rest",
}
"""Why who is found in a part of the updates is left out."""


def searching(
    contrast: float | None,
    effect: float | None,
    patience: int,
    memory: float,
    clearly: float,
    amounts: bool,
) -> "CoalitionSearch":
    """Return a search in both parts of the updates.

    Parameters
    ----------
    contrast
        In the part that clean images do not show, from which on a group is a coalition, without an
        effect size; None looks nowhere.
    effect
        Effect size from which on a group is one, in either part, if it has half of that contrast;
        None looks at the part that clean images do not show alone, and at its contrast.
    patience, memory
        As of `Coalition`; `patience` rounds are judged together.
    clearly
        As of `Judge`.
    amounts
        As of `CoalitionSearch`.
    """
    judge = Judge(patience, clearly)
    if contrast is None:
        return CoalitionSearch({}, judge, amounts)
    if effect is None:
        parts = {"hidden": Coalition(contrast, patience, memory)}
    else:
        parts = {part: Coalition(inf, patience, memory, contrast / 2, effect) for part in REASONS}
    return CoalitionSearch(parts, judge, amounts)


class CoalitionSearch:
    """What is remembered of all clients, and the search among them.

    Parameters
    ----------
    parts
        What is remembered of each part of `Described`, in the order in which they are searched.
    judge
        Says which of two groups it is.
    amounts
        Whether what amounts of data account for is taken out of what clients have in common.
    """

    def __init__(self, parts: Mapping[str, Coalition], judge: Judge, amounts: bool) -> None:
        self.parts, self.judge, self.amounts = parts, judge, amounts

    def look(
        self, clients: Sequence[ClientId], described: Described, samples: Tensor
    ) -> tuple[dict[ClientId, str], dict[str, float]]:
        """Add a round.

        Parameters
        ----------
        clients
            Who came.
        described
            What their updates are like.
        samples
            (n,) how much data each has.

        Returns
        -------
        tuple
            Why each client of a coalition is left out, whether it came or not; and contrast and
            effect of the first two groups in each part.
        """
        numbers = dict[str, float]()
        if not self.amounts:
            samples = torch.ones_like(samples)
        self.judge.observe(clients, described)
        known = frozenset[ClientId]().union(*self.judge.found)
        for part, history in self.parts.items():
            history.observe(clients, getattr(described, part), samples, known)
            groups = history.groups()
            measured = {"contrast": groups.contrast, "effect": groups.effect}
            numbers |= {f"{part}_{name}": x for name, x in measured.items() if isfinite(x)}
        found, times = dict[ClientId, str](), 1
        while more := self._next(found, times):
            found, times = found | more, times + 1
        return found, numbers

    def _next(self, known: Mapping[ClientId, str], times: int) -> dict[ClientId, str]:
        """Return a coalition among all clients but those known to be in one."""
        for part, history in self.parts.items():
            groups = history.groups(without=known.keys())
            enough = 1 if self.judge.standing(groups) else times
            if history.clear(groups, enough):
                found = self.judge.coalition(groups) - groups.loose
                if found:
                    return dict.fromkeys(found, REASONS[part])
        return {}

    def pardon(self, client: ClientId) -> str:
        """Forget a client, and say of how many rounds something was known."""
        self.judge.pardon(client)
        said = [history.pardon(client) for history in self.parts.values()]
        return said[0] if said else ""

    def state_dict(self) -> dict[str, Any]:
        """Return the histories, and what was found."""
        histories = {part: history.state_dict() for part, history in self.parts.items()}
        return {"histories": histories, "judge": self.judge.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        for part, history in self.parts.items():
            history.load_state_dict(state["histories"][part])
        self.judge.load_state_dict(state["judge"])
