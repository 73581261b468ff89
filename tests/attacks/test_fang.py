import numpy as np
import pytest
import torch

from entity.attacks.fang import Fang, FangArgs
from entity.defenses.krum import Krum, KrumArgs
from entity.defenses.median import Median, MedianArgs
from entity.defenses.trimmed_mean import TrimmedMean, TrimmedMeanArgs
from entity.seeding import Seeds


def attacked(make_round, deltas, malicious, origin=None, seed=0, **args):
    updates = make_round(deltas, origin=origin)
    before = updates.weights.clone()
    Fang.collude(FangArgs(**args), updates, malicious, Seeds(seed))
    benign = [row for row in range(len(deltas)) if row not in malicious]
    assert torch.equal(updates.weights[benign], before[benign])
    return updates


def models(updates, rows):
    return updates.weights[rows].double().numpy()


def noise(n, size, seed=0, around=0.0):
    rng = np.random.default_rng(seed)
    return (rng.normal(around, 1, (n, size))).astype(np.float32)


@pytest.mark.parametrize("rule", ["trimmed_mean", "median"])
def test_trimmed_mean_gets_values_beyond_the_honest_range(make_round, rule):
    # Benign models 1..2 and -2..-1; all move up in columns 0 and 2, down in 1 and 3. The attackers'
    # own honest values are far outside, and must not count.
    origin = [0.0, 3.0, -3.0, 0.0]
    benign = [[1.0, -2.0, 1.0, -1.0], [1.5, -1.5, 1.5, -1.5], [2.0, -1.0, 2.0, -2.0]]
    deltas = [[9.0, -9.0, 9.0, -9.0], *benign, [9.0, -9.0, 9.0, -9.0]]
    updates = attacked(make_round, deltas, [0, 4], origin, fang_rule=rule)
    sent = models(updates, [0, 4])
    low, high = [0.5, 2.0, -4.0, -1.0], [1.0, 4.0, -2.0, -0.5]
    assert (sent >= low).all()
    assert (sent <= high).all()
    assert len(np.unique(sent)) == sent.size  # every number is drawn on its own


def test_the_draw_is_uniform_between_the_end_of_the_range_and_b_times_it(make_round):
    deltas = np.ones((6, 4000), np.float32)
    updates = attacked(make_round, deltas, [1, 4], [0.0] * 4000, fang_b=5.0)
    for sent in models(updates, [1, 4]):  # all rise from 0 to 1: between 1 / 5 and 1
        counts = np.histogram(sent, bins=8, range=(0.2, 1.0))[0]
        assert counts.sum() == 4000
        assert abs(counts - 500).max() < 100


def test_the_direction_is_the_rule_s_own(make_round):
    # Mean and median of -1, -1, -1, 0, 9 disagree, and so do median and Krum of the second column.
    deltas = np.array([[-1, 0.1], [-1, -5], [-1, 0.2], [0, 0.3], [9, -4]], np.float32)
    one_up = attacked(make_round, deltas, [4], [0.0, 0.0], fang_rule="median")
    sent = models(one_up, [4])[0]
    assert sent[0] == 0  # lowered by the median, so the greatest honest value, which is 0
    assert -10 <= sent[1] <= -5  # raised by the median: below the least
    trimmed = attacked(make_round, deltas, [4], [0.0, 0.0], fang_rule="trimmed_mean")
    assert models(trimmed, [4])[0][0] == 0  # (-1 - 1 + 0) / 3 without the extremes
    assert 0.3 <= models(trimmed, [4])[0][1] <= 0.6  # (-4 + 0.1 + 0.2) / 3 falls


