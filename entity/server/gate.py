"""The gate around every server: only finite updates of distinct clients reach a defense.

Updates with NaN or infinite values or without a sensible number of samples, and repeated
identities, are refused with a reason; the round goes on with the rest. Frozen parameters are the
global model's, whatever a client sends for them. The global model stays where
too few are left for the defense's bounds, or its answer is not finite; the other clients are
undecided then, neither accepted nor refused, and `kept_global` is among the diagnostics.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from entity.layout import ModelState, blocks
from entity.seeding import own_stream
from entity.server.answer import checked
from entity.server.contract import Server
from entity.updates import Aggregation, ClientId, Updates, Verdict

REPEATED, NONFINITE = "repeated client id", "nonfinite update"
UNCOUNTED = "number of samples is not from 0 to 2**53"
"""Reasons for which an update is refused."""
MOST_SAMPLES = 2**53
"""Largest number of samples: up to here sums of them are exact and cannot overflow."""


def is_finite(state: ModelState) -> bool:
    """Whether all weights and buffers of a model are finite numbers."""
    return _finite(state.weights) and _finite(state.buffers)


def _finite(vector: Tensor) -> bool:
    # Nothing but finite numbers has a finite sum, and a sum is computed several times as fast as
    # each number is tested. The sum of finite ones may still overflow.
    if math.isfinite(vector.sum()):
        return True
    return all(bool(torch.isfinite(vector[part]).all()) for part in blocks(len(vector)))


def fault_of(state: ModelState, num_samples: float) -> str:
    """Return the reason to refuse an update for its numbers; "" without any."""
    if not 0 <= num_samples <= MOST_SAMPLES:
        return UNCOUNTED
    return "" if is_finite(state) else NONFINITE


def decide(server: Server[Any], updates: Updates) -> Aggregation:
    """Let a server aggregate sound updates, and keep the global model where it cannot."""
    reason = server.too_few(len(updates), updates.round_size)
    if not reason:
        with own_stream(server, server.resources.seeds.generator("defense", round=updates.round)):
            found = server.aggregate(updates)
        answer = _stepped(server, updates, checked(server, updates, found))
        if answer is not None:
            return _frozen_kept(updates, answer)
        server.withdrawn()
        reason = "the aggregate is not finite"
    server.warn_once(reason, f"{reason}, so the global model stays")
    undecided = tuple(undecided_for(client, reason) for client in updates.client_ids)
    return Aggregation(*updates.global_state, undecided, {"kept_global": 1.0})


def _stepped(server: Server[Any], updates: Updates, answer: Aggregation) -> Aggregation | None:
    """Return what is released of a defense's answer, after its optimiser's step if it has one.

    None if it is not finite; the optimiser is then as if the round had not been.

    Parameters
    ----------
    server
        The defense.
    updates
        The round.
    answer
        What the defense made of it.
    """
    optimiser = server.optimiser
    if optimiser is None or not is_finite(answer.state):
        return answer if is_finite(answer.state) else None
    if answer.replaced:
        optimiser.moments = None
        return answer
    start = updates.global_weights
    if _nobody_counts(server, updates, answer):
        return answer
    weights, moments = optimiser.proposed(start, answer.weights)
    state = server.finish(ModelState(weights, answer.buffers))
    numbers = {
        "pseudo_gradient": float((answer.weights.double() - start).norm()),
        "server_step": float((weights.double() - start).norm()),
    }
    answer = server.complete(
        answer.completed(state, numbers, {}),
        updates.round,
    )
    if not is_finite(answer.state):
        return None
    optimiser.moments = moments
    return answer


def _nobody_counts(server: Server[Any], updates: Updates, answer: Aggregation) -> bool:
    """Whether nobody is accepted, or nobody of them has a share of the mean, which stays."""
    accepted = torch.tensor([verdict.accepted for verdict in answer.verdicts])
    by_samples = server.resources.averaging.weighting == "samples"
    if by_samples and torch.equal(answer.weights, updates.global_weights):
        accepted &= updates.num_samples > 0
    return not accepted.any()


def _frozen_kept(updates: Updates, answer: Aggregation) -> Aggregation:
    """Return an answer whose frozen parameters are the global model's.

    No client trains away what a server's noise, a cut to a norm, or a malicious client does there.
    """
    if answer.replaced:  # a student has its own
        return answer
    weights = updates.spec.with_frozen(answer.weights, updates.global_weights)
    return replace(answer, weights=weights)


def undecided_for(client: ClientId, reason: str) -> Verdict:
    """Return the verdict on a client of a round that kept the global model."""
    return Verdict(client, accepted=False, reason=reason, undecided=True)


def admit(server: Server[Any], updates: Updates) -> Aggregation:
    """Let a server aggregate the updates that pass the gate, and complete its verdicts."""
    refusals: dict[int, str] = {}
    seen: set[object] = set()
    samples = updates.num_samples.tolist()
    for row, client in enumerate(updates.client_ids):
        if client in seen:
            refusals[row] = REPEATED
        elif fault := fault_of(updates.state(row), samples[row]):
            refusals[row] = fault
        seen.add(client)
    rows = [row for row in range(len(updates)) if row not in refusals]
    if not rows:
        answer = Aggregation(*updates.global_state, verdicts=(), diagnostics={"kept_global": 1.0})
    else:
        sound = replace(updates.select(rows), asked=updates.round_size) if refusals else updates
        weights = sound.spec.with_frozen(sound.weights, sound.global_weights)
        sound = sound if weights is sound.weights else replace(sound, weights=weights)
        answer = decide(server, sound)
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
