import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from entity.attacks.chameleon import Chameleon, ChameleonArgs, supcon_loss
from entity.engine.local_training import single_threaded
from entity.models import SupConTwin
from entity.seeding import global_stream

Z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
LABELS = torch.tensor([0, 0, 1])
QUICK = {"poisoned_supcon_epochs": 2, "poisoned_head_epochs": 2, "poisoned_head_lr": 0.1}


def adapt(bench) -> None:
    """Run the first stage alone."""
    with single_threaded():
        data = bench.client.poisoned()
        bench.client.adapt(SupConTwin(bench.model), data, bench.broadcast())


def test_t22_supcon_of_a_hand_made_batch():
    assert supcon_loss(Z, LABELS, 1.0).item() == pytest.approx(0.208841, abs=1e-6)
    weighted = supcon_loss(Z, LABELS, 1.0, target=0, weight=2.0)
    assert weighted.item() == pytest.approx(0.417682, abs=1e-6)
    assert supcon_loss(Z, LABELS, 1.0, target=1, weight=2.0).item() == pytest.approx(0.208841)


@given(
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=8),
    seed=st.integers(0, 99),
    weight=st.sampled_from([1.0, 6.0]),
)
def test_supcon_is_its_formula_term_by_term(labels, seed, weight):
    rng = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(len(labels), 4, generator=rng), dim=1)
    total = 0.0
    for i, own in enumerate(labels):
        others = [a for a in range(len(labels)) if a != i]
        positives = [p for p in others if labels[p] == own]
        below = sum(math.exp((z[i] @ z[a]).item() / 0.5) for a in others)
        logs = [(z[i] @ z[p]).item() / 0.5 - math.log(below) for p in positives]
        total -= (weight if own == 2 else 1) * sum(logs) / max(1, len(positives))
    found = supcon_loss(z, torch.tensor(labels), 0.5, target=2, weight=weight)
    assert found.item() == pytest.approx(total / len(labels), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("labels", [[0], [0, 1, 2]])
def test_a_batch_without_positive_pairs_costs_nothing_and_has_no_nan_in_its_gradient(labels):
    z = torch.eye(3)[: len(labels)].requires_grad_()
    loss = supcon_loss(z, torch.tensor(labels), 0.07)
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert z.grad.abs().sum() == 0


def test_the_projection_stage_moves_the_head_and_nothing_else(make_bench):
    """DROP's code misspells requires_grad and names other layers: it freezes nothing (X7)."""
    bench = make_bench(Chameleon, ChameleonArgs(**QUICK))
    adapt(bench)
    adapted = bench.state
    whole = bench.fit()
    moved = whole.weights != adapted.weights
    for slot in bench.spec.parameters:
        assert moved[slot.start : slot.stop].any() == slot.name.startswith("head.")
    # The encoder's BatchNorm statistics and counters are frozen with it.
    assert torch.equal(whole.buffers, adapted.buffers)
    assert not torch.equal(whole.buffers, bench.start.buffers)


def test_adaptation_moves_the_encoder_and_not_the_head(make_bench):
    bench = make_bench(Chameleon, ChameleonArgs(**QUICK))
    adapt(bench)
    for slot in bench.spec.parameters:
        moved = bench.delta[slot.start : slot.stop].any()
        assert moved == slot.name.startswith("features.")


def test_adaptation_lowers_the_contrastive_loss_of_the_poisoned_data(make_bench):
    bench = make_bench(Chameleon, ChameleonArgs(poisoned_supcon_lr=0.02, fac_scale_weight=2.0))
    model, data = bench.model, bench.client.poisoned()
    (x, y), *_ = data.batches(len(data), 1, torch.Generator())

    def loss() -> float:
        model.eval()
        with torch.no_grad():
            return supcon_loss(SupConTwin(model)(x), y, 0.07).item()

    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(x)  # statistics of this data, so that only the weights make the difference
    before = loss()
    adapt(bench)
    assert loss() < 0.9 * before


@pytest.mark.parametrize("on", [True, False])
def test_the_encoder_is_projected_onto_its_ball_when_asked(make_bench, on):
    args = ChameleonArgs(
        poisoned_projection_norm=0.01, poisoned_is_projection_grad=on, poisoned_supcon_lr=0.1
    )
    bench = make_bench(Chameleon, args)
    adapt(bench)
    norm = bench.delta.norm().item()
    assert norm == pytest.approx(0.01, rel=1e-4) if on else norm > 0.05


def test_a_milestone_lowers_the_rate(make_bench):
    def after(**args) -> torch.Tensor:
        bench = make_bench(Chameleon, ChameleonArgs(**(QUICK | args)))
        return bench.fit().weights

    steady = after(malicious_milestones=())
    assert torch.equal(steady, after(malicious_milestones=(2,)))
    assert torch.equal(steady, after(malicious_milestones=(1,), malicious_lr_gamma=1.0))
    assert not torch.equal(steady, after(malicious_milestones=(1,)))


class Foreign(nn.Module):
    """A model with other names, and a layer behind its last linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU())
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x)).log_softmax(1)


def test_any_model_with_a_linear_head_will_do(make_bench):
    with global_stream(torch.Generator().manual_seed(0)):
        model = Foreign()
    bench = make_bench(Chameleon, ChameleonArgs(**QUICK), model=model)
    bench.fit()
    for slot in bench.spec.parameters:
        assert bench.delta[slot.start : slot.stop].any()


def test_the_model_is_handed_back_ready_to_train(make_bench):
    bench = make_bench(Chameleon, ChameleonArgs(**QUICK))
    bench.fit()
    assert bench.model.training
    assert all(p.requires_grad for p in bench.model.parameters())
    assert torch.equal(bench.fit().weights, bench.fit().weights)


@pytest.mark.parametrize("on", [False, True])
def test_mixed_precision_is_on_only_where_it_is_configured(make_bench, monkeypatch, on):
    """DROP's code runs under autocast whatever the setting."""
    seen = set()
    features = SupConTwin.features

    def watched(*given):
        seen.add(torch.is_autocast_enabled("cpu"))
        return features(*given)

    monkeypatch.setattr(SupConTwin, "features", watched)
    make_bench(Chameleon, ChameleonArgs(**QUICK), amp_enabled=on).fit()
    assert seen == {on}
