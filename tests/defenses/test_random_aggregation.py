from math import isnan

import pytest
import torch
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses.random_aggregation import (
    RandomAggregation,
    RandomAggregationArgs,
    random_shares,
)
from entity.server.contract import Setting


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(updates, resources, **args):
    return RandomAggregation(RandomAggregationArgs(**args), resources).aggregate(updates)


def weights_of(answer) -> list[float]:
    return [verdict.weight for verdict in answer.verdicts]


def test_the_weights_are_the_normalised_draws_or_their_softmax():
    draws = torch.tensor([0.1, 0.4, 0.5]).double()
    order = [0, 1, 2]
    plain = random_shares(draws, order, softmax=False, top_k=None)
    torch.testing.assert_close(plain, draws)
    soft = random_shares(draws, order, softmax=True, top_k=None)
    torch.testing.assert_close(soft, draws.exp() / draws.exp().sum())
    best = random_shares(draws, order, softmax=False, top_k=2)
    torch.testing.assert_close(best, torch.tensor([0, 4 / 9, 5 / 9]).double())


def test_ties_for_the_last_place_go_by_the_order():
    draws = torch.tensor([0.5, 0.5, 0.5])
    assert random_shares(draws, [2, 0, 1], softmax=False, top_k=1).tolist() == [0, 0, 1]
    assert random_shares(torch.zeros(4), [0, 1, 2, 3], softmax=False, top_k=None).sum() == 1


@pytest.mark.parametrize("args", [{}, {"softmax": True}, {"top_k": 3}])
def test_the_model_is_the_mean_with_the_stated_weights(make_updates, make_resources, args):
    updates = make_updates(torch.randn(8, 20, generator=generator()))
    answer = run(updates, make_resources(updates), **args)
    weights = torch.tensor(weights_of(answer))
    assert weights.sum().item() == pytest.approx(1)
    torch.testing.assert_close(answer.weights, weights @ updates.weights)
    assert sum(weights > 0) == args.get("top_k", 8)
    assert weights.std() > 0.005
    refused = [verdict for verdict in answer.verdicts if not verdict.accepted]
    assert {verdict.reason for verdict in refused} <= {"not among the 3 highest draws"}


def test_draws_hang_on_the_seed_the_round_and_the_client_alone(make_updates, make_resources):
    deltas = torch.randn(5, 3, generator=generator())
    one = make_updates(deltas, ids=[4, 2, 0, 1, 3])
    base = run(one, make_resources(one))
    assert weights_of(base) == weights_of(run(one, make_resources(one)))
    assert weights_of(base) != weights_of(run(one, make_resources(one, seed=1)))
    late = make_updates(deltas, ids=[4, 2, 0, 1, 3], round=2)
    assert weights_of(base) != weights_of(run(late, make_resources(late)))
    fewer = make_updates(deltas[1:], ids=[2, 0, 1, 3])
    w, v = weights_of(base), weights_of(run(fewer, make_resources(fewer)))
    assert v[0] / v[3] == pytest.approx(w[1] / w[4])


def test_layers_have_draws_of_their_own_and_buffers_one_in_common(make_updates, make_resources):
    """Regression: the original mixes a BatchNorm layer's mean and variance differently."""
    model = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3))
    size = sum(parameter.numel() for parameter in model.parameters())
    rows = torch.arange(1.0, 7.0)[:, None]
    updates = make_updates(
        rows.repeat(1, size),
        model=model,
        origin=[0.0] * size,
        buffers=torch.cat([rows.repeat(1, 6), torch.full((6, 1), 9.0)], 1),
    )
    answer = run(updates, make_resources(model), granularity="layer")
    levels = [answer.weights[slot.start : slot.stop].unique() for slot in updates.spec.parameters]
    assert all(len(level) == 1 for level in levels)
    assert len(torch.cat(levels).unique()) == 4
    assert 1 <= answer.weights.min() <= answer.weights.max() <= 6
    assert len(answer.buffers[:6].unique()) == 1
    assert answer.buffers[6] == 9  # the counter
    assert all(isnan(weight) for weight in weights_of(answer))
    whole = run(updates, make_resources(model))
    assert torch.equal(whole.buffers, answer.buffers)


def test_the_server_rate_applies_in_both_modes(make_updates, make_resources):
    updates = make_updates(torch.randn(4, 6, generator=generator()))
    for granularity in ("client", "layer"):
        full, half = (
            run(updates, make_resources(updates, server_lr=rate), granularity=granularity)
            for rate in (1.0, 0.5)
        )
        torch.testing.assert_close(half.weights, (full.weights + updates.global_weights) / 2)


def test_more_winners_than_clients_are_refused_with_the_mend(make_updates, make_resources):
    with pytest.raises(ConfigError, match=r"top_k = 6: is more than federation\.round_size = 5"):
        RandomAggregation.check(RandomAggregationArgs(top_k=6), Setting(5, 0, (1, 4)))
    updates = make_updates([[1.0], [2.0]])  # a round that lost clients
    assert all(v.accepted for v in run(updates, make_resources(updates), top_k=6).verdicts)
