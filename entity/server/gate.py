"""The gate in front of every server: what cannot be an update never reaches a defense.

Updates with NaN or infinite values, and repeated identities, are refused with a reason; the
round goes on with the rest, and without any the global model stays.
"""

import math
from typing import Any

import torch
from torch import Tensor

from entity.layout import blocks
from entity.server.contract import Server
from entity.updates import Aggregation, Updates, Verdict


def finite_rows(updates: Updates) -> list[bool]:
    """Return for each client whether all its weights and buffers are finite numbers."""
    return [
        all(map(_finite, (updates.weights[row], updates.buffers[row])))
        for row in range(len(updates))
    ]


def _finite(vector: Tensor) -> bool:
    # Nothing but finite numbers has a finite sum, and a sum is read several times as fast as each
    # number is asked. The sum of finite ones may still overflow.
    if math.isfinite(vector.sum()):
        return True
    return all(bool(torch.isfinite(vector[part]).all()) for part in blocks(len(vector)))


def admit(server: Server[Any], updates: Updates) -> Aggregation:
    """Let a server aggregate the updates that are fit to be seen, and complete its verdicts."""
    refusals: dict[int, str] = {}
    seen: set[object] = set()
    for row, (client, finite) in enumerate(
        zip(updates.client_ids, finite_rows(updates), strict=True)
    ):
        if client in seen:
            refusals[row] = "repeated client id"
        elif not finite:
            refusals[row] = "nonfinite update"
        seen.add(client)
    rows = [row for row in range(len(updates)) if row not in refusals]
    if not rows:
        answer = Aggregation(*updates.global_state, verdicts=())
    else:
        answer = server.aggregate(updates.select(rows))
    if not refusals:
        return answer
    decided = dict(zip(rows, answer.verdicts, strict=True))
    every = tuple(
        decided.get(row) or Verdict(client, accepted=False, reason=refusals[row])
        for row, client in enumerate(updates.client_ids)
    )
    return Aggregation(
        answer.weights,
        answer.buffers,
        every,
        {**answer.diagnostics, "gate_refused": float(len(refusals))},
        answer.seconds,
        answer.artifacts,
    )
