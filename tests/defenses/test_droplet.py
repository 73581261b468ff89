import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses import DEFENSES, Droplet, DropletArgs
from entity.layout import ParamSpec
from entity.server import CleanData, Needs, Setting
from entity.server import admit as pass_gate


@pytest.fixture
def droplet(make_resources):
    """A DROPlet with the experiments' reward of one half, unless told otherwise."""

    def make(updates, resources=None, **changes):
        args = DropletArgs(**({"reward": 0.5} | changes))
        return Droplet(args, resources or make_resources(updates))

    return make


def weights_of(model):
    return ParamSpec.of(model).flatten(model).weights


def accepted(answer):
    return {verdict.client for verdict in answer.verdicts if verdict.accepted}


BENIGN = [(0.0, 0.1), (0.1, 0.0), (0.1, 0.1), (0.0, 0.0)]
FAR = [(9.0, 9.0), (9.1, 9.0)]


def test_far_colluders_are_excluded_exactly(make_updates, droplet):
    updates = make_updates([*BENIGN, *FAR], origin=[2, -1])
    answer = droplet(updates).aggregate(updates)
    assert accepted(answer) == {0, 1, 2, 3}
    torch.testing.assert_close(answer.weights, torch.tensor([2.05, -0.95]))
    assert [v.weight for v in answer.verdicts] == [0.25] * 4 + [0, 0]
    assert [v.score for v in answer.verdicts] == [0] * 4 + [1, 1]
    assert answer.verdicts[5].reason == "1 penalty points"


def test_identical_benign_clients_against_two_colluders(make_updates, droplet):
    updates = make_updates([(1, 2)] * 5 + [(40, -3), (40, -3.5)])
    answer = droplet(updates).aggregate(updates)
    assert accepted(answer) == {0, 1, 2, 3, 4}
    assert torch.equal(answer.weights, updates.weights[0])


def test_what_counts_is_the_update_and_not_the_model(make_updates, droplet):
    for origin in ([0, 0], [500, -300]):
        updates = make_updates([*BENIGN, *FAR], origin=origin)
        assert accepted(droplet(updates).aggregate(updates)) == {0, 1, 2, 3}


def test_statistics_and_counters_take_no_part_in_the_clustering(make_updates, droplet):
    buffers = [[float(100 * (i % 2)), 5.0 * i] for i in range(6)]
    updates = make_updates([*BENIGN, *FAR], buffers=buffers)
    assert accepted(droplet(updates).aggregate(updates)) == {0, 1, 2, 3}


def test_a_flagged_client_returns_at_its_second_good_round_in_a_row(make_updates, droplet):
    server, history = None, []
    for far in (True, False, False, True, True, False, False, False, False):
        updates = make_updates([*BENIGN, FAR[0] if far else (0.05, 0.05), FAR[1]])
        server = server or droplet(updates)
        answer = server.aggregate(updates)
        assert accepted(answer) >= {0, 1, 2, 3}
        history.append((answer.verdicts[4].score, answer.verdicts[4].accepted))
    assert [points for points, _ in history] == [1, 0.5, 0, 1, 2, 1.5, 1, 0.5, 0]
    assert [n for n, (_, kept) in enumerate(history, 1) if kept] == [3, 9]


def test_identity_is_the_client_and_not_its_place_in_the_round(make_updates, droplet):
    first = make_updates([*BENIGN, FAR[0]], ids=[1, 2, 3, 4, 5])
    server = droplet(first)
    server.aggregate(first)
    second = make_updates([*BENIGN, (0.05, 0.05), FAR[0]], ids=[5, 6, 7, 8, 1, 2])
    assert accepted(server.aggregate(second)) == {6, 7, 8, 1}
    assert [server.activity.points(client) for client in (5, 2, 1)] == [0.5, 1, 0]


def test_with_nobody_admitted_the_model_stays_and_points_are_booked(make_updates, droplet):
    updates = make_updates([*BENIGN, FAR[0]], buffers=[[1.0]] * 5, global_buffers=[0.25])
    server = droplet(updates)
    points = [[client, 1.0] for client in range(5)]
    server.activity.load_state_dict({"points": points, "blacklist": []})
    answer = server.aggregate(updates)
    assert accepted(answer) == set()
    assert torch.equal(answer.weights, updates.global_weights)
    assert answer.buffers.tolist() == [0.25]
    assert [v.score for v in answer.verdicts] == [0.5] * 4 + [2]
    assert accepted(server.aggregate(updates)) == {0, 1, 2, 3}


