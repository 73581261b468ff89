import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from entity.defenses import Undefended, UndefendedArgs
from entity.layout import ParamSpec
from entity.training import Recipe, fit


@pytest.fixture
def fedavg(make_resources):
    def aggregate(updates, **changes):
        return Undefended(UndefendedArgs(), make_resources(updates, **changes)).aggregate(updates)

    return aggregate


def test_fedavg_weighs_by_samples_where_asked(make_updates, fedavg):
    updates = make_updates([(1, 0), (0, 3)], num_samples=[1, 3], origin=[0, 0])
    assert fedavg(updates, weighting="samples").weights.tolist() == [0.25, 2.25]
    assert fedavg(updates).weights.tolist() == [0.5, 1.5]


def test_a_clients_claim_about_its_size_is_ignored_by_default(make_updates, fedavg):
    lying = make_updates([(1, 0), (0, 3)], num_samples=[10, 10**9])
    honest = make_updates([(1, 0), (0, 3)], num_samples=[10, 10])
    assert torch.equal(fedavg(lying).weights, fedavg(honest).weights)


def test_the_server_rate_starts_from_the_global_model(make_updates, fedavg):
    updates = make_updates([(2, 0), (0, 4)], origin=[8, 16])
    assert fedavg(updates, server_lr=0.5).weights.tolist() == [8.5, 17]


def test_everybody_is_accepted_with_the_share_that_was_used(make_updates, fedavg):
    updates = make_updates([(1, 0), (0, 3)], ids=["x", 4], num_samples=[1, 3])
    found = fedavg(updates, weighting="samples").verdicts
    assert [(v.client, v.accepted, v.weight) for v in found] == [
        ("x", True, 0.25),
        (4, True, 0.75),
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 10])
@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_identical_clients_come_out_to_the_bit(make_updates, fedavg, n, weighting):
    row = torch.randn(999, generator=torch.Generator().manual_seed(n))
    buffers = torch.rand(5, generator=torch.Generator().manual_seed(n))
    updates = make_updates(
        row.repeat(n, 1), buffers=buffers.repeat(n, 1), num_samples=[7 * i + 3 for i in range(n)]
    )
    answer = fedavg(updates, weighting=weighting)
    assert torch.equal(answer.weights, updates.weights[0])
    assert torch.equal(answer.buffers, updates.buffers[0])


rows = st.lists(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), min_size=1, max_size=6
)


@given(rows, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_mean_is_in_the_hull_and_does_not_know_the_order(
    make_updates, make_resources, deltas, random
):
    order = list(range(len(deltas)))
    random.shuffle(order)
    straight = make_updates(deltas)
    mixed = make_updates([deltas[i] for i in order], ids=order)
    server = Undefended(UndefendedArgs(), make_resources(straight))
    answer, again = server.aggregate(straight), server.aggregate(mixed)
    torch.testing.assert_close(answer.weights, again.weights, atol=1e-4, rtol=1e-6)
    assert (answer.weights <= straight.weights.amax(0) + 1e-4).all()
    assert (answer.weights >= straight.weights.amin(0) - 1e-4).all()
    np.testing.assert_allclose(
        answer.weights.numpy(), straight.weights.double().mean(0).numpy(), atol=1e-4
    )


def test_full_batch_steps_of_all_clients_are_one_central_step(make_updates, fedavg):
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(12, 4, generator=rng), torch.randint(3, (12,), generator=rng)
    recipe = Recipe(lr=0.3, momentum=0.9, weight_decay=0.0, batch_size=12, epochs=1)
    start = nn.Linear(4, 3)
    spec = ParamSpec.of(start)
    origin = spec.flatten(start)

    def trained(part):
        spec.load(start, origin)
        fit(start, [(x[part], y[part])], recipe)
        return spec.flatten(start).weights

    parts = [slice(0, 2), slice(2, 5), slice(5, 12)]
    deltas = torch.stack([trained(part) - origin.weights for part in parts])
    updates = make_updates(deltas, model=start, origin=origin.weights, num_samples=[2, 3, 7])
    answer = fedavg(updates, weighting="samples")
    torch.testing.assert_close(answer.weights, trained(slice(0, 12)), atol=1e-6, rtol=0)
