"""DROP+: what the mean's step becomes, who is left out, and what it takes from round to round."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses import drop_plus
from entity.defenses.drop_plus import DropPlus, DropPlusArgs
from entity.layout import ParamSpec
from entity.models import Classifier
from entity.server import CleanData, admit
from entity.server.contract import Setting
from entity.server.mixes import class_gradients
from entity.server.optimiser import OptimiserArgs
from entity.server.sketches import descriptions
from entity.server.streaming import Stream, can_stream
from entity.server.visible import views, visible_update

CLIENTS = 10
BAD = (1, 4, 6)


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture
def clean():
    """Images whose first column is always black."""
    x = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    x[..., 0] = 0
    return CleanData(x, torch.arange(300) % 10)


@pytest.fixture
def open_server(make_resources, model, clean):
    def of(**args):
        resources = make_resources(model, clean=clean, classes=10, image=(1, 8))
        return DropPlus(DropPlusArgs(**args), resources)

    return of


def step(model, clean, column, target, seed, labels=True):
    """One step of honest training on 60 images, or of images with a lit column called `target`."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(clean.x), (60,), generator=rng)
    x, y = clean.x[rows].clone(), clean.y[rows]
    if column:
        x[:30, ..., 0] = 1.0
        y = torch.cat([torch.full((30,), target), y[30:]])
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    return -torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def a_round(model, clean, number, make_updates, bad=BAD):
    rows = [
        step(model, clean, client in bad, 7, seed=100 * number + client)
        for client in range(CLIENTS)
    ]
    return make_updates(torch.stack(rows), model=model, round=number)


def test_it_is_the_visible_part_of_the_mean_of_clipped_updates(
    open_server, model, clean, make_updates
):
    updates = a_round(model, clean, 1, make_updates)
    server = open_server(coalition=None, strength=0.3)
    answer = server.aggregate(updates)
    deltas = updates.weights - updates.global_weights
    norms = deltas.norm(dim=1, keepdim=True)
    mean = (deltas * (norms.quantile(0.5) / norms).clamp_max(1)).mean(0)
    spec = ParamSpec.of(model)
    start = updates.global_weights
    reference = server.resources.module(updates.global_state)
    of = list(views(reference, spec, server.images, 0.3, torch.Generator()))
    assert torch.allclose(answer.weights - start, visible_update(mean, of), atol=1e-6)
    assert 0 < answer.diagnostics["visible"] < 1
    assert all(verdict.accepted for verdict in answer.verdicts)


def test_it_does_not_learn_a_column_that_no_clean_image_lights_from_any_number_of_attackers(
    open_server, model, clean, make_updates
):
    black = ParamSpec.of(model).slot("head.weight")
    for bad in (BAD, range(CLIENTS)):
        updates = a_round(model, clean, 1, make_updates, bad=bad)
        server = open_server(coalition=None)
        start = updates.global_weights
        moved = server.aggregate(updates).weights - start
        taught = (updates.weights - start).mean(0)
        column, lit = (black.of(v).unflatten(1, (8, 8))[..., 0].norm() for v in (moved, taught))
        assert column < 1e-6 < 1e-2 < lit


def test_a_coalition_is_left_out_from_the_fourth_round_on_and_named(
    open_server, model, clean, make_updates
):
    server = open_server()
    for number in range(1, 9):
        answer = server.aggregate(a_round(model, clean, number, make_updates))
        refused = {v.client for v in answer.verdicts if not v.accepted}
        assert refused == (set(BAD) if number >= 4 else set()), number
    assert answer.diagnostics["hidden_contrast"] > 0.2
    (reason,) = {v.reason for v in answer.verdicts if not v.accepted}
    assert reason == "pushes with others where no clean image looks"
    assert all(v.weight == 0 for v in answer.verdicts if v.client in BAD)


def test_who_is_found_in_both_parts_together_is_left_out_for_that(
    open_server, model, clean, make_updates
):
    for both, expected in [(2.0, set(BAD)), (None, set())]:
        server = open_server(effect=1e6, effect_both=both)
        for number in range(1, 5):
            answer = server.aggregate(a_round(model, clean, number, make_updates))
        assert {v.client for v in answer.verdicts if not v.accepted} == expected
        assert ("both_effect" in answer.diagnostics) == bool(expected)
        for verdict in answer.verdicts:
            alike = "pushes with others, all alike wherever one looks"
            assert verdict.accepted or verdict.reason == alike


