from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses.alignins import AlignIns, AlignInsArgs, alignment, deviations
from entity.server.contract import Setting


def transcription(deltas: np.ndarray, start: np.ndarray, sparsity: float) -> np.ndarray:
    """TDA and MPSA (n, 2) by their definitions, in float64."""
    principal = np.sign(np.sign(deltas).sum(0))
    count = int(sparsity * len(start))
    rows = []
    for delta in deltas:
        largest = np.argsort(-np.abs(delta), kind="stable")[:count]
        tda = delta @ start / (np.linalg.norm(delta) * np.linalg.norm(start))
        rows.append([tda, (np.sign(delta[largest]) == principal[largest]).mean()])
    return np.array(rows)


def z_scores(values: np.ndarray) -> np.ndarray:
    return np.abs(values - np.median(values)) / np.std(values)


def lower_median(values: np.ndarray) -> float:
    """Of an even number, the lower of the middle two, as `torch.median` in the authors' code."""
    return np.sort(values)[(len(values) - 1) // 2]


def run(updates, resources, **args):
    return AlignIns(AlignInsArgs(**args), resources).aggregate(updates)


def kept(answer) -> list:
    return [verdict.client for verdict in answer.verdicts if verdict.accepted]


def drawn(seed: int, n: int = 11, size: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    deltas = (0.3 * rng.normal(size=size) + rng.normal(size=(n, size))).astype(np.float32)
    return deltas, rng.normal(size=size).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sparsity", [0.1, 0.3, 1.0])
def test_the_alignments_are_those_of_the_definitions(seed, sparsity, make_updates):
    deltas, start = drawn(seed)
    updates = make_updates(deltas, origin=start)
    found = alignment(updates, sparsity)
    expected = transcription(updates.deltas.double().numpy(), start.astype(float), sparsity)
    np.testing.assert_allclose(torch.stack(found, 1), expected, rtol=1e-6, atol=1e-7)


def test_the_alignments_by_hand(make_updates):
    deltas = [[3, 0, 1, -1], [0, -4, 1, 1], [2, 1, -5, 1]]
    found = alignment(make_updates(deltas, origin=[1.0, 0, 0, 0]), 0.5)
    # The signs of the sums of signs: +, 0, +, +.
    assert found.signs.tolist() == [1, 0.5, 0.5]
    expected = torch.tensor([3 / 11**0.5, 0, 2 / 31**0.5]).double()
    torch.testing.assert_close(found.direction, expected)


@pytest.mark.parametrize("seed", range(6))
def test_who_is_averaged_and_how_clipped_is_the_transcriptions(seed, make_updates, make_resources):
    deltas, start = drawn(seed)
    deltas[:2] *= 3
    updates = make_updates(deltas, origin=start)
    answer = run(updates, make_resources(updates))
    own = updates.deltas.double().numpy()
    scores = np.apply_along_axis(z_scores, 0, transcription(own, start.astype(float), 0.3))
    expected = np.flatnonzero((scores < 1).all(1))
    assert 0 < len(expected) < 11
    assert kept(answer) == expected.tolist()
    lengths = np.linalg.norm(own[expected], axis=1)
    clipped = own[expected] * np.minimum(1, lower_median(lengths) / lengths)[:, None]
    np.testing.assert_allclose(answer.weights, start + clipped.mean(0), rtol=1e-5, atol=1e-6)
    assert answer.diagnostics["clip_norm"] == pytest.approx(lower_median(lengths))
    assert answer.verdicts[3].score == pytest.approx(scores[3].max(), abs=1e-5)


def test_each_number_leaves_out_its_own_and_says_so(make_updates, make_resources):
    start = np.zeros(40)
    start[:10] = 1
    deltas = np.ones((9, 40))
    deltas[:, :10] *= np.linspace(0.9, 1.1, 9)[:, None]
    deltas[7, :10] = -0.5  # against the model, in its small parameters alone
    deltas[8, 10:] = np.tile([-2, 1.99], 15)  # as far along the model, with other signs
    updates = make_updates(deltas, origin=start)
    by_direction = run(updates, make_resources(updates), lambda_s=100)
    by_signs = run(updates, make_resources(updates), lambda_c=100)
    assert by_direction.verdicts[7].reason == "unusual direction (TDA)"
    assert by_signs.verdicts[8].reason == "unusual signs (MPSA)"
    assert kept(by_signs) == list(range(8))
    assert 8 not in kept(run(updates, make_resources(updates)))


def test_a_backdoor_of_equal_length_and_cosine_to_the_mean_is_found_by_its_signs(
    make_updates, make_resources
):
    """Ten honest clients share most signs; the attackers flip those of their largest entries."""
    rng = np.random.default_rng(3)
    common = rng.normal(size=400)
    deltas = common + 0.4 * rng.normal(size=(14, 400))
    largest = np.argsort(-np.abs(common))[:60]
    deltas[10:, largest] *= -1
    updates = make_updates(deltas, origin=rng.normal(size=400))
    answer = run(updates, make_resources(updates), lambda_c=100)
    assert max(kept(answer)) < 10


def test_one_of_two_who_are_left_does_not_set_the_bound(make_updates, make_resources, monkeypatch):
    updates = make_updates([[3.0, 4.0], [3e6, 4e6], [1.0, 0.0], [0.0, 1.0]])
    away = iter([torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.zeros(4)])
    monkeypatch.setattr("entity.defenses.alignins.deviations", lambda values: next(away))
    answer = run(updates, make_resources(updates))
    assert kept(answer) == [0, 1]
    assert answer.diagnostics["clip_norm"] == 5
    torch.testing.assert_close(answer.weights - updates.global_weights, torch.tensor([3.0, 4.0]))


def test_where_nobody_is_left_the_global_model_stays(make_updates, make_resources):
    deltas, start = drawn(1, n=6)
    updates = make_updates(deltas, origin=start)
    answer = run(updates, make_resources(updates), lambda_c=1e-9, lambda_s=1e-9)
    assert kept(answer) == []
    assert torch.equal(answer.weights, updates.global_weights)
    assert sum(verdict.weight for verdict in answer.verdicts) == 0


def test_clients_that_are_all_alike_are_all_averaged(make_updates, make_resources):
    """Regression: the authors' code divides by a deviation of zero and drops everybody."""
    updates = make_updates([[1.0, -2.0, 3.0]] * 5, origin=[0.5, 0.25, 1.0])
    answer = run(updates, make_resources(updates))
    assert kept(answer) == [0, 1, 2, 3, 4]
    assert torch.equal(answer.weights, updates.weights[0])


def test_a_global_model_of_zeros_has_no_direction(make_updates):
    updates = make_updates([[1.0, 2.0], [0.0, 0.0]], origin=[0.0, 0.0])
    assert alignment(updates, 1.0).direction.tolist() == [0, 0]


def test_buffers_have_no_part_in_the_alignments(make_updates, make_resources):
    """Regression: the authors' vectors end with counters of batches."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    rows = torch.randn(8, 21, generator=torch.Generator().manual_seed(0))
    first = make_updates(rows, model=model)
    second = replace(first, buffers=first.buffers + 1000 * torch.arange(8.0)[:, None])
    one, two = (run(each, make_resources(model)) for each in (first, second))
    assert one.verdicts == two.verdicts


def test_tied_alignments_are_judged_alike(make_updates, make_resources):
    """Two groups of two are each one deviation from the median, which the radius leaves out."""
    deltas = [[1.0, 0.1], [1.0, 0.1], [1.0, 0.9], [1.0, 0.9]]
    updates = make_updates(deltas, origin=[1.0, 0.0])
    assert kept(run(updates, make_resources(updates))) == []
    assert kept(run(updates, make_resources(updates), lambda_c=1.01)) == [0, 1, 2, 3]
    assert deviations(torch.tensor([1.0, 1.0, 3.0, 3.0])).tolist() == [1, 1, 1, 1]


def test_small_rounds_are_refused():
    with pytest.raises(ConfigError, match="alignins needs at least 4"):
        AlignIns.check(AlignInsArgs(), Setting(3, 0, (1, 4)))
    AlignIns.check(AlignInsArgs(), Setting(4, 0, (1, 4)))


def test_the_largest_entries_are_a_share_of_those_that_are_trained(make_updates):
    """Regression: beside many frozen ones all that are trained, and some of those, were."""
    model = nn.Sequential(nn.Linear(1000, 1, bias=False).requires_grad_(False))
    model.append(nn.Linear(20, 1, bias=False))
    rng = np.random.default_rng(3)
    deltas, start = rng.normal(size=(6, 20)), rng.normal(size=20)
    beside = np.concatenate([np.zeros((6, 1000)), deltas], 1)
    origin = torch.from_numpy(np.concatenate([np.zeros(1000), start])).float()
    found = alignment(make_updates(beside, model=model, origin=origin), 0.3)
    expected = transcription(deltas, start, 0.3)
    np.testing.assert_allclose(found.signs, expected[:, 1], rtol=1e-6)
    np.testing.assert_allclose(found.direction, expected[:, 0], rtol=1e-5)
