import numpy as np
import pytest
import torch
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses.deepsight import (
    DeepSight,
    DeepSightArgs,
    judge,
)
from entity.models import Classifier
from entity.seeding import global_stream
from entity.server.contract import Setting
from entity.server.density import separation

CLASSES, WIDTH = 4, 5


def classifier() -> Classifier:
    features = nn.Sequential(nn.Flatten(), nn.Linear(16, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())
    return Classifier(features, nn.Linear(WIDTH, CLASSES))


@pytest.fixture(scope="module")
def model() -> Classifier:
    with global_stream(torch.Generator().manual_seed(0)):
        return classifier()


def layout(model: nn.Module) -> dict[str, slice]:
    places, start = {}, 0
    for name, parameter in model.named_parameters():
        places[name] = slice(start, start + parameter.numel())
        start += parameter.numel()
    return places


def crowd(model: nn.Module, benign: int, malicious: int) -> torch.Tensor:
    """Honest clients who move all classes alike, and attackers who move one row of the head."""
    rng = torch.Generator().manual_seed(1)
    size = sum(parameter.numel() for parameter in model.parameters())
    common = torch.randn(size, generator=rng)
    rows = common + 0.3 * torch.randn(benign + malicious, size, generator=rng)
    places = layout(model)
    bad = rows[benign:]
    bad[:, places["head.weight"]] = 0
    bad[:, places["head.bias"]] = 0
    start = places["head.weight"].start
    bad[:, start : start + WIDTH] = 2 + 0.1 * torch.rand(malicious, WIDTH, generator=rng)
    bad[:, places["head.bias"].start] = 2
    return 0.1 * rows


def run(updates, resources, **args):
    settings = {"num_samples": 64, "batch_size": 40, "min_cluster_size": 3} | args
    return DeepSight(DeepSightArgs(**settings), resources).aggregate(updates)


def resources_for(make_resources, model):
    return make_resources(model, classes=CLASSES)


def test_a_client_that_moves_one_output_row_has_one_exceeding(make_updates, make_resources, model):
    updates = make_updates(crowd(model, 8, 1), model=model)
    answer = run(updates, resources_for(make_resources, model))
    assert answer.verdicts[8].score == 1
    assert min(verdict.score for verdict in answer.verdicts[:8]) > 1


@pytest.mark.parametrize(("benign", "bad"), [(7, 2), (7, 3), (17, 3), (6, 3), (8, 4), (14, 6)])
def test_fewer_attackers_than_a_cluster_are_judged_alone(
    benign, bad, make_updates, make_resources, model
):
    """With the default size of clusters nobody, or no attacker, shares one with anybody."""
    updates = make_updates(crowd(model, benign, bad), model=model)
    answer = run(updates, resources_for(make_resources, model), min_cluster_size=5)
    assert [verdict.accepted for verdict in answer.verdicts] == [True] * benign + [False] * bad


def test_concentrated_clients_are_refused_and_the_rest_is_clipped(
    make_updates, make_resources, model
):
    updates = make_updates(crowd(model, 8, 4), model=model)
    answer = run(updates, resources_for(make_resources, model))
    assert [verdict.accepted for verdict in answer.verdicts] == [True] * 8 + [False] * 4
    norms = updates.norms
    factors = (norms.quantile(0.5) / norms[:8]).clamp(max=1)
    expected = (factors[:, None] * updates.deltas[:8].double()).mean(0).float()
    torch.testing.assert_close(answer.weights - updates.global_weights, expected)
    assert answer.diagnostics["clip_norm"] == pytest.approx(float(norms.quantile(0.5)))


@pytest.mark.parametrize(("bad", "accepted"), [(0, True), (1, True), (2, False), (4, False)])
def test_a_cluster_is_accepted_for_few_suspicious_members_and_not_for_few_benign(bad, accepted):
    """Regression: a public port accepts clusters with less than a third of benign members."""
    found, reasons = judge([0] * 4, [True] * bad + [False] * (4 - bad), 1 / 3)
    assert found == [accepted] * 4
    assert set(reasons.values()) == (set() if accepted else {"in a suspicious cluster"})


def test_a_third_of_suspicious_members_is_too_much():
    assert judge([0] * 3, [True, False, False], 1 / 3)[0] == [False] * 3


def test_clients_in_no_cluster_are_judged_alone():
    accepted, reasons = judge([-1, -1, 2], [True, False, False], 1 / 3)
    assert accepted == [False, True, True]
    assert reasons == {0: "concentrated output layer"}


def test_two_clients_without_a_cluster_are_not_together():
    assert separation([-1, -1, 0, 0]).tolist() == [
        [0, 1, 1, 1],
        [1, 0, 1, 1],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
    ]


def test_division_differences_divide_probabilities(make_updates, make_resources, model):
    """Regression: ports divide raw logits, whose signs and zeros have no meaning."""
    updates = make_updates(crowd(model, 3, 0), model=model)
    args = DeepSightArgs(num_samples=50, batch_size=20)
    server = DeepSight(args, resources_for(make_resources, model))
    found = server._division_differences(updates, 1)
    noise = torch.cat(list(server._noise(1)))
    assert noise.shape == (50, 1, 4, 4)
    assert -1 <= noise.min() < -0.9 < 0.9 < noise.max() <= 1

    def probabilities(state) -> np.ndarray:
        module = server.resources.module(state).eval()
        with torch.no_grad():
            logits = module(noise).double().numpy()
        odds = np.exp(logits - logits.max(1, keepdims=True))
        return odds / odds.sum(1, keepdims=True)

    before = probabilities(updates.global_state)
    expected = [(probabilities(updates.state(row)) / before).mean(0) for row in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert not torch.allclose(found, server._division_differences(updates, 0))


def test_an_unchanged_model_answers_noise_as_before(make_updates, make_resources, model):
    updates = make_updates(torch.zeros_like(crowd(model, 2, 0)), model=model)
    server = DeepSight(DeepSightArgs(num_samples=8), resources_for(make_resources, model))
    torch.testing.assert_close(
        server._division_differences(updates, 0), torch.ones(2, CLASSES).double()
    )


def test_an_overflowing_client_does_not_spoil_the_others(make_updates, make_resources, model):
    rows = crowd(model, 8, 1)
    rows[8] *= 1e25
    updates = make_updates(rows, model=model)
    answer = run(updates, resources_for(make_resources, model))
    assert all(verdict.accepted for verdict in answer.verdicts[:8])
    moved = (answer.weights - updates.global_weights).norm()
    assert moved <= answer.diagnostics["clip_norm"] * 1.001


def test_a_head_without_bias_is_judged_by_its_rows(make_updates, make_resources):
    bare = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES, bias=False))
    deltas = torch.randn(5, 64, generator=torch.Generator().manual_seed(3))
    updates = make_updates(deltas, model=bare)
    assert len(run(updates, resources_for(make_resources, bare)).verdicts) == 5


