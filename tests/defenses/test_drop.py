import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from entity.config import schema
from entity.config.schema import ConfigError
from entity.defenses import (
    DEFENSES,
    Drop,
    DropArgs,
    Droplet,
    DropletArgs,
    Undefended,
    UndefendedArgs,
)
from entity.distill import maze
from entity.engine.local_training import single_threaded
from entity.layout import ModelState, ParamSpec
from entity.models import build
from entity.seeding import global_stream
from entity.server import CleanData, Needs, Setting
from entity.server import admit as pass_gate
from entity.training import accuracy, logits

SIZE, CLASSES = 8, 3


@pytest.fixture(autouse=True)
def _one_thread():
    with single_threaded():
        yield


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def net(generator):
    """A small classifier with BatchNorm, drawn from a generator."""
    with global_stream(generator):
        return nn.Sequential(
            nn.Conv2d(1, 3, 3, 2, 1),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(48, CLASSES),
        )


MODEL = net(rng(100))
SPEC = ParamSpec.of(MODEL)
START = SPEC.flatten(MODEL)

SMALL = DropArgs(
    K=1,
    reward=0.5,
    distill_iters=2,
    batch_size=4,
    gen_width=3,
    dis_width=3,
    latent_dim=4,
    num_seed=8,
    iter_clone=2,
    iter_exp=1,
    alpha_gan=0,
    lr_clone=0.05,
)
STILL = replace(SMALL, lr_clone=1e-9, lr_gen=1e-9, lr_dis=1e-9)
"""A distillation that moves nothing, to see where its networks start."""


@pytest.fixture
def world(make_updates, make_resources):
    """Rounds of five benign clients and a far one, on a small network."""

    class World:
        @staticmethod
        def round(number=1, *, far=(5,), n=6, start=START, scale=0.02, seed=0, **more):
            generator = rng(1000 * seed + number)
            deltas = scale * torch.randn(n, SPEC.num_parameters, generator=generator)
            for row in far:
                deltas[row] += 3
            buffers = start.buffers + 0.1 * torch.rand(n, SPEC.num_buffers, generator=generator)
            buffers[:, SPEC.counters] = number + torch.arange(n)[:, None].float()
            return make_updates(
                deltas,
                buffers=buffers,
                model=MODEL,
                origin=start.weights,
                global_buffers=start.buffers,
                round=number,
                **more,
            )

        @staticmethod
        def server(args=SMALL, kind=Drop, **changes):
            fields = {"build": net, "image": (1, SIZE), "classes": CLASSES}
            return kind(args, make_resources(MODEL, **(fields | changes)))

    return World


