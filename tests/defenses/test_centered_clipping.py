import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entity.defenses.centered_clipping import (
    CenteredClipping,
    CenteredClippingArgs,
    centered_clip,
)


def plain(rounds, tau, iterations=1, beta=0.0):
    """The paper's Algorithm in loops: the aggregates of rounds of updates, of all clients."""
    v, momenta, found = np.zeros(np.shape(rounds)[2]), {}, []
    for rows in rounds:
        for i, row in enumerate(np.asarray(rows, dtype=float)):
            momenta[i] = row if i not in momenta else (1 - beta) * row + beta * momenta[i]
        for _ in range(iterations):
            gaps = [m - v for m in momenta.values()]
            bound = np.median([np.linalg.norm(g) for g in gaps]) if tau == "median" else tau
            steps = [g * min(1, bound / max(np.linalg.norm(g), 1e-300)) for g in gaps]
            v = v + np.mean(steps, axis=0)
        found.append(v)
    return found


def play(server, make_updates, rounds, **how):
    for number, rows in enumerate(rounds, 1):
        updates = make_updates(rows, round=number, **how)
        answer = server.aggregate(updates)
        yield updates, answer


def server_for(make_updates, make_resources, rows, **args):
    changes = {name: args.pop(name) for name in list(args) if name in ("server_lr", "weighting")}
    resources = make_resources(make_updates(rows), **changes)
    return CenteredClipping(CenteredClippingArgs(**args), resources)


def test_one_step_by_hand():
    """From (0, 1): differences (3, 4), (0, -1) and (0, 0), of which the first is clipped to 1."""
    rows = torch.tensor([[3.0, 5.0], [0.0, 0.0], [0.0, 1.0]])
    centre, shares = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.25, 0.25])
    after, distances, factors, tau = centered_clip(rows, centre, shares, 1.0)
    assert after.tolist() == pytest.approx([0.3, 1 + 0.4 - 0.25])
    assert distances.tolist() == [5, 1, 0]
    assert factors.tolist() == pytest.approx([0.2, 1, 1])
    assert tau == 1
    assert centered_clip(rows, centre, shares, "median")[3] == 1


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    tau=st.sampled_from([0.3, 1.0, 100.0, "median"]),
    iterations=st.integers(1, 4),
    beta=st.sampled_from([0.0, 0.5, 0.9]),
)
def test_rounds_are_those_of_the_plain_loops(
    make_updates, make_resources, seed, tau, iterations, beta
):
    rounds = np.random.default_rng(seed).normal(size=(3, 5, 4)).astype(np.float32)
    args = {"tau": tau, "iterations": iterations, "momentum": beta}
    server = server_for(make_updates, make_resources, rounds[0], **args)
    expected = plain(rounds, tau, iterations, beta)
    for (updates, answer), v in zip(play(server, make_updates, rounds), expected, strict=True):
        moved = answer.weights - updates.global_weights
        np.testing.assert_allclose(moved, v, atol=1e-5)


def test_what_clients_share_with_the_last_round_is_not_clipped_away(make_updates, make_resources):
    """Norm clipping at 1 would move by 1 in every round, here it is by 1, 2, 3, 4 and then 4."""
    server = server_for(make_updates, make_resources, [[4.0]] * 3, tau=1.0)
    moved = [
        float(answer.weights - updates.global_weights)
        for updates, answer in play(server, make_updates, [[[4.0]] * 3] * 5)
    ]
    assert moved == pytest.approx([1, 2, 3, 4, 4])


def test_an_attacker_pulls_by_no_more_than_tau_over_n(make_updates, make_resources):
    honest = [[1.0, 0.0]] * 9
    for far in (2.0, 1e6, 3e38):
        server = server_for(make_updates, make_resources, honest, tau=1.0)
        server.centre = torch.tensor([1.0, 0.0]).double()
        answer = server.aggregate(make_updates([*honest, [1.0, far]]))
        moved = server.centre
        assert moved.tolist() == pytest.approx([1.0, 0.1])
        assert answer.verdicts[9].weight == pytest.approx(0.1 / far)
        assert answer.diagnostics == {"tau": 1, "clipped": 1}


def test_a_momentum_makes_small_steps_of_one_sign_stand_out(make_updates, make_resources):
    """Noise of honest clients averages out over the rounds, a constant lie does not."""
    rng = np.random.default_rng(0)
    rounds = [[*(2 * rng.normal(size=(9, 50))), np.full(50, 0.5)] for _ in range(40)]
    ranks = {}
    for beta in (0.0, 0.95):
        args = {"tau": 1.0, "momentum": beta}
        server = server_for(make_updates, make_resources, rounds[0], **args)
        *_, (_, answer) = play(server, make_updates, rounds)
        scores = [v.score for v in answer.verdicts]
        ranks[beta] = scores[9] / np.median(scores[:9])
    assert ranks[0.0] < 0.5
    assert ranks[0.95] > 2 * ranks[0.0]


def test_momenta_are_by_client_and_not_by_place(make_updates, make_resources):
    server = server_for(make_updates, make_resources, [[8.0], [0.0]], momentum=0.5)
    server.aggregate(make_updates([[8.0], [0.0]], ids=[7, 3]))
    server.aggregate(make_updates([[4.0], [2.0]], ids=[3, 5], round=2))
    assert {c: m.tolist() for c, m in server.momenta.items()} == {7: [8], 3: [2], 5: [2]}


def test_the_rate_of_the_server_is_not_in_its_memory(make_updates, make_resources):
    server = server_for(make_updates, make_resources, [[2.0]] * 3, tau=10.0, server_lr=0.5)
    (updates, answer), *_ = play(server, make_updates, [[[2.0]] * 3])
    assert float(answer.weights - updates.global_weights) == 1
    assert server.centre.tolist() == [2]


def test_samples_weigh_where_asked(make_updates, make_resources):
    rows = [[1.0], [4.0]]
    server = server_for(make_updates, make_resources, rows, tau=100.0, weighting="samples")
    updates = make_updates(rows, num_samples=[30, 10])
    answer = server.aggregate(updates)
    assert float(answer.weights - updates.global_weights) == pytest.approx(7 / 4)
    idle = make_updates(rows, num_samples=[0, 0])
    server = server_for(make_updates, make_resources, rows, tau=100.0, weighting="samples")
    assert float(server.aggregate(idle).weights - idle.global_weights) == pytest.approx(2.5)


def test_it_goes_on_from_a_saved_state(make_updates, make_resources):
    rounds = np.random.default_rng(5).normal(size=(3, 4, 6))
    whole = server_for(make_updates, make_resources, rounds[0], momentum=0.9)
    expected = list(play(whole, make_updates, rounds))
    first = server_for(make_updates, make_resources, rounds[0], momentum=0.9)
    list(play(first, make_updates, rounds[:2]))
    resumed = server_for(make_updates, make_resources, rounds[0], momentum=0.9)
    resumed.load_state_dict(first.state_dict())
    answer = resumed.aggregate(make_updates(rounds[2], round=3))
    assert torch.equal(answer.weights, expected[2][1].weights)
    assert answer.verdicts == expected[2][1].verdicts


def test_it_needs_single_updates_unless_clients_can_clip_for_themselves():
    needs = CenteredClipping.needs
    assert needs(CenteredClippingArgs()).individual_updates
    assert needs(CenteredClippingArgs(tau=1.0, iterations=2)).individual_updates
    assert not needs(CenteredClippingArgs(tau=1.0)).individual_updates
    assert needs(CenteredClippingArgs(tau=1.0, momentum=0.9)).client_identity
