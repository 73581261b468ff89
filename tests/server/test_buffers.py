"""BatchNorm statistics under attack: honest weights that come with absurd statistics."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses import DEFENSES
from entity.distill.student import Distiller
from entity.distill.training import Distillation
from entity.experiment import run
from entity.layout import ParamSpec
from entity.models import Classifier
from entity.seeding import global_stream
from entity.server.averaging import averaged_buffers
from entity.server.buffers import by_shares, central, fenced
from entity.server.contract import CleanData

MEANS, VARIANCES, COUNTER = slice(0, 5), slice(5, 10), 10
SETTINGS = {
    "flare": {"num_seed": 8},
    "fltrust": {"num_root": 8},
    "crowdguard": {"voters": 3, "samples": 4},
    "deepsight": {"num_samples": 8, "min_cluster_size": 2},
    "finetuning": {"num_seed": 8, "epochs": 1},
    "backdoor_indicator": {"num_indicator": 8, "epochs": 1},
    "snowball": {"vae_initial": 2, "vae_tuning": 1},
}
ADD_UP = {"undefended", "finetuning", "flip", "random_aggregation"}
"""Whose papers claim no bound on what one client does to the mean."""


@pytest.fixture(scope="module")
def model():
    features = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5), nn.ReLU())
    with global_stream(torch.Generator().manual_seed(0)):
        return Classifier(features, nn.Linear(5, 3))


@pytest.fixture
def open_server(make_resources, model):
    def of(name, settings=None, **changes):
        x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
        clean = CleanData(x, torch.arange(8) % 3)
        entry = DEFENSES[name]
        args = entry.hyperparameters(**(settings or SETTINGS.get(name, {})))
        return entry(args, make_resources(model, clean=clean, classes=3, **changes))

    return of


@pytest.fixture
def a_round(make_updates, model):
    def of(n, seed=0, bad=None, value=0.0, columns=slice(None)):
        """n honest clients; statistics `columns` of client `bad` are `value`."""
        rng = np.random.default_rng(seed)
        size = sum(parameter.numel() for parameter in model.parameters())
        buffers = rng.uniform(0.5, 2, size=(n, 11))
        buffers[:, COUNTER] = rng.integers(5, 9, size=n)
        if bad is not None:
            buffers[bad, columns] = value
        start = [0.5] * 5 + [1.0] * 5 + [5.0]
        deltas = 0.1 * rng.normal(size=(n, size))
        return make_updates(deltas, model=model, buffers=buffers, global_buffers=start)

    return of


# The median


def test_the_median_is_numpys_and_counters_stay_whole():
    rows = torch.tensor([[1.0, 3.0], [2.0, 4.0], [9.0, 5.0], [-7.0, 8.0]])
    everybody = torch.ones(4, dtype=torch.bool)
    counters = torch.tensor([False, True])
    assert central(rows, everybody, counters).tolist() == [1.5, 4.0]  # 4.5 batches are 4
    three = torch.tensor([True, True, True, False])
    assert central(rows, three, counters).tolist() == [2.0, 4.0]


def test_two_of_the_largest_numbers_do_not_overflow():
    rows = torch.full((4, 1), 3e38)
    everybody, counters = torch.ones(4, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    assert central(rows, everybody, counters).tolist() == [pytest.approx(3e38)]


def test_fewer_than_three_accepted_are_no_majority_so_the_whole_round_decides():
    rows = torch.tensor([[3e38], [1.0], [2.0], [4.0], [3.0]])
    counters = torch.zeros(1, dtype=torch.bool)
    for accepted in ([True, False, False, False, False], [True, True, False, False, False]):
        assert central(rows, torch.tensor(accepted), counters).tolist() == [3.0]


def test_a_round_of_one_client_has_its_buffers():
    row = torch.tensor([[7.0, 2.0]])
    counters = torch.tensor([False, True])
    assert central(row, torch.tensor([True]), counters).tolist() == [7.0, 2.0]


def test_weights_of_clients_do_not_matter(open_server, a_round):
    updates = a_round(5)
    shares = torch.tensor([0.9, 0.05, 0.05, 0.0, 0.0], dtype=torch.float64)
    policy = open_server("krum").resources.averaging
    expected = np.median(updates.buffers[:3].numpy().astype(float), axis=0)
    found = averaged_buffers(updates, shares, policy)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


WITHOUT_MAJORITY = ("backdoor_indicator", "foolsgold", "fltrust")


def test_by_shares_is_the_median_of_as_many_copies():
    rng = np.random.default_rng(0)
    for n in range(1, 8):
        rows = torch.from_numpy(rng.normal(size=(n, 6))).float()
        copies = rng.integers(0, 4, size=n)
        copies[0] += 1
        many = np.repeat(rows.double().numpy(), copies, axis=0)
        counters = torch.tensor([False] * 5 + [True])
        found = by_shares(rows, torch.from_numpy(copies / copies.sum()), counters)
        expected = np.median(many, axis=0)
        expected[5] = np.floor(expected[5].astype(np.float32))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", WITHOUT_MAJORITY)
def test_where_no_majority_is_needed_the_refused_do_not_vote(name, open_server, a_round):
    """Of seven two and then three are trusted, as much as each other, and four lie."""
    updates = a_round(7)
    updates.buffers[3:] = 900.0
    server = open_server(name)
    shares = torch.tensor([0.32, 0.32, 0.32, 0.01, 0.01, 0.01, 0.01], dtype=torch.float64)
    found = server.average(updates, shares).buffers
    between(found, updates.buffers[:3].amin(0), updates.buffers[:3].amax(0))
    two = torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0], dtype=torch.float64)
    assert torch.equal(server.average(updates, two).buffers, updates.global_buffers)


def test_those_that_need_no_majority_are_the_ones_that_say_so():
    assert {n for n, entry in DEFENSES.items() if not entry.by_majority} == {*WITHOUT_MAJORITY}
    assert not any(
        DEFENSES[n].needs(DEFENSES[n].hyperparameters()).honest_majority for n in WITHOUT_MAJORITY
    )


def test_without_anybody_the_global_statistics_stay(open_server, a_round):
    updates, server = a_round(5), open_server("droplet")
    nobody = torch.zeros(5, dtype=torch.float64)
    assert torch.equal(server.average(updates, nobody).buffers, updates.global_buffers)
    assert torch.equal(server.combine_buffers(updates, nobody), updates.global_buffers)


# Every defense


def test_those_that_add_up_are_the_ones_that_say_so():
    assert {name for name, entry in DEFENSES.items() if not entry.robust} == ADD_UP


def between(found, low, high):
    assert found.isfinite().all()
    assert (found >= low - 1e-6).all()
    assert (found <= high + 1e-6).all()
    assert (found[VARIANCES] >= 0).all()
    assert found[COUNTER] == found[COUNTER].round()


@pytest.mark.parametrize(
    "value", [3e38, *(pytest.param(v, marks=pytest.mark.slow) for v in (-3e38, 1e30, 0.0)), -1.0]
)
@pytest.mark.parametrize("name", sorted(DEFENSES.keys() - ADD_UP))
def test_one_bad_node_of_seven_moves_no_statistic_beyond_the_honest_range(
    name, value, open_server, a_round
):
    for bad in range(7):
        updates = a_round(7, seed=bad, bad=bad, value=value)
        honest = updates.buffers[[row for row in range(7) if row != bad]]
        # Statistics of a clipped update are on the way from the global model's.
        range_ = torch.cat([honest, updates.global_buffers[None]])
        answer = open_server(name).aggregate(updates)
        between(answer.buffers, range_.amin(0), range_.amax(0))


@pytest.mark.parametrize("name", sorted(DEFENSES.keys() - ADD_UP))
def test_three_colluders_of_seven_move_none_beyond_it_either_where_all_are_accepted(
    name, open_server, a_round
):
    updates = a_round(7)
    updates.buffers[:3] = 3e38
    everybody = torch.full((7,), 1 / 7, dtype=torch.float64)
    found = open_server(name).average(updates, everybody).buffers
    between(found, updates.buffers[3:].amin(0), updates.buffers[3:].amax(0))


@pytest.mark.parametrize("name", sorted(ADD_UP))
def test_fedavg_and_its_like_take_the_mean(name, open_server, a_round):
    updates = a_round(7)
    server = open_server(name)
    everybody = torch.full((7,), 1 / 7, dtype=torch.float64)
    found = server.average(updates, everybody).buffers
    np.testing.assert_allclose(found[:10], updates.buffers[:, :10].mean(0), rtol=1e-6)
    median = open_server(name, bn_policy="median").average(updates, everybody).buffers
    np.testing.assert_allclose(median, updates.buffers.median(0).values, rtol=1e-6)


@pytest.mark.parametrize("name", ["droplet", "median", "trimmed_mean", "bulyan", "krum"])
def test_the_mean_stays_available_by_name(name, open_server, a_round):
    updates = a_round(7, bad=2, value=3e38)
    updates = replace(updates, weights=updates.weights[:1].repeat(7, 1))  # all alike
    plain = open_server(name, bn_policy="weighted").aggregate(updates).buffers
    robust = open_server(name).aggregate(updates).buffers
    assert not torch.equal(plain, robust)
    assert robust.amax() < 10


def test_factors_of_clipped_updates_cannot_make_nan_of_huge_statistics(open_server, a_round):
    updates = a_round(7, bad=0, value=3e38)
    updates = replace(updates, global_buffers=torch.full((11,), -3e38))
    factors = torch.tensor([0.0, *[0.5] * 6])
    for policy in ("median", "weighted"):
        server = open_server("norm_clipping", bn_policy=policy)
        found = server.average_scaled(updates, torch.full((7,), 1 / 7), factors)
        assert found.buffers.isfinite().all()


# Models that are used one by one


def test_the_fence_is_hampels_in_numpy(model):
    spec = ParamSpec.of(model)
    rows = np.random.default_rng(4).uniform(0.5, 2, size=(9, 11)).astype(np.float32)
    rows[2], rows[5, :5], rows[7, 5:10] = 3e38, -1e30, 1e-20
    everybody = torch.ones(9, dtype=torch.bool)
    found = fenced(torch.from_numpy(rows), everybody, spec).double().numpy()
    logs = rows.astype(np.float64)
    logs[:, VARIANCES] = np.log(logs[:, VARIANCES] + 1e-5)
    middle = np.median(logs, axis=0)
    reach = 3 * 1.4826 * np.median(np.abs(logs - middle), axis=0)
    expected = np.clip(logs, middle - reach, middle + reach)
    expected[:, VARIANCES] = np.exp(expected[:, VARIANCES]) - 1e-5
    np.testing.assert_allclose(found[:, :COUNTER], expected[:, :COUNTER], rtol=1e-5)
    inside = (logs == np.clip(logs, middle - reach, middle + reach))[:, :COUNTER]
    assert (found[:, :COUNTER][inside] == rows[:, :COUNTER][inside]).all()  # to the bit
    assert (found[:, COUNTER] == rows[:, COUNTER]).all()
    assert 0.5 < inside.mean() < 0.9


@pytest.mark.parametrize("n", [1, 2])
def test_where_there_is_no_majority_the_fence_leaves_everybody_alone(a_round, n):
    updates = a_round(n)
    everybody = torch.ones(n, dtype=torch.bool)
    assert torch.equal(fenced(updates.buffers, everybody, updates.spec), updates.buffers)


def test_a_negative_variance_becomes_one_within_the_fence(a_round):
    updates = a_round(7, bad=3, value=-1.0, columns=VARIANCES)
    everybody = torch.ones(7, dtype=torch.bool)
    found = fenced(updates.buffers, everybody, updates.spec)
    assert (found[3, VARIANCES] >= 0).all()
    assert torch.equal(found[3, MEANS], updates.buffers[3, MEANS])


@pytest.mark.parametrize("value", [3e38, -3e38, 0.0])
def test_an_admitted_teacher_s_statistics_come_to_those_of_the_others(
    open_server, a_round, monkeypatch, value
):
    seen = []

    def distil(self, round, states, start, averaged):
        seen.extend(states)
        return None, Distillation()

    monkeypatch.setattr(Distiller, "distil", distil)
    settings = {"K": 1, "client_cluster_filtering": False}
    updates = a_round(7, bad=3, value=value, columns=slice(0, 10))
    honest = updates.buffers[[row for row in range(7) if row != 3]]
    open_server("drop", settings).aggregate(updates)
    teacher = seen[3].buffers
    span = honest.amax(0) - honest.amin(0)
    assert ((teacher - honest.median(0).values).abs() <= 4.5 * span)[MEANS].all()
    ratio = honest[:, VARIANCES].amax(0) / honest[:, VARIANCES].amin(0)
    assert (teacher[VARIANCES] <= honest[:, VARIANCES].amax(0) * ratio**4.5).all()
    assert (teacher[VARIANCES] >= honest[:, VARIANCES].amin(0) / ratio**4.5 - 1e-4).all()
    assert torch.equal(seen[3].weights, updates.weights[3])
    seen.clear()
    open_server("drop", settings, bn_policy="weighted").aggregate(updates)
    assert torch.equal(seen[3].buffers, updates.buffers[3])


# Streaming


STREAMED = {
    "model": "resnet8",
    "settings.streaming": True,
    "server.defense": {"type": "norm_clipping", "defense_args": {"c": 1.0}},
}


def test_a_robust_defense_does_not_stream_a_model_with_statistics(experiment, tmp_path):
    config = experiment(STREAMED)
    with pytest.raises(ConfigError, match=r"server\.bn_policy = auto: .* weighted"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [{"server.bn_policy": "keep"}, {"model": "cnn"}, {"server.defense": None}],
    ids=["named policy", "no statistics", "FedAvg"],
)
def test_others_stream_as_ever(experiment, changes):
    small = {"federation.rounds": 1, "federation.round_size": 1, "federation.size": 8}
    found = run(experiment({**STREAMED, "dataset": "mnist5k", **small, **changes}))
    assert not math.isnan(found.rounds[-1]["mta"])