def bands(count, seed, size=SIZE):
    y = torch.randint(CLASSES, (count,), generator=rng(seed))
    x = torch.randn(count, 1, size, size, generator=rng(seed + 1)) * 0.2 - 0.6
    for k in range(CLASSES):
        x[y == k, :, (k * size) // 3 : ((k + 1) * size) // 3] += 1.2
    return CleanData(x.clamp(-1, 1), y)


def accepted(answer):
    return {verdict.client for verdict in answer.verdicts if verdict.accepted}


def same_state(a, b):
    return torch.equal(a.weights, b.weights) and torch.equal(a.buffers, b.buffers)


def far_apart(a, b):
    return float((a.weights - b.weights).norm()) > 0.05


# The decisions of a round, against a transcription of the paper's first two stages


class Transcription:
    """Ward's 2-cut by the Lance-Williams recurrence, penalties, admission, FedAvg; in NumPy."""

    def __init__(self, penalty, reward, limit):
        self.penalty, self.reward, self.limit = penalty, reward, limit
        self.points, self.blacklist = {}, set()

    def two_groups(self, x):
        n = len(x)
        sizes, members = [1] * n, [[i] for i in range(n)]
        d = ((x[:, None] - x[None]) ** 2).sum(-1)
        alive = list(range(n))
        while len(alive) > 2:
            _, a, b = min((d[i, j], i, j) for i in alive for j in alive if i < j)
            grown = np.full((len(d) + 1, len(d) + 1), np.inf)
            grown[:-1, :-1] = d
            for k in alive:
                if k in (a, b):
                    continue
                total = sizes[k] + sizes[a] + sizes[b]
                grown[k, -1] = grown[-1, k] = (
                    (sizes[k] + sizes[a]) * d[k, a]
                    + (sizes[k] + sizes[b]) * d[k, b]
                    - sizes[k] * d[a, b]
                ) / total
            d = grown
            sizes.append(sizes[a] + sizes[b])
            members.append(members[a] + members[b])
            alive = [k for k in alive if k not in (a, b)] + [len(d) - 1]
        return [members[k] for k in alive]

    def round(self, ids, weights, global_weights):
        x = weights - global_weights

        def merit(group):
            points = np.mean([self.points.get(ids[i], 0) for i in group])
            spread = ((x[group] - x[group].mean(0)) ** 2).sum(1).mean()
            return -len(group), points, spread, min(ids[i] for i in group)

        majority = min(self.two_groups(x), key=merit)
        for i, client in enumerate(ids):
            if i in majority:
                self.points[client] = max(0, self.points.get(client, 0) - self.reward)
            else:
                self.points[client] = self.points.get(client, 0) + self.penalty
                if self.points[client] >= self.limit:
                    self.blacklist.add(client)
        kept = [
            i in majority and self.points[c] <= 1e-9 and c not in self.blacklist
            for i, c in enumerate(ids)
        ]
        mean = weights[kept].mean(0) if any(kept) else global_weights
        return kept, mean


@pytest.mark.parametrize("kind", ["droplet", "drop"])
def test_every_decision_of_forty_rounds_is_the_transcriptions(make_updates, make_resources, kind):
    draw = np.random.default_rng(5)
    golden = Transcription(1.0, 0.5, 6.0)
    args = {"penalty": 1.0, "reward": 0.5, "blacklist_threshold": 6.0}
    origin = draw.normal(size=4).astype(np.float32)
    first = make_updates(np.zeros((1, 4)), origin=origin.tolist())
    resources = make_resources(first)
    server = (
        Droplet(DropletArgs(**args), resources)
        if kind == "droplet"
        else Drop(DropArgs(K=-1, **args), resources)
    )
    kinds = set()
    for number in range(1, 41):
        n = int(draw.integers(4, 9))
        ids = sorted(draw.choice(12, n, replace=False).tolist())
        deltas = draw.normal(size=(n, 4)) * draw.uniform(0.5, 2)
        deltas[[client < 4 for client in ids]] += draw.uniform(0, 4)  # four that often stand off
        updates = make_updates(deltas, ids=ids, origin=origin.tolist(), round=number)
        kept, mean = golden.round(ids, updates.weights.double().numpy(), origin.astype(float))
        answer = server.aggregate(updates)
        assert [v.accepted for v in answer.verdicts] == kept, number
        assert [v.score for v in answer.verdicts] == [golden.points[c] for c in ids]
        np.testing.assert_allclose(answer.weights.numpy(), mean, atol=1e-5)
        assert [v.weight > 0 for v in answer.verdicts] == kept
        kinds.add("nobody" if not any(kept) else "all" if all(kept) else "some")
        origin = answer.weights.numpy()
    assert server.activity.blacklist == golden.blacklist != set()
    assert "some" in kinds


# When it distils


def test_with_K_minus_one_it_is_droplet_to_the_bit(world):
    one = world.server(DropArgs(K=-1, reward=0.5))
    two = world.server(DropletArgs(reward=0.5), Droplet)
    start = START
    for number in range(1, 8):
        updates = world.round(number, far=(number % 6,), start=start, scale=0.02)
        a, b = one.aggregate(updates), two.aggregate(updates)
        assert same_state(a, b)
        assert a.verdicts == b.verdicts
        assert a.diagnostics == b.diagnostics
        assert a.artifacts.keys() == b.artifacts.keys()
        start = a.state
    own = one.state_dict()
    assert {key: own[key] for key in two.state_dict()} == two.state_dict()


@pytest.mark.parametrize(
    ("K", "K_start", "fires"),
    [
        (3, 0, [3, 6, 9]),
        (1, 0, list(range(1, 11))),
        (1, 4, list(range(4, 11))),
        (2, 5, [6, 8, 10]),
        (4, 4, [4, 8]),
        (20, 0, []),
        (-1, 0, []),
    ],
)
def test_it_distils_in_every_Kth_round_from_K_start_on(world, K, K_start, fires):
    args = replace(SMALL, K=K, K_start=K_start, distill_iters=1, iter_exp=0, iter_clone=1)
    server, plain = world.server(args), world.server(DropletArgs(reward=0.5), Droplet)
    fired = []
    for number in range(1, 11):
        updates = world.round(number)
        answer, averaged = server.aggregate(updates), plain.aggregate(updates)
        assert answer.verdicts == averaged.verdicts
        if not same_state(answer, averaged):
            fired.append(number)
        assert answer.diagnostics.get("distilled", 0) == float(number in fires)
    assert fired == fires


def test_a_student_replaces_the_average_and_is_no_average(world):
    updates = world.round()
    server = world.server()
    answer = server.aggregate(updates)
    averaged = world.server(DropletArgs(reward=0.5), Droplet).aggregate(updates)
    mean = world.server(UndefendedArgs(), Undefended).aggregate(updates)
    for other in (averaged, mean, updates.global_state):
        assert far_apart(answer, other)
    assert accepted(answer) == {0, 1, 2, 3, 4}
    assert answer.diagnostics["distill_iterations"] == 2
    assert answer.artifacts["generated"].shape == (16, 1, SIZE, SIZE)
    assert answer.artifacts["generated"].dtype == torch.uint8
    assert {"cluster", "average"} < set(answer.seconds)
    assert any(phase.startswith("distill") for phase in answer.seconds)


def test_the_student_learns_what_the_admitted_clients_know(world):
    # Clients that answer with class 2 for everything; the far one says class 0.
    updates = world.round(scale=0.001)
    bias = SPEC.slot("4.bias").of(updates.weights)
    bias[:5] += torch.tensor([-2.0, 0.0, 4.0])
    bias[5] += torch.tensor([9.0, 0.0, 0.0])
    args = replace(SMALL, distill_iters=25, batch_size=16, iter_exp=4, loss_type="l1")
    server = world.server(args)
    answer = server.aggregate(updates)
    student = server.resources.module(answer.state)
    x = bands(60, 3).x
    before = server.resources.module(updates.global_state)
    teacher = torch.stack(
        [logits(server.resources.module(updates.state(row)), x) for row in range(5)]
    ).mean(0)
    gap = (logits(student, x) - teacher).abs().mean()
    assert float(gap) < 0.4 * float((logits(before, x) - teacher).abs().mean())
    assert (logits(student, x).argmax(1) == 2).all()


def test_equal_seeds_give_equal_students_and_rounds_differ(world):
    one, two = world.server().aggregate(world.round()), world.server().aggregate(world.round())
    assert same_state(one, two)
    assert not same_state(one, world.server(seed=1).aggregate(world.round()))
    later = replace(world.round(), round=2)
    assert not same_state(one, world.server().aggregate(later))


def test_it_draws_nothing_from_the_global_stream(world):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    server = world.server(replace(SMALL, finetune=True, alpha_gan=0), clean=bands(16, 0))
    server.aggregate(world.round())
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_draws_from_the_servers_seeds_too(world, make_updates):
    def dropping(generator):
        with global_stream(generator):
            return nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(SIZE**2, CLASSES))

    model = dropping(rng())
    spec = ParamSpec.of(model)
    deltas = 0.01 * torch.randn(5, spec.num_parameters, generator=rng(1))
    updates = make_updates(deltas, model=model, origin=spec.flatten(model).weights)
    args = replace(SMALL, finetune=True, reference_model=True)
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        server = world.server(args, spec=spec, build=dropping, clean=bands(16, 0))
        weights.append(server.aggregate(updates).weights)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*weights)


