import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses.foolsgold import FoolsGold, FoolsGoldArgs, foolsgold_weights

TWO_LAYERS = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 2))  # P = 2 + 4 + 2
E1, E2, E3 = np.eye(3)
ALL = FoolsGoldArgs(features="all")


def cosines(rows):
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    return torch.from_numpy(unit @ unit.T)


def plain_foolsgold(rows, kappa=1.0):
    """The paper's algorithm in plain loops."""
    n = len(rows)
    cs = cosines(rows).numpy().copy()
    np.fill_diagonal(cs, 0)
    v = cs.max(1)
    for i in range(n):
        for j in range(n):
            if v[j] > v[i]:
                cs[i, j] *= v[i] / v[j]
    alpha = np.clip(1 - cs.max(1), 0, 1)
    alpha[alpha < 1e-6] = 0
    if alpha.max() == 0:
        return alpha
    alpha /= alpha.max()
    alpha[alpha > 0.99] = 0.99
    with np.errstate(divide="ignore"):
        return np.clip(kappa * (np.log(alpha / (1 - alpha)) + 0.5), 0, 1)


def test_sybils_lose_all_and_the_others_nothing():
    assert foolsgold_weights(cosines(np.array([E1, E1, E2, E3]))).tolist() == [0, 0, 1, 1]


def test_a_single_client_keeps_its_weight_and_identical_ones_lose_it():
    assert foolsgold_weights(cosines(np.array([E1]))).tolist() == [1]
    assert foolsgold_weights(cosines(np.array([E1] * 3))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_rounding_does_not_tell_identical_histories_apart(make_updates, make_resources, seed):
    row = torch.randn(1, 999, generator=torch.Generator().manual_seed(seed))
    updates = make_updates(row * torch.tensor([[1.0], [0.3], [7.7]]))
    answer = FoolsGold(ALL, make_resources(updates)).aggregate(updates)
    assert torch.equal(answer.weights, updates.global_weights)
    assert not any(v.accepted for v in answer.verdicts)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 8), kappa=st.sampled_from([0.3, 1.0, 4.0]), seed=st.integers(0, 2**32 - 1))
def test_weights_are_those_of_the_plain_loops(n, kappa, seed):
    rows = np.random.default_rng(seed).normal(size=(n, 3))
    got = foolsgold_weights(cosines(rows), kappa)
    np.testing.assert_allclose(got, plain_foolsgold(rows, kappa), atol=1e-9)


def test_honest_clients_like_a_sybil_by_chance_are_pardoned():
    rows = np.array([E1, E1 + 1e-3 * E2, E1 + E2, E3])
    pardoned = foolsgold_weights(cosines(rows))
    assert pardoned[:2].tolist() == [0, 0]
    assert pardoned[2] > 0
    # Without pardoning, 1 - 0.707 would lie below 0.3775, where the logit ends at 0.
    assert 1 - float(cosines(rows)[2, 0]) < 0.3775


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_weights_do_not_depend_on_the_length_of_histories(make_updates, make_resources, seed):
    rng = np.random.default_rng(seed)
    rows, lengths = rng.normal(size=(5, 4)), 10 ** rng.uniform(-3, 3, size=(5, 1))
    np.testing.assert_allclose(
        foolsgold_weights(cosines(rows)), foolsgold_weights(cosines(rows * lengths)), atol=1e-6
    )


def test_history_is_of_the_head_alone(make_updates, make_resources):
    # The bodies agree, the heads do not: nobody is a sybil; and the other way round.
    body, other = [1.0, 2.0], [-2.0, 1.0]
    head, far = [1.0, 0, 0, 0, 0, 0], [0.0, 1, 0, 0, 0, 0]
    resources = make_resources(TWO_LAYERS)
    honest = make_updates([body + head, body + far], model=TWO_LAYERS)
    judged = FoolsGold(FoolsGoldArgs(), resources).aggregate(honest).verdicts
    assert [v.score for v in judged] == [1, 1]
    sybils = make_updates([body + head, other + head], model=TWO_LAYERS)
    judged = FoolsGold(FoolsGoldArgs(), resources).aggregate(sybils).verdicts
    assert [v.score for v in judged] == [0, 0]


