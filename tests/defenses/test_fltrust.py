import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from entity.config.schema import ConfigError
from entity.defenses.fltrust import FLTrust, FLTrustArgs, balanced
from entity.server.contract import CleanData, Setting
from entity.training import Recipe


def clean_data(samples=40, classes=2, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return CleanData(torch.randn(samples, 3, generator=rng), torch.arange(samples) % classes)


class Scripted(FLTrust):
    """FLTrust whose own update is given."""

    own = (1.0, 0.0)

    def root_update(self, updates):
        return torch.tensor(self.own, dtype=torch.float64)


def fltrust(updates, make_resources, own=(1.0, 0.0), **resources):
    server = Scripted(FLTrustArgs(), make_resources(updates, clean=clean_data(), **resources))
    server.own = own
    return server.aggregate(updates)


HAND_MADE = [(2, 0), (0, 3), (-5, 0), (1, 1)]


def test_the_hand_made_round(make_updates, make_resources):
    updates = make_updates(HAND_MADE)
    answer = fltrust(updates, make_resources)
    moved = (answer.weights - updates.global_weights).tolist()
    assert moved == pytest.approx([0.8786797, 0.2928932])
    assert [v.score for v in answer.verdicts] == pytest.approx([1, 0, 0, 0.5**0.5])
    assert [v.accepted for v in answer.verdicts] == [True, False, False, True]
    assert [v.weight for v in answer.verdicts] == pytest.approx([0.5857864, 0, 0, 0.4142136])


def test_scaling_any_client_changes_nothing(make_updates, make_resources):
    plain = fltrust(make_updates(HAND_MADE), make_resources).weights
    scaled = [tuple(1000 * value for value in row) for row in HAND_MADE]
    for row in range(4):
        updates = make_updates([*HAND_MADE[:row], scaled[row], *HAND_MADE[row + 1 :]])
        assert torch.allclose(fltrust(updates, make_resources).weights, plain, atol=1e-6)


def test_without_any_trust_the_global_model_stays_where_a_benchmark_averages_all(
    make_updates, make_resources
):
    updates = make_updates([(-1, 0), (-2, 1), (0, 0)])
    answer = fltrust(updates, make_resources)
    assert torch.equal(answer.weights, updates.global_weights)
    assert not any(v.accepted for v in answer.verdicts)
    still = fltrust(make_updates([(1, 0)]), make_resources, own=(0.0, 0.0))
    assert torch.equal(still.weights, updates.global_weights)


def test_cosines_are_of_updates_where_the_original_takes_models(make_updates, make_resources):
    # As models all of these point to (100, 100) and would be trusted alike.
    updates = make_updates(HAND_MADE, origin=[100.0, 100.0])
    answer = fltrust(updates, make_resources)
    assert [v.score for v in answer.verdicts] == pytest.approx([1, 0, 0, 0.5**0.5])


def test_the_server_rate_scales_the_step_not_the_model(make_updates, make_resources):
    updates = make_updates(HAND_MADE)
    answer = fltrust(updates, make_resources, server_lr=0.5)
    moved = (answer.weights - updates.global_weights).tolist()
    assert moved == pytest.approx([0.8786797 / 2, 0.2928932 / 2])


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_it_is_the_paper_in_numpy(make_updates, make_resources, n, seed):
    rng = np.random.default_rng(seed)
    rows, own = rng.normal(size=(n, 4)), rng.normal(size=4)
    norms = np.linalg.norm(rows, axis=1)
    score = np.maximum(0, rows @ own / norms / np.linalg.norm(own))
    scaled = rows * (np.linalg.norm(own) / norms)[:, None]
    expected = score @ scaled / score.sum() if score.any() else np.zeros(4)
    updates = make_updates(rows)
    moved = fltrust(updates, make_resources, own=tuple(own)).weights - updates.global_weights
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-5)


def test_buffers_are_averaged_by_trust_and_never_rescaled(make_updates, make_resources):
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    updates = make_updates(
        [(0.01, 0, 0, 0), (-1, 0, 0, 0), (9, 0, 0, 0)],
        model=model,
        buffers=[(1, 2, 3), (50, 50, 50), (3, 4, 5)],
    )
    resources = make_resources(model, clean=clean_data(), bn_policy="weighted")
    server = Scripted(FLTrustArgs(), resources)
    server.own = (1.0, 0, 0, 0)
    assert server.aggregate(updates).buffers.tolist() == pytest.approx([2, 3, 5])


LINEAR = nn.Linear(3, 2)


def trained(make_updates, make_resources, recipe, samples=10, round=1, **args):
    updates = make_updates(torch.zeros(3, 8), model=LINEAR, num_samples=[samples] * 3, round=round)
    resources = make_resources(LINEAR, clean=clean_data(), recipe=recipe)
    return updates, FLTrust(FLTrustArgs(num_root=40, **args), resources).root_update(updates)