def test_the_answer_is_no_view_of_the_rounds_matrix(world):
    for args in (SMALL, replace(SMALL, prev_global_weight=1.0), replace(SMALL, K=-1)):
        updates = world.round()
        answer = world.server(args).aggregate(updates)
        kept = answer.weights.clone(), answer.buffers.clone()
        updates.weights.zero_()
        updates.buffers.zero_()
        assert same_state(answer, ModelState(*kept))


# Who teaches


def test_only_admitted_clients_teach(world):
    one, two, three = world.round(), world.round(), world.round()
    two.weights[5] += torch.randn(SPEC.num_parameters, generator=rng(1))  # refused all the same
    two.buffers[5] += 1
    three.weights[2] += 0.01 * torch.randn(SPEC.num_parameters, generator=rng(1))
    answers = [world.server().aggregate(updates) for updates in (one, two, three)]
    assert [accepted(answer) for answer in answers] == [{0, 1, 2, 3, 4}] * 3
    assert same_state(answers[0], answers[1])
    assert not same_state(answers[0], answers[2])


def test_a_client_in_the_majority_that_still_has_points_does_not_teach(world):
    server = world.server()
    server.activity.observe([], [2])
    answer = server.aggregate(world.round())
    assert accepted(answer) == {0, 1, 3, 4}
    questions = 4 + 1 + 2 * 4 * 2
    assert answer.diagnostics["distill_member_forwards"] == 4 * questions


def test_without_an_ensemble_the_average_teaches_alone(world):
    answer = world.server(replace(SMALL, ensemble=False)).aggregate(world.round())
    assert answer.diagnostics["distill_member_forwards"] == 4 + 1 + 2 * 4 * 2
    updates = world.round()
    mean = world.server(replace(SMALL, K=-1)).aggregate(updates)
    updates.weights[:5] = mean.weights
    updates.buffers[:5] = mean.buffers
    again = world.server(replace(SMALL, ensemble=False)).aggregate(updates)
    torch.testing.assert_close(answer.weights, again.weights, atol=1e-4, rtol=1e-3)
    updates.weights[:5] += 0.5
    other = world.server(replace(SMALL, ensemble=False)).aggregate(updates)
    assert float((other.weights - answer.weights).norm()) > 0.01


# Where the student starts


def test_a_clone_starts_from_the_model_before_the_round(world):
    updates = world.round()
    answer = world.server(replace(STILL, clone_init_with_global=True)).aggregate(updates)
    torch.testing.assert_close(answer.weights, updates.global_weights, atol=1e-5, rtol=0)
    averaged = world.server(replace(SMALL, K=-1)).aggregate(updates)
    assert far_apart(averaged, updates.global_state)


