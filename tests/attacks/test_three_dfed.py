from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from entity.attacks.three_dfed import ThreeDFed, ThreeDFedArgs
from entity.client.collusion import Collusion
from entity.client.covert import Feedback, Parts, trained_decoy
from entity.client.indicators import curvature, fates, planted, quiet_places, tuned_alphas
from entity.client.noise_masks import MaskSettings, noise_masks
from entity.experiment import run
from entity.record.directory import Record
from entity.seeding import Seeds
from entity.training import Recipe, cross_entropy
from entity.updates import Updates

ARGS = ThreeDFedArgs(poison_epochs=2, mask_group=2, mask_neurons=2)


class Stage:
    """A round of the tiny model of the benches: attackers 0, 1, ... and benign clients after."""

    def __init__(self, make_bench, args=ARGS, n=6, attackers=4, memory=None, round=1, **changes):
        self.bench = make_bench(ThreeDFed, args, **changes)
        self.start = self.bench.start
        noise = torch.randn(n, self.bench.spec.num_parameters, generator=torch.Generator())
        self.updates = Updates(
            round,
            tuple(range(n)),
            self.start.weights + 0.01 * noise,
            self.start.buffers.repeat(n, 1),
            torch.full((n,), 10),
            *self.start,
            spec=self.bench.spec,
        )
        self.malicious = list(range(attackers))
        broadcast = self.bench.broadcast(round=round)
        recruit, new_model = lambda id: self.bench.client, lambda: self.bench.model
        collusion = Collusion(args, Seeds(7), broadcast, memory or {}, recruit, new_model)
        self.before = self.updates.weights.clone()
        self.memory = ThreeDFed.conspire(self.updates, self.malicious, collusion)
        self.parts = Parts.of(self.bench.spec, "head")

    @property
    def deltas(self):
        return self.updates.weights[self.malicious] - self.start.weights


def test_the_quietest_places_are_flat_and_of_the_least_moved():
    rng = np.random.default_rng(0)
    size, curved = (torch.from_numpy(rng.random(300)) for _ in range(2))
    curved = curved - 0.5
    found = quiet_places(size, curved, 3)
    least = sorted(range(300), key=lambda i: float(size[i]))[:30]
    assert found == sorted(least, key=lambda i: float(curved[i].abs()))[:3]
    flat = quiet_places(size, torch.zeros(300), 2)
    assert flat == least[:2]
    assert len(quiet_places(size[:2], curved[:2], 5)) == 2


@pytest.mark.parametrize(
    ("feedback", "expected"),
    [
        ([0.1, 0.09, 0.08, 0.079], ["accepted", "accepted", "clipped", "clipped"]),
        ([1e-6, 0.0, -1e-6], ["rejected"] * 3),
        ([0.1, 1.01], None),
        ([0.1, -2e-5], None),
        ([float("nan"), 0.1, float("inf")], ["rejected", "accepted", "rejected"]),
        ([], []),
    ],
)
def test_what_became_of_a_model_is_read_as_the_authors_code_does(feedback, expected):
    assert fates(feedback, 1e-5) == expected


def test_what_is_planted_is_1e5_times_the_move_and_never_nothing():
    assert [planted(v) for v in (2e-6, -1e-7, 0.0)] == pytest.approx([0.2, -0.01, 0.001])


@pytest.mark.parametrize(
    ("alphas", "passed", "low", "high"),
    [
        ([0.5, 0.3, 0.9], [True, True, True], 0.3, 0.5),
        ([0.5, 0.3, 0.9], [True, False, True], 0.5, 0.6),
        ([0.5, 0.3], [False, False], 0.2, 0.99),
        ([0.5], [False], 0.2, 0.99),
        ([0.5], [True], 0.5, 0.5),
        ([0.999, 0.3], [True, False], 0.99, 0.99),
    ],
)
def test_alphas_move_to_where_groups_passed(alphas, passed, low, high):
    rng = np.random.default_rng(1)
    found = np.array([tuned_alphas(alphas, passed, 0.2, rng) for _ in range(50)])
    assert found.shape == (50, len(alphas))
    assert low - 1e-9 <= found.min() <= found.max() <= high + 1e-9
    assert low == high or found.std() > 0.2 * (high - low)