def test_a_blacklisted_client_stays_out_for_ever(make_updates, droplet):
    outlier = make_updates([*BENIGN, FAR[0]])
    server = droplet(outlier, reward=None, blacklist_threshold=2.0)
    server.aggregate(outlier)
    server.aggregate(outlier)
    for _ in range(4):
        answer = server.aggregate(make_updates([*BENIGN, (0.05, 0.05), FAR[1]]))
    assert answer.verdicts[4].score == 0
    assert not answer.verdicts[4].accepted
    assert answer.verdicts[4].reason == "blacklisted"


def test_without_filtering_it_is_fedavg(make_updates, droplet):
    updates = make_updates([*BENIGN, *FAR])
    server = droplet(updates, client_cluster_filtering=False)
    answer = server.aggregate(updates)
    assert accepted(answer) == set(range(6))
    torch.testing.assert_close(answer.weights, updates.weights.mean(0))
    assert server.activity.points(4) == 0


def test_min_separation_accepts_everybody_where_no_two_groups_show(make_updates, droplet):
    ring = [(math.cos(k), math.sin(k)) for k in range(6)]
    noise = make_updates(ring)
    forced = droplet(noise).aggregate(noise)
    assert len(accepted(forced)) < 6
    assert 1 <= forced.diagnostics["separation"] < 3
    server = droplet(noise, min_separation=3.0)
    assert accepted(server.aggregate(noise)) == set(range(6))
    attacked = make_updates([*BENIGN, *FAR])
    answer = droplet(attacked, min_separation=3.0).aggregate(attacked)
    assert accepted(answer) == {0, 1, 2, 3}


def test_min_separation_rewards_everybody_it_accepts(make_updates, droplet):
    noise = make_updates([(math.cos(k), math.sin(k)) for k in range(6)])
    server = droplet(noise, min_separation=3.0)
    server.activity.observe([], [2])
    server.aggregate(noise)
    assert server.activity.points(2) == 0.5


# Ties


def test_a_tie_goes_to_the_group_with_fewer_points(make_updates, droplet):
    updates = make_updates([0.0, 0.1, 5.0, 5.1])
    for guilty, kept in ((0, {2, 3}), (3, {0, 1})):
        server = droplet(updates)
        server.activity.observe([], [guilty])
        assert accepted(server.aggregate(updates)) == kept


def test_then_to_the_tighter_one(make_updates, droplet):
    for deltas, kept in (([0, 1, 10, 10.5], {2, 3}), ([0, 0.5, 10, 11], {0, 1})):
        updates = make_updates(deltas)
        assert accepted(droplet(updates).aggregate(updates)) == kept


def test_then_to_the_one_with_the_lowest_id(make_updates, droplet):
    for ids, kept in (([3, 12, 5, 100], {3, 12}), ([30, 12, 5, 100], {5, 100})):
        updates = make_updates([0, 1, 10, 11], ids=ids)
        assert accepted(droplet(updates).aggregate(updates)) == kept


def test_fewer_points_beat_a_tighter_group_but_not_a_larger_one(make_updates, droplet):
    updates = make_updates([0, 1, 10, 10.5])
    server = droplet(updates)
    server.activity.observe([], [2])
    assert accepted(server.aggregate(updates)) == {0, 1}
    updates = make_updates([0, 10, 10.5])
    server = droplet(updates, reward=5.0)
    server.activity.observe([], [1])
    assert accepted(server.aggregate(updates)) == {1, 2}


# Very small rounds


def test_one_client_is_its_own_majority(make_updates, droplet):
    updates = make_updates([(3, 4)])
    answer = droplet(updates).aggregate(updates)
    assert accepted(answer) == {0}
    assert torch.equal(answer.weights, updates.weights[0])


def test_two_clients_are_kept_unless_unusually_far_apart(make_updates, droplet):
    usual = make_updates([0.0, 1.0, 2.0, 3.0, 8.0])
    pairs = ((0.5, {0, 1}), (6.0, {0, 1}), (6.5, {0}))  # the median distance is 3
    for apart, kept in pairs:
        server = droplet(usual)
        server.aggregate(make_updates([0.0, 1.0, 3.0, 6.0, 4.0], ids=[10, 11, 12, 13, 14]))
        pairwise = np.abs(np.subtract.outer([0, 1, 3, 6, 4], [0, 1, 3, 6, 4]))
        assert np.median(pairwise[np.triu_indices(5, 1)]) == 3
        assert accepted(server.aggregate(make_updates([0.0, apart]))) == kept
    assert accepted(droplet(usual).aggregate(make_updates([0.0, 1e6]))) == {0, 1}


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_identical_and_zero_updates_are_all_kept(make_updates, droplet, n):
    for delta in ((0, 0), (1, 3)):
        updates = make_updates([delta] * n)
        answer = droplet(updates).aggregate(updates)
        assert accepted(answer) == set(range(n))
        assert torch.equal(answer.weights, updates.weights[0])