def test_attackers_who_may_register_what_they_like_are_found_without_amounts(
    open_server, model, clean, make_updates
):
    """Who registers ten times as much as others is thought to be alike for that."""
    samples = torch.tensor([3500 if client in BAD else 350 for client in range(CLIENTS)])
    for amounts, expected in [(True, set()), (False, set(BAD))]:
        server = open_server(amounts=amounts)
        for number in range(1, 6):
            updates = a_round(model, clean, number, make_updates)
            answer = server.aggregate(replace(updates, num_samples=samples))
        assert {v.client for v in answer.verdicts if not v.accepted} == expected


def test_mixes_of_classes_are_taken_out_of_what_clients_are_compared_by_if_asked_for(
    open_server, model, clean, make_updates, monkeypatch
):
    spans = []

    def watched(updates, of, seeds, mixes):
        spans.append(mixes)
        return descriptions(updates, of, seeds, mixes)

    monkeypatch.setattr(drop_plus, "descriptions", watched)
    rounds = a_round(model, clean, 1, make_updates)
    for args in ({"classes": True}, {}):
        open_server(**args).aggregate(rounds)
    server = open_server()
    begun = server.resources.module(rounds.global_state)
    expected = class_gradients(begun, rounds.spec, server.images)
    assert torch.equal(spans[0], expected)
    assert spans[1] is None


def test_who_is_left_when_a_coalition_is_taken_out_is_looked_at_again(
    open_server, model, clean, make_updates
):
    """Two attackers push for another class, and are the first to be seen."""
    server, targets = open_server(), {0: 3, 5: 3, 4: 7, 6: 7}
    for number in range(1, 13):
        rows = [
            step(model, clean, client in targets, targets.get(client), seed=100 * number + client)
            for client in range(CLIENTS)
        ]
        answer = server.aggregate(make_updates(torch.stack(rows), model=model, round=number))
        refused = {v.client for v in answer.verdicts if not v.accepted}
        assert refused <= set(targets)
    assert refused == set(targets)


def test_the_smaller_group_is_left_out_where_an_operator_says_that_attackers_are_fewer(
    open_server, model, clean, make_updates
):
    """Six attackers are the larger group: nobody is named, unless it is said to be impossible."""
    bad = (0, 2, 4, 5, 7, 8)
    for clearly, expected in [(1.3, set()), (0.0, {1, 3, 6, 9})]:
        server = open_server(clearly=clearly)
        for number in range(1, 9):
            answer = server.aggregate(a_round(model, clean, number, make_updates, bad=bad))
        assert {v.client for v in answer.verdicts if not v.accepted} == expected


def test_two_kinds_of_clients_without_any_noise_have_an_effect_that_no_record_can_hold(
    open_server, model, clean, make_updates
):
    server = open_server(patience=1)
    one, other = (step(model, clean, False, 7, seed=seed) for seed in (1, 2))
    answer = server.aggregate(make_updates(torch.stack([one] * 2 + [other] * 4), model=model))
    assert json.dumps(answer.diagnostics, allow_nan=False)
    assert answer.diagnostics["shown_contrast"] > 1


def test_without_an_attack_nobody_is_left_out(open_server, model, clean, make_updates):
    server = open_server()
    for number in range(1, 11):
        answer = server.aggregate(a_round(model, clean, number, make_updates, bad=()))
        assert all(verdict.accepted for verdict in answer.verdicts)


def test_it_goes_on_from_its_state_as_if_it_had_never_stopped(
    open_server, model, clean, make_updates
):
    whole, first = open_server(), open_server()
    rounds = [a_round(model, clean, number, make_updates) for number in range(1, 7)]
    answers = [whole.aggregate(updates) for updates in rounds]
    for updates in rounds[:3]:
        first.aggregate(updates)
    second = open_server()
    second.load_state_dict(first.state_dict())
    for updates, expected in zip(rounds[3:], answers[3:], strict=True):
        answer = second.aggregate(updates)
        assert torch.equal(answer.weights, expected.weights)
        assert [v.accepted for v in answer.verdicts] == [v.accepted for v in expected.verdicts]


def test_a_client_costs_at_most_a_hundred_thousand_bytes(open_server, model, clean, make_updates):
    server = open_server()
    server.aggregate(a_round(model, clean, 1, make_updates))
    parts = server.state_dict()["histories"].values()
    for sums in zip(*(part["sums"] for part in parts), strict=True):
        assert len(sums) == 2
        assert sum(total.untyped_storage().nbytes() for total in sums) <= 100_000