def test_a_model_without_a_linear_layer_is_refused_with_the_mend(make_updates, make_resources):
    model = nn.Conv2d(1, 1, 1)
    with pytest.raises(ConfigError, match="use all"):
        FoolsGold(FoolsGoldArgs(), make_resources(model))
    FoolsGold(ALL, make_resources(model))


def test_memory_is_by_client_not_by_position_in_the_round(make_updates, make_resources):
    first = make_updates([E1, E2, E3], ids=[5, 6, 7])
    server = FoolsGold(ALL, make_resources(first))
    server.aggregate(first)
    # By position, rows 0 and 1 would now be sums of unlike updates.
    second = make_updates([E2, E1, 2 * E1], ids=[6, 5, 8], round=2)
    judged = server.aggregate(second).verdicts
    assert [v.client for v in judged if v.accepted] == [6]
    assert server.history[5].tolist() == [2, 0, 0]
    assert server.history[7].tolist() == [0, 0, 1]


def test_one_unlike_round_does_not_whitewash_a_history(make_updates, make_resources):
    rounds = [[E1, E1, E2], [E1, E1, E3], [E3, -0.3 * E2, E1]]
    server = FoolsGold(ALL, make_resources(make_updates(rounds[0])))
    for number, rows in enumerate(rounds, 1):
        judged = server.aggregate(make_updates(rows, round=number)).verdicts
    sums = np.sum(rounds, axis=0)
    assert [v.score for v in judged] == pytest.approx(plain_foolsgold(sums).tolist(), abs=1e-6)
    assert judged[0].score < 1


@pytest.mark.parametrize(
    ("normalise", "factor"), [("weights", 1 / 2), ("round", 1 / 4), ("none", 1)]
)
def test_the_sum_is_normalised_as_asked(make_updates, make_resources, normalise, factor):
    updates = make_updates([4 * E1, 4 * E1, 4 * E2, 4 * E3])
    args = FoolsGoldArgs(features="all", normalise=normalise)
    for rate in (1.0, 0.5):  # the original leaves the server's rate out, and halves the rest
        answer = FoolsGold(args, make_resources(updates, server_lr=rate)).aggregate(updates)
        moved = answer.weights - updates.global_weights
        assert moved.tolist() == pytest.approx([0, 4 * factor * rate, 4 * factor * rate])
        assert [v.weight for v in answer.verdicts] == [0, 0, 0.5, 0.5]


def test_all_parameters_longer_than_a_block(monkeypatch, make_updates, make_resources):
    monkeypatch.setattr("entity.layout.BLOCK", 2)
    updates = make_updates([E1, E1, E2, E3])
    answer = FoolsGold(ALL, make_resources(updates)).aggregate(updates)
    assert [v.score for v in answer.verdicts] == [0, 0, 1, 1]


def test_it_goes_on_from_a_saved_state(make_updates, make_resources):
    rounds = [make_updates(np.random.default_rng(i).normal(size=(4, 6)), round=i) for i in (1, 2)]
    resources = make_resources(rounds[0])
    whole, stopped = FoolsGold(ALL, resources), FoolsGold(ALL, resources)
    whole.aggregate(rounds[0])
    stopped.aggregate(rounds[0])
    resumed = FoolsGold(ALL, resources)
    resumed.load_state_dict(stopped.state_dict())
    expected, got = whole.aggregate(rounds[1]), resumed.aggregate(rounds[1])
    assert torch.equal(expected.weights, got.weights)
    assert expected.verdicts == got.verdicts


def test_memory_is_one_vector_a_client_however_many_rounds(make_updates, make_resources):
    """A public benchmark keeps every update of every round."""
    rounds = [make_updates([E1, E2, E3], ids=[5, 6, 7], round=i) for i in range(1, 7)]
    server = FoolsGold(ALL, make_resources(rounds[0]))
    sizes = []
    for updates in rounds:
        server.aggregate(updates)
        sizes.append(sum(vector.numel() for vector in server.history.values()))
    assert sizes == [9] * 6
    assert server.history[6].tolist() == [0, 6, 0]
