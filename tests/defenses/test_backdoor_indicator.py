from copy import deepcopy

import pytest
import torch
from torch import nn

from entity.defenses.backdoor_indicator import BackdoorIndicator, BackdoorIndicatorArgs
from entity.seeding import global_stream
from entity.server import OptimiserArgs, admit
from entity.server.indicator import indicator_task, label_accuracies, plant
from entity.training import Recipe, logits

FAST = {"num_indicator": 24, "epochs": 40, "lr": 0.1, "batch_size": 8, "mu": 0.01}


def network() -> nn.Module:
    with global_stream(torch.Generator().manual_seed(0)):
        return nn.Sequential(
            *(nn.Flatten(), nn.Linear(16, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3))
        )


def opened(make_resources, **changes):
    args = BackdoorIndicatorArgs(**(FAST | changes))
    return BackdoorIndicator(args, make_resources(network(), classes=3, rounds=9))


def a_round(server, make_updates, deltas, state=None, number=1):
    """Clients who add `deltas` to the model that the server sent, and keep its statistics."""
    spec = server.resources.spec
    start = spec.flatten(network()) if state is None else state
    return make_updates(
        deltas, model=network(), origin=start.weights, global_buffers=start.buffers, round=number
    )


def nothing(server, n: int) -> torch.Tensor:
    return torch.zeros(n, server.resources.spec.num_parameters)


def test_accuracies_by_hand():
    scores = torch.tensor([[2.0, 1, 0], [0, 1, 5], [0, 3, 1], [torch.nan, 0, 0], [9, 0, 0]])
    labels = torch.tensor([0, 1, 1, 0, 0])
    assert label_accuracies(scores, labels).tolist() == pytest.approx([2 / 3, 1 / 2, 0])


def test_the_task_is_noise_with_labels_spread_evenly(make_resources):
    resources = make_resources(network(), classes=3)
    x, y = indicator_task(20, resources)
    assert x.shape == (20, 1, 4, 4)
    assert -1 <= x.min() < -0.8
    assert 0.8 < x.max() <= 1
    assert sorted(y.bincount().tolist()) == [6, 7, 7]
    again, same = indicator_task(20, resources)
    assert torch.equal(x, again)
    assert torch.equal(y, same)


