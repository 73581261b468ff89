"""Clients' updates foreseen from their last ones and from how the global model has moved.

By the mean value theorem a client's next update is its last one plus H (w - w'), where w' and w are
the global models that the two started from, and H the Hessian. H is estimated as L-BFGS does, from
the steps of the global model and how the aggregate changed in them. The compact form is that of
Byrd, Nocedal and Schnabel, "Representations of Quasi-Newton Matrices and their Use in Limited
Memory Methods", Mathematical Programming 1994; the use is FLDetector's (arXiv 2207.09209).

Everything is of inner products of steps, in blocks and in float64; no matrix of the model's size is
formed beside those that are kept.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from entity.layout import blocks
from entity.updates import ClientId, Updates


class Product(NamedTuple):
    """H times R vectors v: `sigma * v + of_steps.T @ steps + of_changes.T @ changes`."""

    sigma: float
    of_steps: Tensor
    """(m, R)."""
    of_changes: Tensor
    """(m, R)."""


def hessian_products(own: Tensor, cross: Tensor, steps_v: Tensor, changes_v: Tensor) -> Product:
    """Return L-BFGS's Hessian times vectors, from inner products alone.

    Parameters
    ----------
    own
        (m, m) inner products of the model's steps s, oldest first; none of them is zero.
    cross
        (m, m) inner products of steps s (rows) with how the gradient changed in them, y.
    steps_v, changes_v
        (m, R) inner products of s and of y with the vectors v.

    Examples
    --------
    >>> s, y, v = (torch.tensor([[number]]).double() for number in (4.0, -2.0, 6.0))
    >>> found = hessian_products(s @ s.T, s @ y.T, s @ v.T, y @ v.T)
    >>> float(found.sigma * v + found.of_steps.T @ s + found.of_changes.T @ y)
    -3.0
    """
    sigma = float(cross[-1, -1] / own[-1, -1])
    lower = cross.tril(-1)
    upper = torch.cat([sigma * own, lower], 1)
    inner = torch.cat([upper, torch.cat([lower.T, -cross.diagonal().diag()], 1)])
    solved = torch.linalg.pinv(inner) @ torch.cat([sigma * steps_v, changes_v])
    of_steps, of_changes = solved.split(len(own))
    return Product(sigma, -sigma * of_steps, -of_changes)


class Foreseen:
    """What is known of the clients' last updates and of the global model's way.

    Parameters
    ----------
    window
        Pairs of steps and changes that H is estimated from.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.models: dict[int, Tensor] = {}
        """(P,) global models, by round."""
        self.aggregates: dict[int, Tensor] = {}
        """(P,) what the server made of the updates of the window's rounds."""
        self.last: dict[ClientId, tuple[int, Tensor]] = {}
        """Each client's last round, and the model (P,) that it sent."""

    def distances(self, updates: Updates) -> Tensor | None:
        """Return how far the clients' updates are from the foreseen ones (n,) float64.

        NaN for clients of whom nothing is known; None while nothing is known of H.
        """
        known = [row for row, client in enumerate(updates.client_ids) if client in self.last]
        before = [self.last[updates.client_ids[row]] for row in known]
        numbers = sorted({number for number, _ in before})
        if len(self.aggregates) < 2 or not known:
            return None
        place = [numbers.index(number) for number, _ in before]
        origins = [self.models[number] for number in numbers]
        moves = _Rows(origins, [updates.global_weights] * len(origins))
        steps, changes, product = self._product(moves)
        if product is None:
            return None
        squares = torch.zeros(len(known), dtype=torch.float64)
        for columns in blocks(updates.weights.shape[1]):
            foreseen = product.sigma * moves.block(columns)
            foreseen += product.of_steps.T @ steps.block(columns)
            foreseen += product.of_changes.T @ changes.block(columns)
            foreseen -= torch.stack([origin[columns] for origin in origins]).double()
            earlier = torch.stack([model[columns] for _, model in before]).double()
            start = updates.global_weights[columns].double()
            sent = updates.weights[known, columns].double() - start
            squares += (sent - earlier - foreseen[place]).square().sum(1)
        out = torch.full((len(updates),), torch.nan, dtype=torch.float64)
        out[known] = squares.sqrt()
        return out

    def _product(self, moves: "_Rows") -> tuple["_Rows", "_Rows", Product | None]:
        """Return the steps, the changes, and H times the moves; None where no step has a length."""
        pairs = [*pairwise(self.aggregates)]
        steps = _Rows(*([self.models[pair[end]] for pair in pairs] for end in (0, 1)))
        changes = _Rows(*([self.aggregates[pair[end]] for pair in pairs] for end in (0, 1)))
        own, cross = steps.products(steps), steps.products(changes)
        went = (own.diagonal() > 0).nonzero().flatten().tolist()
        if not went:
            return steps, changes, None
        steps, changes = steps.select(went), changes.select(went)
        own, cross = own[went][:, went], cross[went][:, went]
        found = hessian_products(own, cross, steps.products(moves), changes.products(moves))
        return steps, changes, found

    def book(self, updates: Updates, aggregate: Tensor | None) -> None:
        """Note a round; models that nothing refers to any more are let go.

        Parameters
        ----------
        updates
            The round.
        aggregate
            (P,) the update that the server made of it, before its rate; None if of nobody's, which
            says nothing of the gradient.
        """
        number = updates.round
        self.models[number] = updates.global_weights.clone()
        if aggregate is not None:
            self.aggregates[number] = aggregate
        for row, client in enumerate(updates.client_ids):
            self.last[client] = number, updates.weights[row].clone()
        window = [*self.aggregates][-(self.window + 1) :]
        needed = {*window, *(number for number, _ in self.last.values())}
        self.aggregates = {number: self.aggregates[number] for number in window}
        self.models = {number: self.models[number] for number in self.models if number in needed}

    def forget(self, client: ClientId) -> bool:
        """Forget a client's last update, and say whether there was one."""
        return self.last.pop(client, None) is not None

    def clear(self) -> None:
        """Forget all."""
        self.models, self.aggregates, self.last = {}, {}, {}

    def state_dict(self) -> dict[str, Any]:
        """Return models and clients' last ones; none of the tensors is ever changed."""
        return {
            "rounds": [*self.models],
            "models": [*self.models.values()],
            "window": [*self.aggregates],
            "aggregates": [*self.aggregates.values()],
            "clients": [*self.last],
            "last_rounds": [number for number, _ in self.last.values()],
            "last_models": [model for _, model in self.last.values()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.models = dict(zip(state["rounds"], state["models"], strict=True))
        self.aggregates = dict(zip(state["window"], state["aggregates"], strict=True))
        last: Sequence[tuple[int, Tensor]] = [
            *zip(state["last_rounds"], state["last_models"], strict=True)
        ]
        self.last = dict(zip(state["clients"], last, strict=True))


class _Rows(NamedTuple):
    """Differences (m, P) of vectors, of which no matrix is made."""

    starts: Sequence[Tensor]
    ends: Sequence[Tensor]

    def block(self, columns: slice) -> Tensor:
        """Return some columns of the differences, float64."""
        pairs = zip(self.starts, self.ends, strict=True)
        return torch.stack(
            [end[columns].double() - start[columns].double() for start, end in pairs]
        )

    def products(self, others: "_Rows") -> Tensor:
        """Return the inner products (m, k) with k other differences."""
        found = torch.zeros(len(self.starts), len(others.starts), dtype=torch.float64)
        for columns in blocks(len(self.starts[0])):
            found += self.block(columns) @ others.block(columns).T
        return found

    def select(self, rows: Sequence[int]) -> "_Rows":
        """Return some of the rows."""
        return _Rows([self.starts[row] for row in rows], [self.ends[row] for row in rows])