@pytest.mark.parametrize(
    ("rule", "server", "own"),
    [
        ("median", Median, MedianArgs()),
        ("trimmed_mean", TrimmedMean, TrimmedMeanArgs(beta=0.2)),
        ("krum", Krum, KrumArgs(f=2)),
    ],
)
def test_the_rule_that_is_attacked_moves_against_its_own_direction(
    make_round, make_resources, rule, server, own
):
    deltas = noise(10, 300, around=0.3)
    plain = make_round(deltas)
    answer = server(own, make_resources(plain)).aggregate(plain)
    direction = np.sign((answer.weights - plain.global_weights).numpy())
    updates = attacked(make_round, deltas, [2, 7], fang_rule=rule)
    moved = server(own, make_resources(updates)).aggregate(updates)
    deviation = (answer.weights - moved.weights).numpy() @ direction
    assert deviation > 300 * 0.05
    if rule == "krum":
        assert next(v.client for v in moved.verdicts if v.accepted) in (2, 7)


def plain_search(known, direction, copies, start):
    """Return the first of start, start / 2 and so on at which Krum chooses a copy of -λ s."""
    step = start
    while step >= 1e-5:
        rows = np.vstack([np.tile(-step * direction, (copies, 1)), known]).astype(np.float64)
        squared = ((rows[:, None] - rows[None, :]) ** 2).sum(-1)
        n = len(rows)
        scores = [
            np.sort(np.delete(squared[i], i))[: max(1, n - copies - 2)].sum() for i in range(n)
        ]
        if min(scores[:copies]) < min(scores[copies:]):
            return step
        step /= 2
    return 0.0


def bound(known, copies):
    """Return theorem 1's bound on λ."""
    k, size = known.shape
    apart = np.linalg.norm(known[:, None] - known[None, :], axis=-1)
    nearest = min(np.sort(np.delete(apart[i], i))[: max(0, k - 2)].sum() for i in range(k))
    longest = np.linalg.norm(known, axis=1).max()
    return nearest / (max(1, k - copies - 1) * size**0.5) + longest / size**0.5


@pytest.mark.parametrize(("n", "attackers"), [(10, 2), (12, 4), (7, 2), (5, 2), (6, 4)])
def test_krum_s_step_is_what_a_plain_search_finds(make_round, n, attackers):
    deltas = noise(n, 50, seed=n, around=0.2)
    malicious = list(range(attackers))
    updates = attacked(make_round, deltas, malicious, [0.0] * 50, fang_rule="krum", fang_epsilon=0)
    squared = ((deltas[:, None].astype(float) - deltas[None, :]) ** 2).sum(-1)
    central = [
        np.sort(np.delete(squared[i], i))[: max(1, n - attackers - 2)].sum() for i in range(n)
    ]
    direction = np.where(deltas[int(np.argmin(central))] > 0, 1.0, -1.0)
    known = deltas[attackers:].astype(float)
    step = plain_search(known, direction, attackers, bound(known, attackers))
    sent = models(updates, malicious)
    assert step > 0
    np.testing.assert_allclose(sent, np.tile(-step * direction, (attackers, 1)), rtol=1e-6)


def test_a_benign_client_that_krum_chooses_does_not_end_the_search(make_round):
    # Row 2, the first benign one, is Krum's choice for all λ of the search but the last few.
    deltas = np.vstack([noise(2, 40, 1), 0.01 * noise(8, 40, 2)]).astype(np.float32)
    updates = attacked(make_round, deltas, [0, 1], [0.0] * 40, fang_rule="krum", fang_epsilon=0)
    sent, known = models(updates, [0])[0], deltas[2:].astype(float)
    step = np.abs(sent).max()
    assert step < bound(known, 2) / 1.9
    assert plain_search(known, -np.sign(sent), 2, 2 * step) == pytest.approx(step)


def test_the_other_attackers_of_krum_are_near_the_first_and_not_the_same(make_round):
    deltas = noise(9, 60, 3, 0.2)
    updates = attacked(make_round, deltas, [1, 5, 8], fang_rule="krum", fang_epsilon=0.05)
    first, *others = models(updates, [1, 5, 8])
    for other in others:
        assert 0 < np.linalg.norm(other - first) <= 0.0501
    assert not np.array_equal(*others)


