import pytest
import torch
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses.snowball import Snowball, SnowballArgs, both_ways, key_layers
from entity.layout import ParamSpec
from entity.server.contract import Setting
from entity.server.election import votes_of_layer

FAST = {"vae_hidden": 16, "vae_latent": 4, "vae_initial": 4, "vae_tuning": 2}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.Linear(3, 2))


def rows(n: int, seed: int = 0) -> torch.Tensor:
    size = ParamSpec.of(network()).num_parameters
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


def run(updates, resources, **args):
    return Snowball(SnowballArgs(**(FAST | args)), resources).aggregate(updates)


def kept(answer) -> list:
    return [verdict.client for verdict in answer.verdicts if verdict.accepted]


def test_the_first_and_the_last_weight_decide():
    assert [slot.name for slot in key_layers(ParamSpec.of(network()))] == ["0.weight", "3.weight"]
    assert [slot.name for slot in key_layers(ParamSpec.of(nn.Linear(2, 2)))] == ["weight"]
    assert [slot.name for slot in key_layers(ParamSpec.of(nn.BatchNorm1d(2)))] == ["weight", "bias"]


def test_before_the_top_down_election_those_with_most_votes_are_averaged(
    make_updates, make_resources
):
    deltas = rows(21)
    deltas[:6] += 3
    model = network()
    updates = make_updates(deltas, model=model, round=4)
    answer = run(updates, make_resources(model, rounds=20))
    expected = torch.zeros(21).double()
    for slot in key_layers(updates.spec):
        layer = deltas[:, slot.start : slot.stop].double()
        expected += votes_of_layer(layer @ layer.T, 5)
    found = torch.tensor([verdict.score for verdict in answer.verdicts])
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    ranking = sorted(range(21), key=lambda row: (-round(float(expected[row]), 6), row))
    best = sorted(ranking[:3])  # a tenth of 21, rounded up; ties by id
    assert kept(answer) == best
    torch.testing.assert_close(answer.weights, updates.weights[best].mean(0))
    assert answer.diagnostics == {"elected": 3, "picked": 0}


def test_the_elected_pick_their_like(make_updates, make_resources):
    """Twelve alike and four who differ in the last layer alone, which they exaggerate."""
    model = network()
    deltas = 0.2 * rows(16)
    deltas[12:, -8:] += 6
    updates = make_updates(deltas, model=model, round=5)
    answer = run(
        updates, make_resources(model, rounds=20), ct=1, vt=0.7, v_step=0.2, vae_initial=99
    )
    assert answer.diagnostics == {"elected": 2, "picked": 9}
    assert len(kept(answer)) == 11  # 0.7 of 16, rounded down
    assert max(kept(answer)) < 12
    assert answer.verdicts[15].reason == "neither elected nor picked"


@pytest.mark.parametrize("far", [1e3, 3e38])
def test_a_decoy_in_one_parameter_is_not_picked(far, make_updates, make_resources):
    model = network()
    deltas = 0.02 * rows(12)
    deltas[11, 0] = far
    updates = make_updates(deltas, model=model)
    answer = run(updates, make_resources(model), top_down_from=1, v_step=0.5, vae_initial=60)
    assert len(kept(answer)) == 6
    assert max(kept(answer)) < 11


@pytest.mark.parametrize(
    ("rounds", "given", "first"), [(100, None, 25), (10, None, 3), (None, None, 25), (100, 7, 7)]
)
def test_when_the_top_down_election_begins(rounds, given, first, make_updates, make_resources):
    model = network()
    server = Snowball(
        SnowballArgs(**FAST, top_down_from=given), make_resources(model, rounds=rounds)
    )
    assert server.first_top_down == first
    for number in (first - 1, first):
        answer = server.aggregate(make_updates(rows(8), model=model, round=number))
        assert answer.diagnostics["picked"] == (2 if number == first else 0)


@pytest.mark.parametrize("n", [4, 10])
def test_small_rounds_elect_two(n, make_updates, make_resources):
    """Regression: of up to ten clients the authors' code elects one, and then fails."""
    model = network()
    answer = run(make_updates(rows(n), model=model), make_resources(model), top_down_from=1)
    assert len(kept(answer)) == max(2, n // 2)


def test_differences_go_both_ways_and_one_whose_sum_is_zero_counts():
    """Regression: the authors' code skips differences whose entries add up to zero."""
    elected = torch.tensor([[1.0, -1.0], [0.0, 3.0]])
    found = both_ways(elected, torch.zeros(2))
    assert found.tolist() == [[1, -1], [0, 3], [-1, 1], [0, -3]]


def test_one_seed_and_round_is_one_answer(make_updates, make_resources):
    model = network()
    first, second, other = (
        run(make_updates(rows(12), model=model, round=9), make_resources(model, seed=seed))
        for seed in (1, 1, 2)
    )
    assert first.verdicts == second.verdicts
    assert torch.equal(first.weights, second.weights)
    assert other.diagnostics == first.diagnostics


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_arrival_elects_nobody(seed, make_updates, make_resources):
    """Regression: of equal updates, the last digits of inner products decided who was elected."""
    model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    rng = torch.Generator().manual_seed(seed)
    deltas = 0.02 * torch.randn(20, ParamSpec.of(model).num_parameters, generator=rng)
    deltas[:8] = deltas[0]

    def elected(ids: list[int]) -> list:
        updates = make_updates(deltas[ids], ids=ids, model=model, round=2)
        return sorted(kept(run(updates, make_resources(model, rounds=20), elected=0.3)))

    orders = [torch.randperm(20, generator=rng).tolist() for _ in range(3)]
    assert [elected(ids) for ids in orders] == [elected(list(range(20)))] * 3


def test_small_rounds_are_refused():
    with pytest.raises(ConfigError, match="snowball needs at least 4"):
        Snowball.check(SnowballArgs(), Setting(3, 0, (1, 4)))
    Snowball.check(SnowballArgs(), Setting(4, 0, (1, 4)))