def test_curvature_is_the_row_sum_of_the_hessian():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(1)).double()
    y = torch.arange(7) % 2
    size = model[0].weight.numel()

    def loss(flat):
        inner = torch.tanh(x @ flat.view(3, 4).T + model[0].bias)
        return nn.functional.cross_entropy(model[2](inner), y)

    flat = model[0].weight.detach().flatten()
    hessian = torch.autograd.functional.hessian(loss, flat)
    found = curvature(model, "0.weight", [(x, y), (x, y)])
    np.testing.assert_allclose(found.numpy(), 2 * hessian.sum(1).numpy(), rtol=1e-6)
    assert found.shape == (size,)


def masks_by_hand(u, masks, alpha, norm, momentum, decay):
    """Return noise masks (g, k, H) after the 30 steps, gradients written out, in NumPy."""
    masks, speed, multiplier = masks.copy(), np.zeros_like(masks), 1.0
    for step in range(30):
        energy = np.abs(u + masks).sum(2, keepdims=True)
        repel = -0.1 / energy**2 * np.sign(u + masks)
        lengths = np.linalg.norm(masks.reshape(len(masks), -1), axis=1)[:, None, None]
        gradient = alpha * repel + (1 - alpha) * norm * masks / lengths
        gradient = gradient / (1 + multiplier) + decay * masks
        speed = gradient if step == 0 else momentum * speed + gradient
        masks = masks - 0.1 * speed
        multiplier += 0.1 * np.linalg.norm(masks.sum(0))
    return masks


def test_noise_masks_are_those_of_a_numpy_transcription():
    recipe = Recipe(0.5, 0.9, 5e-4, 8, 1)
    u = torch.randn(3, 20, generator=torch.Generator().manual_seed(1))
    settings = MaskSettings(alpha=0.3, std=0.05, norm=0.08, balance=0.0)
    found = noise_masks(u, 4, settings, recipe, torch.Generator().manual_seed(2))
    start = 0.05 * torch.randn(4, 3, 20, generator=torch.Generator().manual_seed(2)).double()
    start = (start - start.mean(0)).numpy()
    by_hand = masks_by_hand(u.double().numpy(), start, 0.3, 0.08, 0.9, 5e-4)
    np.testing.assert_allclose(found.numpy(), by_hand, atol=1e-5)
    rows = torch.full((3, 20), 0.1)  # free masks all go up
    held = noise_masks(rows, 4, replace(settings, balance=0.5), recipe, torch.Generator())
    free = noise_masks(rows, 4, settings, recipe, torch.Generator())
    assert held.sum(0).norm() < 0.5 * free.sum(0).norm()  # they cancel in the mean
    assert (rows + free).abs().sum(2).mean() > 1.1 * rows.sum(1).mean()
    assert not noise_masks(u, 1, settings, recipe, torch.Generator()).any()
    assert noise_masks(0 * u, 2, settings, recipe, torch.Generator()).isfinite().all()


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_steps_follow_clean_and_poisoned_batch_and_lead_back(make_bench, weight):
    args = replace(ARGS, covert_weight=weight, poison_epochs=2)
    bench = make_bench(ThreeDFed, args, batch_size=30, weight_decay=0.0)
    found = bench.client.covert(bench.model, bench.broadcast())
    ((x, y),) = bench.client.poisoned().batches(30, 1, torch.Generator())
    clean = next(iter(bench.client.data.batches(30, 1, torch.Generator())))
    bad = (x != clean[0]).flatten(1).any(1)
    assert y[bad].tolist() == [2] * 10  # all of the victim's class, as the target
    bench.spec.load(bench.model, bench.start)
    bench.model.train()
    parameters, speed = list(bench.model.parameters()), 0.0
    for _ in range(2):  # 2 epochs of a batch, with momentum 0.9 and rate 0.1
        total = cross_entropy(bench.model, *clean) + cross_entropy(bench.model, x[bad], y[bad])
        gradients = torch.autograd.grad((1 - weight) / 2 * total, parameters)
        away = bench.delta
        back = away / away.norm() if away.any() else away
        gradient = torch.cat([each.flatten() for each in gradients]) + weight * back
        speed = 0.9 * speed + gradient
        state = bench.state
        bench.spec.load(bench.model, state._replace(weights=state.weights - 0.1 * speed))
    np.testing.assert_allclose(found.weights.numpy(), bench.state.weights.numpy(), atol=1e-5)
    assert torch.equal(found.weights, bench.start.weights) == (weight == 1)