def test_else_it_starts_from_random_weights(world):
    updates = world.round()
    answer = world.server(STILL).aggregate(updates)
    weight = SPEC.slot("0.weight").of(answer.weights)
    assert float(weight.abs().max()) <= 1 / 3  # drawn between plus and minus 1 / sqrt(fan-in)
    assert float(weight.std()) > 0.1
    assert far_apart(answer, updates.global_state)
    elsewhere = world.round(start=START._replace(weights=START.weights * 5))
    again = world.server(STILL).aggregate(elsewhere)
    torch.testing.assert_close(again.weights, answer.weights, atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_random_weights_are_mixed_into_the_clone_by_their_share(world, share):
    updates = world.round()
    fresh = world.server(STILL).aggregate(updates).weights
    args = replace(STILL, clone_init_with_global=True, random_S_alpha=share)
    expected = (1 - share) * updates.global_weights + share * fresh
    found = world.server(args).aggregate(updates).weights
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [1.0, 0.75, 0.0])
def test_the_student_of_before_is_mixed_in_by_the_rest(world, share):
    server = world.server(replace(STILL, random_weight_S=share))
    first = server.aggregate(world.round(1)).weights
    second = server.aggregate(world.round(2)).weights
    fresh = world.server(STILL).aggregate(world.round(2)).weights
    torch.testing.assert_close(second, share * fresh + (1 - share) * first, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        first, world.server(STILL).aggregate(world.round(1)).weights, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(("name", "field"), [("generator", "G"), ("critic", "D")])
def test_generator_and_critic_of_before_are_mixed_in_too(world, name, field):
    big = 12
    model = nn.Sequential(nn.Flatten(), nn.Linear(big * big, CLASSES))
    spec = ParamSpec.of(model)

    def built(generator):
        with global_stream(generator):
            return nn.Sequential(nn.Flatten(), nn.Linear(big * big, CLASSES))

    def played(share):
        args = replace(STILL, alpha_gan=0.5, distill_iters=1, **{f"random_weight_{field}": share})
        server = world.server(args, spec=spec, build=built, image=(1, big), clean=bands(8, 0, big))
        states = []
        for number in (1, 2):
            deltas = 0.01 * torch.randn(5, spec.num_parameters, generator=rng(number))
            start = spec.flatten(model)
            updates = replace(
                world.round(number, n=5, far=()),
                weights=start.weights + deltas,
                buffers=torch.empty(5, 0),
                global_weights=start.weights,
                global_buffers=torch.empty(0),
                spec=spec,
            )
            server.aggregate(updates)
            states.append(server.distiller.previous[name].weights.clone())
        return states

    first, fresh = played(1.0)
    again, mixed = played(0.25)
    torch.testing.assert_close(again, first, atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed, 0.25 * fresh + 0.75 * first, atol=1e-5, rtol=0)
    assert float((fresh - first).norm()) > 0.5


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_averaged_model_is_mixed_into_the_student(world, share):
    updates = world.round()
    student = world.server().aggregate(updates)
    averaged = world.server(replace(SMALL, K=-1)).aggregate(updates)
    found = world.server(replace(SMALL, prev_global_weight=share)).aggregate(updates)
    statistics = ~SPEC.counters
    for name, chosen in (("weights", slice(None)), ("buffers", statistics)):
        a, b = getattr(student, name)[chosen], getattr(averaged, name)[chosen]
        torch.testing.assert_close(getattr(found, name)[chosen], (1 - share) * a + share * b)
    if share == 0:
        assert same_state(found, student)
    else:
        highest = torch.maximum(student.buffers, averaged.buffers)
        assert torch.equal(found.buffers[SPEC.counters], highest[SPEC.counters])
        assert float(found.buffers[SPEC.variances].min()) > 0


# Rounds without anybody


@pytest.mark.parametrize("reschedule", [False, True])
def test_a_distillation_that_found_nobody_is_made_up_for_where_asked(world, reschedule):
    args = replace(SMALL, K=3, reward=1.0, reschedule=reschedule)
    server = world.server(args)
    # Everybody has points until round 5.
    server.activity.load_state_dict({"points": [[c, 5.0] for c in range(6)], "blacklist": []})
    distilled = []
    for number in range(1, 9):
        updates = world.round(number)
        answer = server.aggregate(updates)
        if number < 5:
            assert accepted(answer) == set()
            assert same_state(answer, updates.global_state)
        if answer.diagnostics.get("distilled"):
            distilled.append(number)
        if number == 3:  # what is due survives a restart
            server, state = world.server(args), server.state_dict()
            server.load_state_dict(state)
    assert distilled == ([5, 6] if reschedule else [6])


@pytest.mark.parametrize("reschedule", [False, True])
def test_a_distillation_due_in_a_round_without_a_sound_update_is_made_up_for(world, reschedule):
    """Regression: a server is not asked in such a round, and forgot what was due in it."""
    args = replace(SMALL, K=3, K_start=3, reschedule=reschedule)
    server = world.server(args)
    distilled = []
    for number in (1, 2, 5, 7, 8, 9):
        answer = server.aggregate(world.round(number))
        if answer.diagnostics.get("distilled"):
            distilled.append(number)
        server, state = world.server(args), server.state_dict()
        server.load_state_dict(state)
    assert distilled == ([5, 7, 9] if reschedule else [9])


def test_a_distillation_whose_round_kept_the_model_is_due_again(world):
    server = world.server(replace(SMALL, K=3, reschedule=True))
    for number in (1, 2, 3):
        server.aggregate(world.round(number))
    server.withdrawn()  # as the gate says where the answer was not finite
    assert server.aggregate(world.round(4)).diagnostics.get("distilled")
    server.withdrawn()
    assert server.aggregate(world.round(5)).diagnostics.get("distilled")


# Clean data


def test_needs_are_no_more_than_what_is_used():
    base = Needs(client_identity=True, individual_updates=True, honest_majority=True, images=True)
    images, both = replace(base, clean_data=True), replace(base, clean_data=True, clean_labels=True)
    free = DropArgs(alpha_gan=0)
    assert Drop.needs(DropArgs()) == images
    assert Drop.needs(free) == base
    without = DropArgs(K=-1, finetune=True, early_stopping=True)
    assert Drop.needs(without) == replace(base, images=False)
    assert Drop.needs(replace(free, finetune=True)) == both
    assert Drop.needs(replace(free, early_stopping=True)) == both
    assert Drop.needs(replace(free, reference_model=True)) == replace(both, honest_majority=False)
    judged = replace(both, honest_majority=False, images=False)
    assert Drop.needs(DropArgs(K=-1, reference_model=True)) == judged


def test_without_a_critic_it_runs_without_any_clean_data(world):
    blind = world.server(clean=None).aggregate(world.round())
    assert blind.diagnostics["distilled"] == 1
    seeing = world.server(clean=bands(20, 0)).aggregate(world.round())
    assert same_state(blind, seeing)
    assert math.isnan(blind.diagnostics["student_accuracy_held_out"])


@pytest.fixture
def shown(monkeypatch):
    """The clean parts that each distillation is shown: (seeds, holdout)."""
    parts = []
    inner = maze.distill

    def spy(*args, holdout=None, **more):
        parts.append((args[1], holdout))
        return inner(*args, holdout=holdout, **more)

    monkeypatch.setattr(maze, "distill", spy)
    return parts


def rows_of(x):
    return {tuple(image.flatten().tolist()) for image in x}


def test_progress_is_measured_on_what_is_not_among_the_seeds(world, shown):
    clean = bands(20, 0)
    args = replace(SMALL, finetune=True, early_stopping=True, num_seed=7)
    server = world.server(args, clean=clean)
    for number in (1, 2):
        server.aggregate(world.round(number))
    for seeds, hold in shown:
        assert (len(seeds), len(hold.x), len(hold.y)) == (7, 13, 13)
        assert not rows_of(seeds) & rows_of(hold.x)
        assert rows_of(seeds) | rows_of(hold.x) == rows_of(clean.x)
        labels = {tuple(x.flatten().tolist()): int(y) for x, y in zip(*clean, strict=True)}
        assert all(
            labels[tuple(x.flatten().tolist())] == int(y) for x, y in zip(*hold, strict=True)
        )
    assert torch.equal(shown[0][0], shown[1][0])  # the seeds stay the same
    assert not torch.equal(shown[0][0], clean.x[:7])  # and are drawn, not the first


def test_data_free_early_stopping_holds_everything_out(world, shown):
    clean = bands(20, 0)
    args = replace(SMALL, early_stopping=True, log_iter=1, frac_recover_acc=1e-9, distill_iters=9)
    answer = world.server(args, clean=clean).aggregate(world.round())
    seeds, hold = shown[0]
    assert len(seeds) == 0
    assert rows_of(hold.x) == rows_of(clean.x)
    assert answer.diagnostics["distill_iterations"] == 1
    assert 0 <= answer.diagnostics["teacher_accuracy_held_out"] <= 1


def test_fine_tuning_changes_the_student_and_for_the_better(world):
    clean = bands(48, 0)
    base = replace(SMALL, num_seed=32)
    args = replace(base, finetune=True, finetune_lr=0.1, finetune_epochs=15)
    plain = world.server(base, clean=clean).aggregate(world.round())
    server = world.server(args, clean=clean)
    tuned = server.aggregate(world.round())
    assert far_apart(plain, tuned)
    before, after = (server.resources.module(answer.state) for answer in (plain, tuned))
    assert accuracy(before, *clean) < 0.75
    assert accuracy(after, *clean) > 0.9
    untouched = replace(args, finetune_epochs=0)
    assert same_state(world.server(untouched, clean=clean).aggregate(world.round()), plain)


def test_fine_tuning_never_sees_what_is_held_out(world, shown):
    clean = bands(20, 0)
    args = replace(SMALL, finetune=True, num_seed=8)
    one = world.server(args, clean=clean).aggregate(world.round())
    held = rows_of(shown[0][1].x)
    y = torch.tensor(
        [
            (int(y) + 1) % 3 if tuple(x.flatten().tolist()) in held else int(y)
            for x, y in zip(*clean, strict=True)
        ]
    )
    assert (y != clean.y).sum() == 12
    two = world.server(args, clean=CleanData(clean.x, y)).aggregate(world.round())
    assert same_state(one, two)
    three = world.server(args, clean=CleanData(clean.x, (clean.y + 1) % 3))
    assert not same_state(one, three.aggregate(world.round()))


def test_the_whole_of_drop_runs_at_the_sizes_of_mnist(make_updates, make_resources):
    model = build("cnn", 1, 28, 10, rng())
    spec = ParamSpec.of(model)
    args = DropArgs(
        K=2,
        distill_iters=1,
        batch_size=4,
        num_seed=8,
        gen_width=4,
        dis_width=4,
        augment=True,
        clone_init_with_global=True,
        loss_type="l1",
        model_gen="conv3_cgen",
        opt="adam",
        lr_scheduler="cosine_warm",
    )
    clean = CleanData(torch.rand(12, 1, 28, 28) * 2 - 1, torch.arange(12) % 10)
    augmented = []
    resources = make_resources(
        model,
        image=(1, 28),
        classes=10,
        clean=clean,
        augment=lambda x, generator: augmented.append(len(x)) or x.flip(3),
        build=lambda generator: build("cnn", 1, 28, 10, generator),
    )
    deltas = 0.01 * torch.randn(4, spec.num_parameters, generator=rng(1))
    updates = make_updates(deltas, model=model, origin=spec.flatten(model).weights, round=2)
    answer = Drop(args, resources).aggregate(updates)
    assert answer.diagnostics["distilled"] == 1
    assert augmented == [4] * args.iter_clone
    assert 0 <= answer.diagnostics["student_accuracy_held_out"] <= 1
    assert answer.weights.isfinite().all()


# Teachers and students that go wrong


def test_an_unbounded_teacher_is_left_out(world):
    """With the mean, since the median of the statistics knows the sixth client, too."""
    args = replace(SMALL, client_cluster_filtering=False)
    for bad in (1e4, 1e38):
        updates = world.round(far=())
        SPEC.slot("4.weight").of(updates.weights)[3] = bad
        SPEC.slot("4.bias").of(updates.weights)[3] = bad
        answer = world.server(args, bn_policy="weighted").aggregate(updates)
        alone = world.server(args, bn_policy="weighted").aggregate(updates.select([0, 1, 2, 4, 5]))
        assert answer.diagnostics["distill_teachers_removed"] == 1
        assert answer.diagnostics["distilled"] == 1
        assert same_state(answer, alone)


@pytest.mark.parametrize("bad", [1e4, 1e38])
def test_with_unbounded_teachers_alone_the_averaged_model_is_kept(world, bad):
    updates = world.round(far=())
    SPEC.slot("4.bias").of(updates.weights)[:] += bad
    args = replace(SMALL, client_cluster_filtering=False)
    server = world.server(args)
    answer = server.aggregate(updates)
    averaged = world.server(replace(args, K=-1)).aggregate(updates)
    assert same_state(answer, averaged)
    assert answer.diagnostics["distill_teachers_removed"] == 6
    assert answer.diagnostics["distilled"] == 0
    assert server.distiller.previous == {}
    assert "generated" not in answer.artifacts


def test_a_student_that_diverged_never_becomes_the_global_model(world):
    updates = world.round()
    server = world.server(replace(SMALL, lr_clone=1e30, loss_type="l1"))
    answer = server.aggregate(updates)
    averaged = world.server(replace(SMALL, K=-1)).aggregate(updates)
    assert same_state(answer, averaged)
    assert answer.diagnostics["distilled"] == 0
    assert server.distiller.previous == {}


def collapse(monkeypatch):
    """Let every distillation end with a student that says class 0 for everything."""
    inner = maze.distill

    def bad(networks, *args, **more):
        report = inner(networks, *args, **more)
        with torch.no_grad():
            networks.student[4].weight.zero_()
            networks.student[4].bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
        return report

    monkeypatch.setattr(maze, "distill", bad)


def round_of_experts(world):
    """A round whose clients say class 2 for everything."""
    updates = world.round(scale=0.001)
    SPEC.slot("4.bias").of(updates.weights)[:5] += torch.tensor([-4.0, 0.0, 8.0])
    return updates


GUARDED = replace(SMALL, min_agreement=0.5, random_weight_S=0.5)


@pytest.mark.parametrize("clean", [None, bands(20, 0)])
def test_a_collapsed_student_never_replaces_a_good_model(world, monkeypatch, caplog, clean):
    collapse(monkeypatch)
    server = world.server(GUARDED, clean=clean)
    with caplog.at_level("WARNING", "entity"):
        answer = server.aggregate(round_of_experts(world))
    averaged = world.server(replace(SMALL, K=-1)).aggregate(round_of_experts(world))
    assert same_state(answer, averaged)
    assert answer.diagnostics["distilled"] == 0
    assert answer.diagnostics["student_agreement"] == 0
    assert server.distiller.previous == {}  # nor is it mixed into the next student
    (said,) = caplog.messages
    for word in ("round 1", "0.0 %", "min_agreement = 0.5", "averaged model is kept"):
        assert word in said


def test_without_the_guard_a_collapsed_student_replaces_it(world, monkeypatch):
    collapse(monkeypatch)
    args = replace(GUARDED, min_agreement=None)
    answer = world.server(args).aggregate(round_of_experts(world))
    assert answer.diagnostics["distilled"] == 1
    assert "student_agreement" not in answer.diagnostics
    assert SPEC.slot("4.weight").of(answer.weights).abs().sum() == 0


def test_a_good_student_passes_the_guard_unchanged(world):
    args = replace(SMALL, distill_iters=25, batch_size=16, iter_exp=4, loss_type="l1")
    plain = world.server(args).aggregate(round_of_experts(world))
    guarded = world.server(replace(args, min_agreement=0.9)).aggregate(round_of_experts(world))
    assert same_state(plain, guarded)
    assert guarded.diagnostics["distilled"] == 1
    assert guarded.diagnostics["student_agreement"] >= 0.9


def test_the_guard_reads_no_label(world):
    answers = []
    for shift in (0, 1):
        clean = bands(20, 0)
        clean = clean._replace(y=(clean.y + shift) % 3)
        answers.append(world.server(GUARDED, clean=clean).aggregate(world.round()))
    assert same_state(*answers)
    figures = [answer.diagnostics["student_agreement"] for answer in answers]
    assert figures[0] == figures[1]
    assert not Drop.needs(GUARDED).clean_labels
    assert Drop.needs(replace(GUARDED, plateau=0.1, cycles=2)) == Drop.needs(SMALL)


def test_a_plateau_ends_a_servers_distillation(world):
    args = replace(SMALL, distill_iters=8, cycles=4, plateau=1.0)
    args = replace(args, clone_init_with_global=True, lr_clone=1e-9)
    answer = world.server(args).aggregate(world.round())
    assert answer.diagnostics["distill_iterations"] == 2
    assert 0 <= answer.diagnostics["student_agreement"] <= 1


def test_a_client_with_nan_does_not_stop_a_distillation(world):
    updates = world.round()
    updates.weights[2, 7] = math.nan
    answer = pass_gate(world.server(), updates)
    assert accepted(answer) == {0, 1, 3, 4}
    assert answer.diagnostics["distilled"] == 1
    assert answer.weights.isfinite().all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_small_rounds_distil_too(world, n):
    answer = world.server().aggregate(world.round(n=n, far=()))
    assert answer.diagnostics["distilled"] == 1
    assert answer.weights.isfinite().all()


# State


def plain(value):
    """Check that a state holds only what a checkpoint can, and copy it through JSON."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    assert value is None or isinstance(value, int | float | str | bool)
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (0.75, 1.0, 1.0), (1.0, 0.75, 0.5)])
def test_a_restored_server_continues_to_the_bit(world, shares):
    names = ("random_weight_S", "random_weight_G", "random_weight_D")
    args = replace(SMALL, K=2, reschedule=True, **dict(zip(names, shares, strict=True)))
    one = world.server(args)
    for number in (1, 2, 3):
        one.aggregate(world.round(number, far=(number,)))
    two = world.server(args)
    two.load_state_dict(plain(one.state_dict()))
    for number in (4, 5, 6):
        updates = world.round(number)
        a, b = one.aggregate(updates), two.aggregate(updates)
        assert same_state(a, b)
        assert a.verdicts == b.verdicts
    if min(shares) < 1:
        fresh = world.server(args)
        assert not same_state(fresh.aggregate(world.round(6)), one.aggregate(world.round(6)))


def test_networks_that_nobody_will_mix_in_are_not_saved(world):
    server = world.server()
    server.aggregate(world.round())
    assert server.state_dict()["previous"] == {}


# What it refuses


FINE = Setting(round_size=25, clean_samples=2000, image=(3, 32))


@pytest.mark.parametrize(
    ("args", "setting", "words"),
    [
        ({"K": 0}, FINE, ["K = 0", "-1 (never)", "at least 1"]),
        ({"K": -2}, FINE, ["K = -2", "-1 (never)", "at least 1"]),
        ({"iter_dis": 6}, FINE, ["iter_dis = 6", "iter_clone = 5", "lower it"]),
        ({"opt": "adam", "cycles": 4}, FINE, ["cycles = 4", "opt = adam", "use sgd"]),
        ({"plateau": 0.02}, FINE, ["plateau = 0.02", "at least 2", "raise cycles"]),
        ({"model_gen": "conv3_gem"}, FINE, ["model_gen", "conv3_gem", "mean conv3_gen?"]),
        ({"model_dis": "conv3_dist"}, FINE, ["model_dis", "conv3_dist", "mean conv3_dis?"]),
        (
            {"stealing_method": "dfme", "budget": 100.0, "batch_size": 512},
            FINE,
            ["budget = 100", "512 queries", "raise it or lower batch_size"],
        ),
        (
            {},
            FINE._replace(image=(1, 30)),
            ["model_gen = conv3_gen", "multiple of 4", "30", "set K to -1"],
        ),
        ({}, FINE._replace(image=(1, 8)), ["model_dis = conv3_dis", "12", "8", "alpha_gan to 0"]),
        (
            {"budget": 1000.0, "batch_size": 512},
            FINE,
            ["budget = 1000", "7680", "raise it or lower batch_size"],
        ),
        (
            {"num_seed": 2001},
            FINE,
            ["num_seed = 2001", "2000 clean", "lower it or raise server.held_out"],
        ),
        (
            {"num_seed": 60, "alpha_gan": 0.0, "finetune": True},
            FINE._replace(clean_samples=59),
            ["num_seed = 60", "59", "server.held_out"],
        ),
        (
            {"num_seed": 100, "num_repeat_real": 5, "batch_size": 512},
            FINE,
            ["batch_size = 512", "500", "lower it or raise"],
        ),
        (
            {"num_seed": 2000, "early_stopping": True},
            FINE,
            ["early_stopping = true", "2000", "raise server.held_out or lower num_seed"],
        ),
        (
            {"alpha_gan": 0.0, "early_stopping": True},
            FINE._replace(clean_samples=0),
            ["early_stopping = true", "server.held_out"],
        ),
        (
            {"reference_model": True, "K": -1},
            FINE._replace(clean_samples=0),
            ["reference_model = true", "server.held_out"],
        ),
        ({"K": -1}, FINE._replace(round_size=2), ["round_size = 2", "at least 3", "raise it"]),
    ],
)
def test_what_cannot_work_is_refused_with_field_value_and_mend(args, setting, words):
    with pytest.raises(ConfigError) as caught:
        Drop.check(DropArgs(**args), setting)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("args", "setting"),
    [
        (DropArgs(), FINE),
        (DropArgs(K=-1), FINE._replace(clean_samples=0, image=(1, 30))),
        (DropArgs(alpha_gan=0), FINE._replace(clean_samples=0, image=(1, 8))),
        (DropArgs(num_seed=1000, batch_size=512), FINE._replace(clean_samples=1000)),
        (DropArgs(num_seed=1200, batch_size=180), FINE._replace(image=(1, 28))),
        (DropArgs(early_stopping=True, num_seed=1999), FINE),
        (DropArgs(early_stopping=True, alpha_gan=0), FINE._replace(clean_samples=1)),
        (DropArgs(budget=1, distill_iters=1), FINE),
        (DropArgs(plateau=0.02, cycles=2, iter_dis=5), FINE),
        (DropArgs(alpha_gan=0, iter_dis=6), FINE),
        (DropArgs(client_cluster_filtering=False), FINE._replace(round_size=1)),
    ],
)
def test_what_can_work_is_not_refused(args, setting):
    Drop.check(args, setting)


def test_defaults_are_the_originals():
    args = DropArgs()
    given = {
        "K_start": 0,
        "client_cluster_filtering": True,
        "ensemble": True,
        "clone_init_with_global": False,
        "random_S_alpha": 0,
        "random_weight_S": 1,
        "random_weight_G": 1,
        "random_weight_D": 1,
        "prev_global_weight": 0,
        "finetune": False,
        "reference_model": False,
        "reschedule": False,
        "min_agreement": None,
        "cycles": 1,
        "plateau": None,
        "iter_dis": None,
        "channels_last": False,
        "stealing_method": "maze",
    }
    assert {name: getattr(args, name) for name in given} == given
    assert DEFENSES["drop"] is Drop


def test_an_unknown_method_of_distillation_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r'"mazy": allowed is one of maze, dfme'):
        schema.load(DropArgs, {"stealing_method": "mazy"}, "server.defense.defense_args")


def test_dfme_asks_for_no_clean_data_whatever_the_critic_of_maze_would_need():
    assert not Drop.needs(DropArgs(stealing_method="dfme")).clean_data
    assert Drop.needs(DropArgs(stealing_method="maze")).clean_data
    assert Drop.needs(DropArgs(stealing_method="dfme", finetune=True)).clean_labels
    Drop.check(DropArgs(stealing_method="dfme"), FINE._replace(clean_samples=0))


def test_dfme_trains_the_student_with_its_own_count_of_iterations(world):
    args = replace(SMALL, stealing_method="dfme", distill_iters=None, budget=40.0, alpha_gan=0.5)
    updates = world.round()
    answer = world.server(args).aggregate(updates)  # no clean data was granted
    assert answer.diagnostics["distill_iterations"] == 10  # floor(40 / 4)
    assert far_apart(answer, world.server().aggregate(updates))  # MAZE's student
    assert far_apart(answer, updates.global_state)