# Order and state


rounds = st.lists(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=7, max_size=7),
    min_size=1,
    max_size=3,
)


@given(rounds, st.permutations(range(7)), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_clients_changes_nothing(make_updates, make_resources, data, order, n):
    order = [client for client in order if client < n]
    first = make_updates(data[0][:n])
    args = DropletArgs(reward=0.5)
    one, two = (Droplet(args, make_resources(first)) for _ in range(2))
    for deltas in data:
        straight = one.aggregate(make_updates(deltas[:n]))
        mixed = two.aggregate(make_updates([deltas[i] for i in order], ids=order))
        assert accepted(straight) == accepted(mixed)
        by_client = {v.client: v for v in mixed.verdicts}
        assert [by_client[v.client] for v in straight.verdicts] == list(straight.verdicts)
        torch.testing.assert_close(straight.weights, mixed.weights)


def test_a_state_that_went_through_json_continues_identically(make_updates, make_resources):
    rng = np.random.default_rng(0)
    args = DropletArgs(penalty=1.0, reward=1 / 3, blacklist_threshold=4.0)

    def round_of(size):
        chosen = sorted(rng.choice(9, size, replace=False).tolist())
        names = [c if c % 2 else f"node-{c}" for c in chosen]
        return make_updates(rng.normal(size=(size, 3)), ids=names)

    played = [round_of(size) for size in (6, 2, 5, 6, 3, 6)]
    coming = [round_of(size) for size in (5, 2, 6, 2, 6, 6)]
    resources = make_resources(played[0])
    one, two = Droplet(args, resources), Droplet(args, resources)
    for updates in played:
        one.aggregate(updates)
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for updates in coming:
        a, b = one.aggregate(updates), two.aggregate(updates)
        assert a.verdicts == b.verdicts
        assert torch.equal(a.weights, b.weights)
    assert one.state_dict() == two.state_dict()
    fresh = Droplet(args, resources)
    assert [fresh.aggregate(u).verdicts for u in coming] != [one.aggregate(u) for u in coming]


def test_the_distances_seen_survive_a_restart(make_updates, droplet):
    usual, pair = make_updates([0.0, 1.0, 3.0, 6.0, 4.0]), make_updates([0.0, 9.0], ids=[10, 11])
    server, restored = droplet(usual), droplet(usual)
    server.aggregate(usual)
    restored.load_state_dict(json.loads(json.dumps(server.state_dict())))
    assert accepted(restored.aggregate(pair)) == {10}
    assert accepted(droplet(usual).aggregate(pair)) == {10, 11}


def test_the_tree_of_the_round_is_kept_and_names_its_rows(make_updates, droplet):
    updates = make_updates([0, 1, 2.5, 10, 11], ids=[8, 3, 5, 1, 9])
    answer = droplet(updates).aggregate(updates)
    merged = [set(row[:2].astype(int)) for row in answer.artifacts["linkage"].numpy()[:2]]
    assert merged in ([{0, 1}, {3, 4}], [{3, 4}, {0, 1}])
    assert answer.diagnostics["separation"] > 3


# The reference model


@pytest.fixture
def trained(make_updates, make_resources):
    """Two benign clients near what clean data teaches, and four colluders far from it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(80, 1, 2, 2, generator=rng)
    resources = make_resources(model, clean=CleanData(x, (x[:, 0, 0, 0] > 0).long()))
    noise = 0.01 * torch.randn(6, 10, generator=rng)
    noise[2:] += 30
    return make_updates(noise, model=model, origin=weights_of(model)), resources


def test_the_reference_model_picks_the_benign_group_against_a_majority(trained, droplet):
    updates, resources = trained
    plain = droplet(updates, resources).aggregate(updates)
    assert accepted(plain) == {2, 3, 4, 5}
    answer = droplet(updates, resources, reference_model=True).aggregate(updates)
    assert accepted(answer) == {0, 1}
    assert [v.client for v in answer.verdicts] == list(range(6))
    torch.testing.assert_close(answer.weights, updates.weights[:2].mean(0))
    assert [v.score for v in answer.verdicts] == [0, 0, 1, 1, 1, 1]


def test_the_reference_model_learns_from_the_clean_labels(trained, droplet, make_updates):
    # Two groups lie to both sides of the global model, one where the labels pull the weights.
    _, resources = trained
    model = resources.build(torch.Generator())
    taught = torch.zeros(10)
    taught[[0, 4]] = torch.tensor([-0.1, 0.1])  # class 1 is where the first pixel is bright
    jitter = 0.001 * torch.randn(6, 10, generator=torch.Generator().manual_seed(1))
    sides = torch.tensor([1.0, 1, 1, -1, -1, -1])[:, None]
    updates = make_updates(sides * taught + jitter, model=model, origin=weights_of(model))
    answer = droplet(updates, resources, reference_model=True).aggregate(updates)
    assert accepted(answer) == {0, 1, 2}
    flipped = replace(resources, clean=resources.clean._replace(y=1 - resources.clean.y))
    answer = droplet(updates, flipped, reference_model=True).aggregate(updates)
    assert accepted(answer) == {3, 4, 5}


def test_a_reference_that_stands_alone_accuses_nobody(trained, droplet, make_updates):
    _, resources = trained
    model = resources.build(torch.Generator())
    rows = 30 + 0.01 * torch.randn(5, 10, generator=torch.Generator().manual_seed(1))
    updates = make_updates(rows, model=model, origin=weights_of(model))
    answer = droplet(updates, resources, reference_model=True).aggregate(updates)
    assert accepted(answer) == set(range(5))


def test_a_reference_that_diverges_accuses_nobody(trained, droplet, make_updates):
    """A global model that an attacker blew up, of which nothing can be learnt."""
    _, resources = trained
    model = resources.build(torch.Generator())
    start = 1e25 * weights_of(model)
    updates = make_updates(1e20 * torch.ones(5, 10), model=model, origin=start)
    answer = droplet(updates, resources, reference_model=True).aggregate(updates)
    assert accepted(answer) == set(range(5))


# What it asks for and refuses


def test_needs():
    assert Droplet.needs(DropletArgs()) == Needs(
        client_identity=True, individual_updates=True, honest_majority=True
    )
    assert Droplet.needs(DropletArgs(reference_model=True)) == Needs(
        clean_data=True, clean_labels=True, client_identity=True, individual_updates=True
    )


def test_defaults_are_the_originals():
    args = DropletArgs()
    assert (args.client_cluster_filtering, args.penalty, args.reward) == (True, 1.0, None)
    assert (args.blacklist_threshold, args.reference_model) == (None, False)
    assert args.min_separation is None
    assert DEFENSES["droplet"] is Droplet


def test_a_round_without_a_majority_is_refused_with_the_mend():
    setting = Setting(2, 100, (1, 28))
    with pytest.raises(ConfigError) as caught:
        Droplet.check(DropletArgs(), setting)
    for word in ("federation.round_size = 2", "at least 3", "client_cluster_filtering to false"):
        assert word in str(caught.value)
    Droplet.check(DropletArgs(client_cluster_filtering=False), setting)
    Droplet.check(DropletArgs(), setting._replace(round_size=3))


def test_a_reference_model_without_clean_data_is_refused_with_the_mend():
    setting = Setting(5, 0, (1, 28))
    with pytest.raises(ConfigError) as caught:
        Droplet.check(DropletArgs(reference_model=True), setting)
    for word in ("reference_model = true", "raise server.held_out"):
        assert word in str(caught.value)
    Droplet.check(DropletArgs(reference_model=True), setting._replace(clean_samples=10))


def test_a_client_with_nan_costs_nobody_else_anything(make_updates, droplet):
    updates = make_updates([*BENIGN, (math.nan, 0.0), FAR[0]])
    answer = pass_gate(droplet(updates), updates)
    assert accepted(answer) == {0, 1, 2, 3}
    assert answer.weights.isfinite().all()


def test_the_reference_draws_from_named_streams_alone(trained, droplet):
    updates, resources = trained
    before = torch.get_rng_state()
    one = droplet(updates, resources, reference_model=True).aggregate(updates)
    two = droplet(updates, resources, reference_model=True).aggregate(updates)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.diagnostics == two.diagnostics
