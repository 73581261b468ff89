"""The gate in front of every server: only finite updates of distinct clients reach a defense.

Updates with NaN or infinite values, and repeated identities, are refused with a reason; the
round goes on with the rest. Without any left the global model stays.
"""

import math
from typing import Any

import torch
from torch import Tensor

from entity.layout import ModelState, blocks
from entity.server.contract import Server
from entity.updates import Aggregation, Updates, Verdict

REPEATED, NONFINITE = "repeated client id", "nonfinite update"
"""Reasons for which an update is refused."""


def is_finite(state: ModelState) -> bool:
    """Whether all weights and buffers of a model are finite numbers."""
    return _finite(state.weights) and _finite(state.buffers)


def _finite(vector: Tensor) -> bool:
    # Nothing but finite numbers has a finite sum, and a sum is computed several times as fast as
    # each number is tested. The sum of finite ones may still overflow.
    if math.isfinite(vector.sum()):
        return True
    return all(bool(torch.isfinite(vector[part]).all()) for part in blocks(len(vector)))


def admit(server: Server[Any], updates: Updates) -> Aggregation:
    """Let a server aggregate the updates that pass the gate, and complete its verdicts."""
    refusals: dict[int, str] = {}
    seen: set[object] = set()
    for row, client in enumerate(updates.client_ids):
        if client in seen:
            refusals[row] = REPEATED
        elif not is_finite(updates.state(row)):
            refusals[row] = NONFINITE
        seen.add(client)
    rows = [row for row in range(len(updates)) if row not in refusals]
    if not rows:
        answer = Aggregation(*updates.global_state, verdicts=())
    else:
        answer = server.aggregate(updates.select(rows))
    if not refusals:
        return answer
    decided = dict(zip(rows, answer.verdicts, strict=True))
    completed = tuple(
        decided.get(row) or Verdict(client, accepted=False, reason=refusals[row])
        for row, client in enumerate(updates.client_ids)
    )
    return Aggregation(
        answer.weights,
        answer.buffers,
        completed,
        {**answer.diagnostics, "gate_refused": float(len(refusals))},
        answer.seconds,
        answer.artifacts,
    )