def test_all_send_one_backdoor_with_masks_in_the_output_layer_and_an_indicator_each(make_bench):
    stage = Stage(make_bench)
    assert torch.equal(stage.updates.weights[4:], stage.before[4:])
    places = stage.memory["places"].tolist()
    assert len(set(places)) == 4
    quiet = stage.bench.spec.slot("features.0.weight")
    assert all(quiet.start <= place < quiet.stop for place in places)
    hidden = torch.ones(stage.deltas.shape[1], dtype=torch.bool)
    head = [stage.bench.spec.slot(f"head.{part}") for part in ("weight", "bias")]
    for slot in head:
        hidden[slot.start : slot.stop] = False
    hidden[places] = False
    assert (stage.deltas[:, hidden] == stage.deltas[0, hidden]).all()
    rows = torch.stack([stage.parts.output_rows(delta) for delta in stage.deltas])
    assert (rows[:, 2] == rows[0, 2]).all()  # the target's row has no noise
    assert len(rows[:, :2].flatten(1).unique(dim=0)) == 4
    for value, place in zip(stage.memory["values"].tolist(), places, strict=True):
        own = (stage.deltas[:, place] - value).abs().argmin()
        others = np.delete(stage.deltas[:, place].numpy(), int(own))
        assert value == pytest.approx(1e5 * others[0], rel=1e-2)


def after(stage, kept, decoys=0):
    """Return the memory with its fields as the next round reads them, given who was averaged."""
    moved = (stage.updates.weights[kept] - stage.start.weights).double().sum(0) / 6
    weights = (stage.start.weights.double() + moved).float()
    return Feedback.read(stage.memory, weights, 2, ARGS, np.random.default_rng(0))


def test_feedback_tells_who_was_taken_and_tunes_the_next_round(make_bench):
    stage = Stage(make_bench, lr=0.05)
    all_in, refused = after(stage, [0, 1, 2, 3]), after(stage, [])
    low, high = sorted(stage.memory["alphas"].tolist())
    assert not all_in.noisy
    assert all_in.decoys == 0
    assert all(low <= alpha <= high for alpha in all_in.alphas)
    assert (refused.decoys, refused.noisy) == (1, False)
    places, start = stage.memory["places"], stage.start.weights.clone()
    start[places] -= stage.memory["values"].float()  # against what was sent: noise
    noisy = Feedback.read(stage.memory, start, 2, ARGS, np.random.default_rng(0))
    assert noisy.noisy
    assert set(noisy.alphas) == {0.1}
    still = Feedback.read(stage.memory | {"noisy": torch.tensor(True)}, start, 2, ARGS, None)
    assert still.noisy


def test_after_rounds_without_an_attack_nothing_is_read(make_bench):
    """Weight decay of ten rounds moves a refused indicator as far as an accepted model does."""
    stage = Stage(make_bench)
    weights = stage.start.weights.clone()
    weights[stage.memory["places"]] += (0.1 * stage.memory["values"]).float()
    told = Feedback.read(stage.memory, weights, 11, ARGS, np.random.default_rng(0))
    assert told.alphas == stage.memory["alphas"].tolist()
    assert (told.decoys, told.noisy) == (int(stage.memory["decoys"]), False)
    assert (
        told.alphas
        != Feedback.read(stage.memory, weights, 2, ARGS, np.random.default_rng(0)).alphas
    )


def test_a_group_s_feedback_is_that_of_its_own_models(make_bench):
    stage = Stage(make_bench)
    groups = stage.memory["groups"].tolist()
    assert sorted(groups) == [0, 0, 1, 1]
    weights = stage.start.weights.clone()
    mine = [i for i, group in enumerate(groups) if group == 1]
    places, values = stage.memory["places"][mine], stage.memory["values"][mine]
    weights[places] += (0.1 * values).float()
    told = Feedback.read(stage.memory, weights, 2, ARGS, np.random.default_rng(3))
    kept = stage.memory["alphas"][1].item()
    assert all(min(kept, 0.99) - 1e-9 <= alpha <= kept + 0.1 for alpha in told.alphas)