def test_one_step_on_the_whole_root_set_is_minus_the_rate_times_the_gradient(
    make_updates, make_resources
):
    recipe = Recipe(lr=0.3, momentum=0.9, weight_decay=0.0, batch_size=40, epochs=1)
    updates, own = trained(make_updates, make_resources, recipe)
    weights = updates.global_weights.clone().requires_grad_()
    x, y = clean_data()
    F.cross_entropy(x @ weights[:6].view(2, 3).T + weights[6:], y).backward()
    assert weights.grad is not None
    assert torch.allclose(own.float(), -0.3 * weights.grad, atol=1e-6)


def test_training_does_not_touch_the_global_model(make_updates, make_resources):
    recipe = Recipe(lr=0.3, momentum=0.9, weight_decay=0.0, batch_size=8, epochs=3)
    updates, own = trained(make_updates, make_resources, recipe)
    expected = (torch.arange(8) * 7 % 5 - 2) / 2
    assert torch.equal(updates.global_weights, expected)
    assert own.norm() > 0


@pytest.mark.parametrize(
    ("args", "samples", "steps"),
    [({"same_steps": True}, 100, 14), ({"same_steps": True}, 5, 2), ({}, 100, 6)],
)
def test_the_server_makes_as_many_steps_as_clients_or_epochs(
    make_updates, make_resources, monkeypatch, args, samples, steps
):
    seen = []
    monkeypatch.setattr(
        "entity.defenses.fltrust.fit", lambda model, batches, recipe: seen.extend(batches)
    )
    recipe = Recipe(lr=0.1, momentum=0.9, weight_decay=0.0, batch_size=16, epochs=2)
    trained(make_updates, make_resources, recipe, samples=samples, **args)
    assert len(seen) == steps
    assert all(len(y) in (16, 8) for _, y in seen)


def test_every_round_has_its_own_order_and_repeats_it(make_updates, make_resources):
    recipe = Recipe(lr=0.1, momentum=0.9, weight_decay=0.0, batch_size=7, epochs=1)
    first, again, later = (
        trained(make_updates, make_resources, recipe, round=number)[1] for number in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_images_are_augmented_as_the_clients_do_unless_told_not_to(make_updates, make_resources):
    calls = []

    def augment(x, rng):
        calls.append(len(x))
        return -x

    updates = make_updates(torch.zeros(2, 8), model=LINEAR)
    resources = make_resources(LINEAR, clean=clean_data(), augment=augment)
    mirrored = FLTrust(FLTrustArgs(num_root=8), resources).root_update(updates)
    assert calls
    count = len(calls)
    plain = FLTrust(FLTrustArgs(num_root=8, augment=False), resources).root_update(updates)
    assert len(calls) == count
    assert not torch.equal(mirrored, plain)


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    count=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
def test_root_sets_are_as_balanced_as_possible(labels, count, seed):
    rng = torch.Generator().manual_seed(seed)
    rows = balanced(torch.tensor(labels), count, rng)
    assert len(set(rows.tolist())) == len(rows) == min(count, len(labels))
    taken = torch.tensor(labels)[rows].bincount(minlength=5)
    held = torch.tensor(labels).bincount(minlength=5)
    most = int(taken.max())
    # Who has fewer than the most (but one) has given all.
    assert all(t >= most - 1 or t == h for t, h in zip(taken, held, strict=True))


def test_a_root_set_that_the_server_does_not_hold_is_refused():
    with pytest.raises(ConfigError, match=r"lower it or raise server\.held_out"):
        FLTrust.check(FLTrustArgs(num_root=101), Setting(10, 100, (1, 4)))
    needs = FLTrust.needs(FLTrustArgs())
    assert needs.clean_data
    assert needs.clean_labels
    assert not needs.honest_majority


@pytest.mark.parametrize(("samples", "batch", "steps"), [(100, 64, 4), (65, 64, 2), (100, 33, 6)])
def test_the_server_makes_as_many_epochs_as_the_clients(
    make_updates, make_resources, samples, batch, steps
):
    """Also where one sample is left of the last batch, which is none."""
    sizes = []
    updates = make_updates(torch.zeros(3, 8), model=LINEAR)
    resources = make_resources(
        LINEAR,
        clean=clean_data(samples),
        recipe=Recipe(0.1, 0.0, 0.0, batch, 2),
        augment=lambda x, rng: sizes.append(len(x)) or x,
    )
    FLTrust(FLTrustArgs(num_root=samples), resources).root_update(updates)
    assert len(sizes) == steps


def test_dropout_draws_from_the_experiment_s_stream(make_updates, make_resources):
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    size = sum(parameter.numel() for parameter in model.parameters())
    updates = make_updates(torch.zeros(3, size), model=model)
    resources = make_resources(model, clean=clean_data(), recipe=Recipe(0.1, 0.0, 0.0, 8, 2))
    found = []
    for stream in (1, 2):
        torch.manual_seed(stream)
        found.append(FLTrust(FLTrustArgs(num_root=40), resources).root_update(updates))
    assert torch.equal(*found)