def test_small_rounds_are_refused_with_the_mend():
    with pytest.raises(ConfigError, match=r"deepsight needs at least 4 clients .* raise it"):
        DeepSight.check(DeepSightArgs(), Setting(3, 0, (1, 4)))


def test_a_group_that_one_clustering_tells_apart_is_not_joined_to_the_rest():
    """Attackers with output biases of their own, and nothing else to see: one of three does."""
    rows = torch.zeros(20, 4).double()
    rows[:14, 0], rows[14:, 1] = 1.0, 1.0
    alike = torch.zeros(20, CLASSES).double()
    defense = DeepSight.__new__(DeepSight)
    defense.args = DeepSightArgs()
    labels = defense._cluster(rows @ rows.T, alike, [alike], tuple(range(20)))
    assert labels[:14] == [labels[0]] * 14
    assert labels[14:] == [labels[14]] * 6
    assert labels[0] != labels[14]
    accepted, _ = judge(labels, [False] * 14 + [True] * 6, 1 / 3)
    assert accepted == [True] * 14 + [False] * 6


def test_too_few_for_two_clusters_is_said(make_updates, make_resources, model, caplog):
    updates = make_updates(crowd(model, 6, 3), model=model)
    run(updates, resources_for(make_resources, model), min_cluster_size=5)
    assert "with 9 clients there are no two clusters: all are judged alone" in caplog.text
    caplog.clear()
    run(updates, resources_for(make_resources, model), min_cluster_size=4)
    assert not caplog.text