@pytest.mark.parametrize("n", [1, 2, 3])
def test_rounds_of_few_clients_and_updates_of_zero(open_server, model, clean, make_updates, n):
    server = open_server()
    for number in range(1, 7):
        rows = torch.stack([step(model, clean, False, 7, seed=client) for client in range(n)])
        answer = admit(server, make_updates(rows * (number > 1), model=model, round=number))
        assert answer.weights.isfinite().all()
        assert all(verdict.accepted for verdict in answer.verdicts)
        if number == 1:
            assert answer.diagnostics["visible"] == 1
    json.dumps(answer.diagnostics, allow_nan=False)


@pytest.mark.parametrize("args", [{}, {"clip": False, "coalition": None}])
def test_a_model_that_has_diverged_ends_no_run(args, clean, make_resources, make_updates):
    """Regression: inputs of layers that are not finite ended it in a factorisation."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 12))
    deep = Classifier(body, nn.Linear(12, 10))
    for parameter in deep.parameters():
        parameter.data.mul_(1e20)
    resources = make_resources(deep, clean=clean, classes=10, image=(1, 8))
    server = DropPlus(DropPlusArgs(**args), resources)
    start = ParamSpec.of(deep).flatten(deep).weights
    rows = torch.randn(5, len(start), generator=torch.Generator().manual_seed(1))
    answer = admit(server, make_updates(rows, model=deep, origin=start))
    assert answer.weights.isfinite().all()
    json.dumps(answer.diagnostics, allow_nan=False)


@pytest.mark.parametrize("visible", [True, False])
@pytest.mark.parametrize("size", [1e20, 3e38])
@pytest.mark.parametrize("attackers", [4, 6])
def test_finite_huge_updates_end_no_run_and_leave_no_trace_that_is_not_finite(
    open_server, model, clean, make_updates, size, attackers, visible
):
    """Regression: a majority of them overflowed what is remembered of clients, for good."""
    server = open_server(visible=visible)
    for number in range(1, 9):
        rows = a_round(model, clean, number, make_updates, bad=()).deltas
        if number in (2, 3):
            rows[:attackers] = size * rows[:attackers].sign()
        answer = admit(server, make_updates(rows, model=model, round=number))
        assert answer.weights.isfinite().all()
        json.dumps(answer.diagnostics, allow_nan=False)
    for history in server.state_dict()["histories"].values():
        assert all(total.isfinite().all() for total in history["sums"])


def test_what_it_finds_does_not_depend_on_how_long_updates_are(
    open_server, model, clean, make_updates
):
    rounds = [a_round(model, clean, number, make_updates).deltas for number in range(1, 7)]
    for size in (1e-18, 1e20):  # squares of these are no single-precision numbers
        server = open_server(visible=False)
        for number, rows in enumerate(rounds, 1):
            flat = torch.zeros(rows.shape[1])  # where nothing of a tiny step is rounded away
            updates = make_updates(rows * size, model=model, round=number, origin=flat)
            found = {v.client for v in server.aggregate(updates).verdicts if not v.accepted}
        assert found == set(BAD), size


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "fedyogi"])
def test_of_an_adaptive_optimisers_step_the_visible_part_is_taken(
    name, model, clean, make_updates, make_resources
):
    """Regression: its division by entries turned the step to where no clean image looks."""
    low = torch.randn(20, 64, generator=torch.Generator().manual_seed(3))
    x = torch.rand(300, 20, generator=torch.Generator().manual_seed(4)) @ low
    few = CleanData((x / x.abs().max()).view(300, 1, 8, 8), clean.y)  # of 64 directions, 20
    resources = make_resources(
        model,
        clean=few,
        classes=10,
        image=(1, 8),
        optimiser=OptimiserArgs(name=name),
        server_lr=1.0 if name == "fedavgm" else 0.01,
    )
    server, spec = DropPlus(DropPlusArgs(coalition=None), resources), ParamSpec.of(model)
    for number in range(1, 4):
        updates = a_round(model, few, number, make_updates)
        answer = admit(server, updates)
        begun = server.resources.module(updates.global_state)
        of = list(views(begun, spec, server.images, 0.01, torch.Generator()))
        step = answer.weights - updates.global_weights
        hidden = (step - visible_update(step, of)).norm() / step.norm()
        assert hidden < 0.03, number
        assert ("visible_step" in answer.diagnostics) == (name != "fedavgm")


def test_where_no_single_update_is_looked_at_it_streams(
    open_server, model, clean, make_updates, make_resources
):
    args = {"coalition": None, "clip": False}
    assert can_stream(DropPlus, DropPlusArgs(**args))
    assert not can_stream(DropPlus, DropPlusArgs(coalition=None))
    assert not can_stream(DropPlus, DropPlusArgs(clip=False))
    updates = a_round(model, clean, 1, make_updates)
    stream = Stream(open_server(**args), 1, updates.global_state)
    for row, client in enumerate(updates.client_ids):
        stream.accept(client, updates.state(row), 1.0)
    answer, whole = stream.finish(), open_server(**args).aggregate(updates)
    assert torch.allclose(answer.weights, whole.weights, atol=1e-6)
    assert [v.accepted for v in answer.verdicts] == [True] * CLIENTS


def test_a_model_whose_layers_are_not_called_and_few_images_are_warned_of_once(
    clean, make_updates, make_resources, caplog
):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x):
            return nn.functional.linear(x.flatten(1), self.layer.weight, self.layer.bias)

    model = Functional()
    few = CleanData(clean.x[:20], clean.y[:20])
    server = DropPlus(DropPlusArgs(), make_resources(model, clean=few, classes=10, image=(1, 8)))
    for number in (1, 2):
        server.aggregate(a_round(model, clean, number, make_updates))
    first, second = (record.message for record in caplog.records)
    assert "only 0 % of the model's parameters are of modules through which the clean" in first
    assert "20 clean images show little" in second


def test_who_pushed_with_others_and_stops_comes_back_in_the_end(
    open_server, model, clean, make_updates
):
    """What is remembered fades; `docs/DROP_PLUS.md` says about when."""
    server, back = open_server(), 0
    for number in range(1, 60):
        bad = BAD if number <= 6 else ()
        answer = server.aggregate(a_round(model, clean, number, make_updates, bad=bad))
        refused = {v.client for v in answer.verdicts if not v.accepted}
        assert refused in (set(), set(BAD))
        if number > 6 and not refused:
            back = back or number
    assert 30 < back < 50


def test_clients_that_come_seldom_or_late_are_compared_once_seen_often_enough(
    open_server, model, clean, make_updates
):
    server = open_server()
    for number in range(1, 17):
        updates = a_round(model, clean, number, make_updates)
        rows = [row for row in range(CLIENTS) if (row + number) % 2 and (row != 4 or number > 4)]
        answer = server.aggregate(updates.select(rows))
    refused = {v.client for v in answer.verdicts if not v.accepted}
    assert refused == {client for client in BAD if (client + number) % 2}


def test_more_images_than_the_server_holds_are_refused():
    setting = Setting(round_size=10, clean_samples=299, image=(1, 28))
    with pytest.raises(ConfigError, match=r"num_seed = 300: needs 300 clean samples .* holds 299;"):
        DropPlus.check(DropPlusArgs(num_seed=300), setting)
    with pytest.raises(ConfigError, match=r"num_seed = null: needs 2 clean samples"):
        DropPlus.check(DropPlusArgs(), setting._replace(clean_samples=1))
    DropPlus.check(DropPlusArgs(), setting)
    DropPlus.check(DropPlusArgs(num_seed=299), setting)


def test_what_it_is_granted_depends_on_what_is_switched_on():
    assert str(DropPlus.needs(DropPlusArgs(coalition=None, clip=False))) == "clean data"
    granted = str(DropPlus.needs(DropPlusArgs()))
    assert "labels" not in granted
    assert "client identity" in granted


def test_of_words_that_clean_samples_have_not_the_median_is_taken(make_updates, make_resources):
    """Where each update may be looked at; one of three clients alone knows word 5."""
    net = nn.Sequential(nn.Embedding(6, 2), nn.Flatten(), nn.Linear(4, 3))
    spec, slot = ParamSpec.of(net), ParamSpec.of(net).slot("0.weight")
    words = torch.zeros(3, 6, 2)
    words[:, 4], words[2, 5] = torch.tensor([[1.0], [2.0], [6.0]]), 3.0
    rows = torch.zeros(3, spec.num_parameters)
    rows[:, slot.start : slot.stop] = words.flatten(1)
    updates = make_updates(rows, model=net)
    clean = CleanData(torch.tensor([[0, 1], [2, 3]]), torch.tensor([0, 1]))
    resources = make_resources(net, clean=clean, classes=3, server_lr=0.5)
    for clip, of_four in ((True, None), (False, 0.0)):
        args = DropPlusArgs(clip=clip, coalition=None, num_seed=2)
        moved = DropPlus(args, resources).aggregate(updates).weights - updates.global_weights
        norms = updates.deltas.norm(dim=1)
        bounded = words[:, 4, 0] * (norms.median() / norms).clamp_max(1)
        expected = 0.5 * float(bounded.median()) if of_four is None else of_four
        assert slot.of(moved)[4].tolist() == pytest.approx([expected] * 2)
        assert slot.of(moved)[5].tolist() == pytest.approx([0, 0])