def test_one_step_of_planting_by_hand():
    """At the start the distance has no gradient; the second step's is the unit vector."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    start = model[1].weight.detach().clone()
    x, y = torch.tensor([[1.0, -0.5], [0.25, 1.0]]), torch.tensor([0, 1])
    weights = start.clone().double()
    for _ in range(2):
        error = (x.double() @ weights.T).softmax(1) - torch.eye(2)[y]
        away = weights - start
        pull = away / away.norm() if away.norm() > 0 else away
        weights = weights - 0.5 * (error.T @ x.double() / 2 + 0.4 * pull)
    plant(model, x, y, Recipe(0.5, 0, 0, 2, 2), 0.8, torch.Generator())
    torch.testing.assert_close(model[1].weight.double(), weights, rtol=1e-5, atol=1e-6)


def test_who_keeps_the_indicator_is_refused_and_who_forgets_it_is_averaged(
    make_updates, make_resources
):
    server = opened(make_resources)
    sent = server.aggregate(a_round(server, make_updates, nothing(server, 3))).state
    deltas = nothing(server, 4)
    rng = torch.Generator().manual_seed(5)
    deltas[2:] = 2 * torch.randn(2, deltas.shape[1], generator=rng)  # trained far away from it
    updates = a_round(server, make_updates, deltas, sent, 2)
    answer = server.aggregate(updates)
    assert [verdict.accepted for verdict in answer.verdicts] == [False, False, True, True]
    assert answer.verdicts[0].reason == "keeps a label of the indicator alive"
    assert answer.verdicts[0].score >= 0.95 > answer.verdicts[2].score


@pytest.mark.parametrize(
    ("optimiser", "rate"), [("fedavgm", 1.0), ("fedavgm", 0.1), ("fedadam", 0.01)]
)
def test_under_an_optimiser_the_indicator_is_in_the_model_that_is_sent(
    make_updates, make_resources, optimiser, rate
):
    resources = make_resources(
        network(), classes=3, rounds=9, server_lr=rate, optimiser=OptimiserArgs(optimiser)
    )
    server = BackdoorIndicator(BackdoorIndicatorArgs(**FAST), resources)
    state = None
    for number in (1, 2, 3):
        deltas = nothing(server, 3)
        if number < 3:
            rng = torch.Generator().manual_seed(number)
            deltas += 2 * torch.randn(*deltas.shape, generator=rng)
        answer = admit(server, a_round(server, make_updates, deltas, state, number))
        state = answer.state
        assert answer.diagnostics["planted"] == 1
    # In round 3 all sent back what they got in round 2, the indicator in it.
    assert not any(verdict.accepted for verdict in answer.verdicts)


def test_the_first_round_is_the_mean_with_an_indicator_and_its_own_statistics(
    make_updates, make_resources
):
    server = opened(make_resources)
    deltas = 0.1 * torch.randn(3, nothing(server, 1).shape[1], generator=torch.Generator())
    updates = a_round(server, make_updates, deltas)
    answer = server.aggregate(updates)
    assert all(verdict.accepted and verdict.score is None for verdict in answer.verdicts)
    mean = updates.weights.mean(0)
    assert 0 < (answer.weights - mean).norm() < 10
    assert torch.equal(answer.buffers, updates.global_buffers)
    assert not torch.equal(server.planted, answer.buffers)
    model = server.resources.module(answer.state._replace(buffers=server.planted))
    assert label_accuracies(logits(model, server.x), server.y).max() > 0.95
    assert label_accuracies(logits(network(), server.x), server.y).max() < 0.95


@pytest.mark.parametrize(("number", "start", "planted"), [(9, 1, 0), (2, 3, 0), (3, 3, 1)])
def test_nothing_is_planted_before_the_start_nor_in_the_last_model(
    number, start, planted, make_updates, make_resources
):
    server = opened(make_resources, start_round=start)
    updates = a_round(server, make_updates, nothing(server, 2), number=number)
    answer = server.aggregate(updates)
    assert answer.diagnostics == {"judged": 0, "planted": planted}
    assert torch.equal(answer.weights, updates.weights[0]) == (not planted)


def test_a_resumed_server_judges_as_the_one_that_went_on(make_updates, make_resources):
    server = opened(make_resources)
    sent = server.aggregate(a_round(server, make_updates, nothing(server, 3))).state
    other = opened(make_resources)
    other.load_state_dict(deepcopy(server.state_dict()))
    updates = a_round(server, make_updates, nothing(server, 3), sent, 2)
    one, two = server.aggregate(updates), other.aggregate(updates)
    assert one.verdicts == two.verdicts
    assert torch.equal(one.weights, two.weights)


def test_where_everybody_is_refused_the_model_stays_and_where_planting_diverges_it_is_sent(
    make_updates, make_resources
):
    server = opened(make_resources)
    sent = server.aggregate(a_round(server, make_updates, nothing(server, 2))).state
    updates = a_round(server, make_updates, nothing(server, 2), sent, 9)
    assert torch.equal(server.aggregate(updates).weights, sent.weights)
    wild = opened(make_resources, lr=1e30)
    updates = a_round(wild, make_updates, nothing(wild, 2))
    assert torch.equal(wild.aggregate(updates).weights, updates.weights[0])
    assert wild.planted is None


def test_the_indicator_of_a_model_that_stays_is_looked_for_again(make_updates, make_resources):
    """Regression: after a round whose answer was not finite the next one was judged by nobody."""
    made = make_resources(network(), classes=3, rounds=9, server_lr=3.0)
    server = BackdoorIndicator(BackdoorIndicatorArgs(**FAST), made)
    sent = admit(server, a_round(server, make_updates, nothing(server, 4)))
    planted = server.planted.clone()
    huge = nothing(server, 4)
    huge[:2] = 3.3e38
    kept = admit(server, a_round(server, make_updates, huge, sent.state, 2))
    assert torch.equal(kept.weights, sent.weights)
    assert torch.equal(server.planted, planted)
    again = admit(server, a_round(server, make_updates, nothing(server, 4), sent.state, 3))
    assert again.diagnostics["judged"] == 1
