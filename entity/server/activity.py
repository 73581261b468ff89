"""Activity tracking, the second stage of DROP: penalty points that outlive the round."""

from collections.abc import Iterable, Mapping
from typing import Any

from entity.updates import ClientId

_FREE = 1e-9
"""Points up to this count as none, and a limit this near as reached: tenths add up inexactly."""


class Activity:
    """Penalty points by client, and the blacklist.

    A client in the minority group gets `penalty` points, one in the majority loses `reward`, and
    only clients without points are admitted. Clients that were not selected keep theirs.

    Examples
    --------
    >>> activity = Activity(penalty=1.0, reward=0.5, blacklist_threshold=None)
    >>> activity.observe(majority=[], minority=[7])
    >>> activity.observe(majority=[7], minority=[])
    >>> activity.points(7), activity.admits(7)
    (0.5, False)
    """

    def __init__(
        self, penalty: float, reward: float | None, blacklist_threshold: float | None
    ) -> None:
        self.penalty = penalty
        self.reward = penalty if reward is None else reward
        self.blacklist_threshold = blacklist_threshold
        self.blacklist: set[ClientId] = set()
        self._points: dict[ClientId, float] = {}

    def observe(self, majority: Iterable[ClientId], minority: Iterable[ClientId]) -> None:
        """Add and remove points by one round's split."""
        for client in minority:
            self._points[client] = self.points(client) + self.penalty
            limit = self.blacklist_threshold
            if limit is not None and self._points[client] >= limit - _FREE:
                self.blacklist.add(client)
        for client in majority:
            self._points[client] = max(0.0, self.points(client) - self.reward)

    def points(self, client: ClientId) -> float:
        """Return a client's penalty points."""
        return self._points.get(client, 0.0)

    def admits(self, client: ClientId) -> bool:
        """Whether a client is free of points and not blacklisted."""
        return self.points(client) <= _FREE and client not in self.blacklist

    def pardon(self, client: ClientId) -> str:
        """Take a client's points and its place on the blacklist, and say what it had.

        Examples
        --------
        >>> activity = Activity(penalty=2.0, reward=None, blacklist_threshold=2.0)
        >>> activity.observe(majority=[], minority=[7])
        >>> activity.pardon(7), activity.admits(7), activity.pardon(7)
        ('2 penalty points, blacklisted', True, '')
        """
        points = self._points.pop(client, 0.0)
        had = [f"{points:g} penalty points"] if points > _FREE else []
        if client in self.blacklist:
            self.blacklist = self.blacklist - {client}
            had.append("blacklisted")
        return ", ".join(had)

    def state_dict(self) -> dict[str, Any]:
        """Return points and blacklist."""
        return {
            "points": [[client, points] for client, points in self._points.items()],
            "blacklist": sorted(self.blacklist, key=str),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._points = {client: float(points) for client, points in state["points"]}
        self.blacklist = set(state["blacklist"])
