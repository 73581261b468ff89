"""Who is in a coalition: two groups of clients are looked for until nothing is found any more.

Updates have two parts (`visible.py`). What a client's own mix of classes makes of them is for the
most part in the one that clean images show. So those who push together are told from the rest
(`coalition.py`) in each part by itself, where they may be plain in one alone; and in both
together, as what honest clients have in common in one they have less of in the other. Which of the
two groups is the coalition is judged (`judge.py`). Of its members those are left out who are
clearly more like it than like the others. One coalition may be the bait for another. So who is left
when it is taken out is looked at again, in the same ways. But who differs because others are left
out is no coalition: after each one that is found, two groups must be further apart.
"""

from collections.abc import Collection, Mapping, Sequence
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from entity.server.coalition import NONE, Groups, caution, two_groups
from entity.server.judge import Judge
from entity.server.push_history import PushHistory
from entity.server.sketches import Described
from entity.updates import ClientId

REASONS = {
    "hidden": "pushes with others where no clean image looks",
    "shown": "pushes with others, all more alike than the rest",
    "both": "pushes with others, all alike wherever one looks",
}
"""Why who is found by a look is left out."""


class Look:
    """Two groups of clients, by some parts of their updates, and how far apart they must be.

    Parameters
    ----------
    *histories
        Of the parts, with the same clients in each. The mean of their cosines counts.
    enough
        Contrast from which on one group is a coalition, however much the cosines vary.
    least, effect
        Contrast and effect size from which on, together, it is one.
    """

    def __init__(
        self, *histories: PushHistory, enough: float = inf, least: float = inf, effect: float = inf
    ) -> None:
        self.histories = histories
        self.enough, self.least, self.effect = enough, least, effect
        self.method = "average"
        """Of SciPy's `linkage`."""

    def groups(self, without: Collection[ClientId] = ()) -> Groups:
        """Return the two groups of all who can be compared, without some."""
        known = self.histories[0].known(without)
        if not known:
            return NONE
        cosines = torch.stack([history.cosines(known) for history in self.histories])
        return two_groups(known, cosines.mean(0), self.method)

    def clear(self, groups: Groups, times: float = 1) -> bool:
        """Whether two groups are far enough apart for one of them to be a coalition.

        Where few clients can be compared, more is asked (`caution`); those who have been taken out
        count as well, for whom `times` rises.

        Parameters
        ----------
        groups
            The two groups.
        times
            How many times as far as two groups of all clients need be.
        """
        times *= caution(len(self.histories[0].known()))
        contrast, effect = groups.contrast / times, groups.effect / times
        return contrast >= self.enough or (contrast >= self.least and effect >= self.effect)


class CoalitionSearch:
    """What is remembered of all clients, and the search among them.

    Parameters
    ----------
    histories
        Of parts of `Described`.
    looks
        The ways to look at them, in their order.
    judge
        Says which of two groups it is.
    amounts
        Whether what amounts of data account for is taken out of what clients have in common.
    """

    def __init__(
        self,
        histories: Mapping[str, PushHistory],
        looks: Mapping[str, Look],
        judge: Judge,
        amounts: bool,
    ) -> None:
        self.histories, self.looks, self.judge, self.amounts = histories, looks, judge, amounts

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
            effect of the first two groups of each look.
        """
        if not self.amounts:
            samples = torch.ones_like(samples)
        self.judge.observe(clients, described)
        known = frozenset[ClientId]().union(*self.judge.found)
        for part, history in self.histories.items():
            history.observe(clients, getattr(described, part), samples, known)
        numbers = dict[str, float]()
        for name, look in self.looks.items():
            groups = look.groups()
            measured = {f"{name}_contrast": groups.contrast, f"{name}_effect": groups.effect}
            numbers |= {of: value for of, value in measured.items() if isfinite(value)}
        found, times = dict[ClientId, str](), 1
        while more := self._next(found, times):
            found, times = found | more, times + 1
        return found, numbers

    def _next(self, known: Mapping[ClientId, str], times: int) -> dict[ClientId, str]:
        """Return a coalition among all clients but those known to be in one."""
        for name, look in self.looks.items():
            groups = look.groups(without=known.keys())
            enough = 1 if self.judge.standing(groups) else times
            if look.clear(groups, enough):
                found = self.judge.coalition(groups) - groups.loose
                if found:
                    return dict.fromkeys(found, REASONS[name])
        return {}

    def pardon(self, client: ClientId) -> str:
        """Forget a client, and say of how many rounds something was known."""
        self.judge.pardon(client)
        said = [history.pardon(client) for history in self.histories.values()]
        return said[0] if said else ""

    def state_dict(self) -> dict[str, Any]:
        """Return the histories, and what was found."""
        histories = {part: history.state_dict() for part, history in self.histories.items()}
        return {"histories": histories, "judge": self.judge.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        for part, history in self.histories.items():
            history.load_state_dict(state["histories"][part])
        self.judge.load_state_dict(state["judge"])


def searching(
    contrast: float | None,
    effects: tuple[float | None, float | None],
    patience: int,
    memory: float,
    clearly: float,
    amounts: bool,
) -> CoalitionSearch:
    """Return a search in both parts of the updates.

    Parameters
    ----------
    contrast
        In the part that clean images do not show, from which on a group is a coalition, without an
        effect size; None looks nowhere.
    effects
        Effect size from which on a group is one, in either part, if it has half of that contrast;
        None looks at the part that clean images do not show alone, and at its contrast. Then the
        same in both parts together; None does not look at them together.
    patience, memory
        As of `PushHistory`; `patience` rounds are judged together.
    clearly
        As of `Judge`.
    amounts
        As of `CoalitionSearch`.
    """
    histories, looks = dict[str, PushHistory](), dict[str, Look]()
    effect, effect_both = effects
    if contrast is not None:
        hidden = histories["hidden"] = PushHistory(patience, memory)
        if effect is None:
            looks["hidden"] = Look(hidden, enough=contrast)
        else:
            shown = histories["shown"] = PushHistory(patience, memory)
            looks["hidden"] = Look(hidden, least=contrast / 2, effect=effect)
            looks["shown"] = Look(shown, least=contrast / 2, effect=effect)
            if effect_both is not None:
                looks["both"] = Look(hidden, shown, least=contrast / 2, effect=effect_both)
    return CoalitionSearch(histories, looks, Judge(patience, clearly), amounts)