def test_decoys_are_attackers_and_an_accepted_one_is_dropped(make_bench):
    first = Stage(make_bench)
    second = Stage(make_bench, memory=first.memory, round=2)  # nothing moved: all were rejected
    groups = second.memory["groups"].tolist()
    assert groups == [0, 0, 1, -1]
    assert int(second.memory["decoys"]) == 1
    assert (second.deltas[:, second.parts.weight.start : second.parts.weight.stop].abs() > 1).any()
    weights = second.start.weights.clone()
    weights[second.memory["places"]] += (0.1 * second.memory["values"]).float()
    told = Feedback.read(second.memory, weights, 3, ARGS, np.random.default_rng(0))
    assert told.decoys == 0


def test_a_decoy_is_honest_but_for_one_weight(make_bench):
    bench = make_bench(ThreeDFed, ARGS, lr=0.01, epochs=30, weight_decay=0.0)
    place = bench.spec.slot("head.weight").start + 5
    decoy = trained_decoy(bench.client, bench.model, bench.broadcast(), place, 0.0)
    delta = (decoy.weights - bench.start.weights).abs()
    assert delta[place] > 5
    assert int(delta.argmax()) == place
    assert delta.sort().values[-2] < 0.1 * delta[place]


def test_a_short_update_is_made_as_long_as_the_honest_one_and_no_longer(make_bench):
    lengths = {}
    for scale in (1.0, 1.5, 50.0):
        args = replace(ARGS, covert_weight=0.9, poison_epochs=1, covert_scale=scale)
        stage = Stage(make_bench, args, attackers=1)
        delta = stage.deltas[0].clone()
        delta[stage.memory["places"]] = 0
        lengths[scale] = delta.norm().item()
    bench = make_bench(ThreeDFed, ARGS)
    honest = (bench.honest().weights - bench.start.weights).norm().item()
    assert lengths[1.5] == pytest.approx(1.5 * lengths[1.0], rel=0.01)
    assert lengths[50.0] == pytest.approx(honest, rel=0.02)


def test_rounds_of_any_make_up(make_bench):
    memory = {}
    for number, attackers in enumerate([1, 6, 2, 3], 1):
        stage = Stage(make_bench, attackers=attackers, memory=memory, round=number)
        assert stage.updates.weights.isfinite().all()
        memory = stage.memory
        assert len(memory["places"]) == attackers
        assert int(memory["decoys"]) < attackers
    many = Stage(make_bench, n=50, attackers=50)  # the quiet layer has 36 weights
    assert many.updates.weights.isfinite().all()
    still = Stage(make_bench, lr=0.0)
    assert still.updates.weights.isfinite().all()


def test_training_that_diverges_is_sent_as_it_is_and_leaves_no_memory(make_bench):
    stage = Stage(make_bench, lr=1e30)
    assert not stage.deltas.isfinite().all()
    assert stage.memory == {}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "pool"])
def test_a_run_that_goes_on_remembers_its_indicators(experiment, tmp_path, monkeypatch, engine):
    attack = {"type": "three_dfed", "poison_epochs": 1, "mask_group": 2, "DPR": 1.0}
    fields = {
        "client.attack": attack | {"victim_class": 0, "target_class": 7},
        "federation.number_of_malicious_clients": 3,
        "federation.round_size": 4,
        "federation.rounds": 4,
        "client.ADR": 0.05,
        "settings.workers": 1,
    }
    whole = run(experiment(fields | {"settings.engine": "inline"}))
    append = Record.append

    def stop_after_two(self, line, artifacts):
        append(self, line, artifacts)
        if line["round"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Record, "append", stop_after_two)
    config, folder = experiment(fields | {"settings.engine": engine}), Path(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(config, folder)
    monkeypatch.undo()
    resumed = run(config, folder, resume=True)
    assert torch.equal(resumed.state.weights, whole.state.weights)