def test_partial_knowledge_goes_3_to_4_deviations_away(make_round):
    deltas = np.vstack([100 * np.ones((4, 30)), noise(5, 30, 4, 0.4)]).astype(np.float32)
    malicious = [4, 5, 6, 7, 8]
    args = {"knowledge": "colluders", "fang_rule": "median"}
    sent = models(attacked(make_round, deltas, malicious, [1.0] * 30, **args), malicious)
    own = deltas[4:].astype(float)
    steps = (sent - 1 - own.mean(0)) / np.where(own.mean(0) > 0, -own.std(0), own.std(0))
    assert steps.min() >= 3 - 1e-4
    assert steps.max() <= 4 + 1e-4
    assert 3.3 < steps.mean() < 3.7


def test_partial_knowledge_of_krum_adds_copies(make_round):
    deltas = np.vstack([100 * np.ones((3, 20)), noise(4, 20, 5, 0.1)]).astype(np.float32)
    args = {"knowledge": "colluders", "fang_rule": "krum", "fang_epsilon": 0.0}
    sent = models(attacked(make_round, deltas, [3, 4, 5, 6], [0.0] * 20, **args), [3])[0]
    own = deltas[3:].astype(float)
    direction = np.where(own.mean(0) > 0, 1.0, -1.0)
    found = (plain_search(own, direction, k, bound(own, k)) for k in range(1, 7))
    np.testing.assert_allclose(sent, -next(filter(None, found)) * direction, rtol=1e-6)


@pytest.mark.parametrize("rule", ["trimmed_mean", "median", "krum"])
@pytest.mark.parametrize("knowledge", ["omniscient", "colluders"])
def test_a_round_of_any_make_up_is_answered_with_finite_models(make_round, rule, knowledge):
    args = {"fang_rule": rule, "knowledge": knowledge}
    for n, malicious in [(1, [0]), (2, [0]), (2, [0, 1]), (5, [3]), (4, [0, 1, 2]), (4, range(4))]:
        updates = attacked(make_round, noise(n, 12, n), list(malicious), **args)
        assert updates.weights.isfinite().all()
    nothing = attacked(make_round, np.zeros((6, 5)), [0, 1], [0.0] * 5, **args)
    assert not nothing.weights.any()  # nobody moves, and all parameters are 0
    vast = attacked(make_round, 3e38 * np.ones((5, 3)), [0], [0.0] * 3, **args)
    assert vast.weights.isfinite().all()


@pytest.mark.parametrize("rule", ["trimmed_mean", "median", "krum"])
@pytest.mark.parametrize("knowledge", ["omniscient", "colluders"])
def test_updates_that_are_not_finite_are_left_out(make_round, rule, knowledge):
    deltas = noise(8, 12, 7)
    deltas[3], deltas[1] = np.nan, np.inf  # of a benign client and an attacker
    args = {"fang_rule": rule, "knowledge": knowledge}
    updates = make_round(deltas)
    Fang.collude(FangArgs(**args), updates, [0, 1], Seeds(0))
    assert updates.weights[:2].isfinite().all()
    hopeless = make_round(np.full((4, 12), np.nan))
    Fang.collude(FangArgs(**args), hopeless, [0, 1], Seeds(0))
    assert hopeless.weights.isnan().all()


def test_wide_models_are_done_in_blocks_with_the_same_result(make_round, monkeypatch):
    deltas = noise(9, 23, 8)
    kinds = [{"fang_rule": "median"}, {"fang_rule": "krum"}, {"knowledge": "colluders"}]
    whole = [attacked(make_round, deltas, [0, 3], **kind).weights.clone() for kind in kinds]
    monkeypatch.setattr("entity.layout.BLOCK", 5)
    for kind, before in zip(kinds, whole, strict=True):
        again = attacked(make_round, deltas, [0, 3], **kind).weights
        np.testing.assert_allclose(again.numpy(), before.numpy(), rtol=1e-6)


def test_numbers_come_from_the_seeds_and_the_round(make_round):
    one, same, other = (attacked(make_round, noise(6, 9), [0], seed=s).weights for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
