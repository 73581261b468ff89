import math

import pytest
import torch

from entity.attacks.badnets import BadNets
from entity.attacks.constrain_and_scale import (
    ConstrainAndScale,
    ConstrainAndScaleArgs,
    anomaly_loss,
)
from entity.client.attacker import NoArgs
from entity.seeding import Seeds


def test_the_anomaly_losses_by_hand():
    w = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    g = [torch.tensor([0.0, 2.0]), torch.tensor([[4.0]])]
    assert anomaly_loss(w, g, "l2").item() == pytest.approx(math.sqrt(13))
    assert anomaly_loss(w, g, "cosine").item() == pytest.approx(1 - 16 / (5 * math.sqrt(20)))


@pytest.mark.parametrize("kind", ["l2", "cosine"])
def test_the_anomaly_loss_has_a_gradient(kind):
    """A benchmark computes it in NumPy: a constant, which constrains nothing (X14)."""
    w = torch.tensor([3.0, 1.0], requires_grad=True)
    g = torch.tensor([1.0, 2.0])
    anomaly_loss([w], [g], kind).backward()
    assert w.grad is not None
    if kind == "l2":
        expected = (w - g).detach() / (w - g).detach().norm()
    else:
        norm_w, norm_g, inner = w.detach().norm(), g.norm(), (w.detach() @ g)
        expected = -(g / (norm_w * norm_g) - inner * w.detach() / (norm_w**3 * norm_g))
    torch.testing.assert_close(w.grad, expected)


@pytest.mark.parametrize("kind", ["l2", "cosine"])
def test_at_the_global_model_where_training_starts_the_gradient_is_finite(kind):
    w = torch.tensor([3.0, 1.0], requires_grad=True)
    anomaly_loss([w], [w.detach().clone()], kind).backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad, torch.zeros(2), atol=1e-6, rtol=0)


def test_a_smaller_alpha_keeps_the_model_closer(make_bench):
    norms = []
    for alpha in (1.0, 0.5, 0.1):
        bench = make_bench(ConstrainAndScale, ConstrainAndScaleArgs(gamma=1.0, alpha=alpha))
        bench.fit()
        norms.append(bench.delta.norm().item())
    assert norms[0] > 1.2 * norms[1] > 1.4 * norms[2] > 0


def test_alpha_one_is_plain_poisoned_training(make_bench):
    sent = make_bench(ConstrainAndScale, ConstrainAndScaleArgs(gamma=1.0, alpha=1.0)).fit()
    plain = make_bench(BadNets, NoArgs()).fit()
    assert torch.equal(sent.weights, plain.weights)


def test_the_default_constrains():
    """The paper's code has alpha 1, which switches the constraint off (X25)."""
    assert ConstrainAndScaleArgs().alpha == 0.5


@pytest.mark.parametrize("bound", [0.01, 50.0])
def test_train_and_scale_sends_exactly_the_bound(make_bench, make_round, bound):
    args = ConstrainAndScaleArgs(norm_bound=bound)
    bench = make_bench(ConstrainAndScale, args)
    sent = bench.fit()
    assert bench.delta.norm().item() == pytest.approx(bound, rel=1e-4)
    assert (sent.buffers[bench.spec.variances] >= 0).all()
    updates = make_round([(3, 4), (0, 0)])
    ConstrainAndScale.collude(args, updates, [0], Seeds(0))
    assert updates.deltas[0].tolist() == [3, 4]


def test_an_update_of_zero_is_sent_as_it_is(make_bench):
    bench = make_bench(ConstrainAndScale, ConstrainAndScaleArgs(norm_bound=2.0))
    crafted = bench.client.craft(bench.start, bench.broadcast())
    assert torch.equal(crafted.weights, bench.start.weights)


def test_without_a_bound_it_replaces(make_round):
    updates = make_round([(3, 4), (0, 0)])
    ConstrainAndScale.collude(ConstrainAndScaleArgs(), updates, [0], Seeds(0))
    assert updates.deltas[0].tolist() == [6, 8]
