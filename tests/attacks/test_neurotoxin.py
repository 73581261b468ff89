import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entity.attacks.badnets import BadNets
from entity.attacks.neurotoxin import Neurotoxin, NeurotoxinArgs, top_share
from entity.client.attacker import NoArgs
from entity.dataset import normalise
from entity.poisons.dba import Dba, DbaArgs
from entity.training import cross_entropy


def history(bench, seed: int = 0) -> torch.Tensor:
    """Weights of the round before, so that the last update is noise."""
    rng = torch.Generator().manual_seed(seed)
    return bench.start.weights - torch.randn(bench.spec.num_parameters, generator=rng)


@given(
    values=st.lists(st.integers(-5, 5), min_size=1, max_size=60),
    percent=st.integers(0, 100),
)
def test_the_mask_is_the_stable_sort_of_numpy(values, percent):
    mask = top_share(torch.tensor(values, dtype=torch.float32), percent / 100)
    count = -(-percent * len(values) // 100)
    order = np.argsort(-np.abs(np.array(values)), kind="stable")[:count]
    assert sorted(order.tolist()) == mask.nonzero().flatten().tolist()


def test_the_mask_goes_by_magnitude_not_by_sign():
    """A public benchmark partitions the signed gradients."""
    assert top_share(torch.tensor([0.5, -9.0, 1.0, 0.1]), 0.25).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_blocked_coordinates_end_exactly_where_they_started(make_bench, share):
    """Momentum and weight decay move them if only the gradient is masked (DROP's code, X20)."""
    bench = make_bench(Neurotoxin, NeurotoxinArgs(neurotoxin_top_k=share))
    previous = history(bench)
    bench.fit(previous)
    mask = top_share(bench.start.weights - previous, share)
    assert mask.sum() == np.ceil(share * bench.spec.num_parameters)
    assert (bench.delta[mask] == 0).all()
    assert share == 1 or (bench.delta[~mask] != 0).float().mean() > 0.9


def test_nothing_blocked_is_plain_poisoned_training(make_bench):
    bench = make_bench(Neurotoxin, NeurotoxinArgs(neurotoxin_top_k=0.0))
    assert torch.equal(
        bench.fit(history(bench)).weights, make_bench(BadNets, NoArgs()).fit().weights
    )


def test_the_attack_is_not_plain_poisoned_training(make_bench):
    """DROP's client masks after one batch at most, from a used-up generator (X7)."""
    bench = make_bench(Neurotoxin, NeurotoxinArgs())
    sent = bench.fit(history(bench))
    assert not torch.equal(sent.weights, make_bench(BadNets, NoArgs()).fit().weights)


def test_colluders_share_the_mask(make_bench):
    moved = []
    for id in (3, 9):
        bench = make_bench(Neurotoxin, NeurotoxinArgs(neurotoxin_top_k=0.3), id=id, rank=id)
        bench.fit(history(bench))
        moved.append(bench.delta == 0)
    count = np.ceil(0.3 * bench.spec.num_parameters)
    assert (moved[0] & moved[1]).sum() >= count


@pytest.mark.parametrize("still", [False, True], ids=["round 1", "nothing moved"])
def test_without_history_the_mask_is_the_own_clean_gradients(make_bench, still):
    bench = make_bench(Neurotoxin, NeurotoxinArgs(neurotoxin_top_k=0.4))
    bench.fit(bench.start.weights.clone() if still else None)
    delta = bench.delta
    bench.spec.load(bench.model, bench.start)
    images = bench.client.data
    bench.model.eval().zero_grad()
    cross_entropy(bench.model, normalise(images.x), images.y).backward()
    gradient = torch.cat([p.grad.flatten() for p in bench.model.parameters()])
    # Batches may change the last bits, and so the order of two near-equal coordinates.
    threshold = gradient.abs().sort(descending=True).values[int(0.4 * len(gradient))]
    assert (delta[gradient.abs() > 1.001 * threshold] == 0).all()
    assert (delta[gradient.abs() < 0.999 * threshold] != 0).float().mean() > 0.9


def test_looking_at_the_clean_gradient_leaves_the_batchnorm_statistics(make_bench):
    bench = make_bench(Neurotoxin, NeurotoxinArgs())
    bench.client.clean_gradient(bench.model, bench.broadcast())
    assert torch.equal(bench.state.buffers, bench.start.buffers)
    assert all(p.grad is None for p in bench.model.parameters())


def test_the_norm_bound_holds_and_the_mask_with_it(make_bench):
    bench = make_bench(Neurotoxin, NeurotoxinArgs(neurotoxin_norm=0.2))
    previous = history(bench)
    bench.fit(previous)
    assert bench.delta.norm().item() == pytest.approx(0.2, rel=1e-5)
    assert (bench.delta[top_share(bench.start.weights - previous, 0.05)] == 0).all()


def test_it_combines_with_dba(make_bench):
    sent = []
    for rank in (0, 1, 4):
        bench = make_bench(
            Neurotoxin, NeurotoxinArgs(), poison=Dba, poison_args=DbaArgs(), rank=rank
        )
        data = bench.client.poisoned()
        assert data.poisoned.sum() == 10
        assert (data.y[data.poisoned] == 2).all()
        sent.append(bench.fit(history(bench)).weights)
    assert torch.equal(sent[0], sent[2])
    assert not torch.equal(sent[0], sent[1])


def test_outside_the_window_it_is_benign(make_bench):
    window = {"participation_strategy": "after_convergence", "poisoning_start_round": 2}
    bench = make_bench(Neurotoxin, NeurotoxinArgs(neurotoxin_top_k=1.0), **window)
    assert torch.equal(bench.fit(history(bench)).weights, bench.honest().weights)
