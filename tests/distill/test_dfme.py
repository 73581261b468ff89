from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from entity.distill import Ensemble, Labelled, MazeArgs, Networks, dfme
from entity.distill.dfme import iterations
from entity.models.dfme_generator import dfme_gen
from entity.seeding import global_stream

ARGS = MazeArgs(
    distill_iters=60, batch_size=16, lr_clone=0.05, lr_gen=0.01, iter_clone=3, latent_dim=6
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distill(ensemble, student, maker, args, rng, **more):
    return dfme.distill(Networks(ensemble, student, maker), args, rng, **more)


def linear(seed: int, scale: float = 1.0) -> nn.Module:
    with global_stream(generator(seed)):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def source(seed: int = 5):
    with global_stream(generator(seed)):
        return dfme_gen(1, 8, 6, 8, 3)


def gap(student: nn.Module, teacher: nn.Module) -> float:
    x = torch.rand(200, 1, 8, 8, generator=generator(8)) * 2 - 1
    with torch.no_grad():
        return (student(x) - teacher(x)).abs().mean().item()


@pytest.mark.parametrize(
    ("budget", "batch", "expected"), [(5e6, 512, 9765), (511, 512, 0), (4e6, 180, 22222)]
)
def test_the_budget_counts_one_batch_an_iteration(budget, batch, expected):
    assert iterations(MazeArgs(budget=budget, batch_size=batch)) == expected


def test_an_explicit_number_of_iterations_goes_first():
    assert iterations(MazeArgs(distill_iters=7)) == 7


def test_the_student_comes_to_answer_as_the_teachers_do():
    teachers = [linear(1, 3.0), linear(2, 3.0)]
    ensemble = Ensemble([deepcopy(teacher) for teacher in teachers])
    student = linear(3)
    mean = Ensemble(teachers)
    before = gap(student, mean)
    report = distill(ensemble, student, source(), ARGS, generator())
    assert gap(student, mean) < 0.6 * before
    assert report.iterations == 60
    assert report.removed == 0
    # Two looks, before the first and after iteration 50; in each one generator step and 3 lessons.
    assert report.member_forwards == 2 * 16 * (2 + 60 * (1 + 3))
    assert report.samples.shape == (16, 1, 8, 8)
    assert set(report.seconds) >= {"generator", "teachers", "student"}


def test_the_same_seed_gives_the_same_student():
    students = [linear(3) for _ in range(2)]
    state = torch.random.get_rng_state()
    for student in students:
        distill(Ensemble([linear(1)]), student, source(), ARGS, generator(4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(map(torch.equal, students[0].parameters(), students[1].parameters()))


def test_the_generator_seeks_disagreement():
    """Without student steps only the generator moves, and the L1 distance must grow."""
    teacher, student = linear(1, 3.0), linear(3)
    maker = source()

    def disagreement() -> float:
        with torch.no_grad():
            x = maker.train()(maker.noise(256, generator(9)))
            return (teacher(x) - student(x)).abs().mean().item()

    before, weights = disagreement(), deepcopy(student.state_dict())
    args = MazeArgs(distill_iters=40, batch_size=32, iter_clone=0, lr_gen=0.05, latent_dim=6)
    distill(Ensemble([deepcopy(teacher)]), student, maker, args, generator())
    assert disagreement() > 1.2 * before
    assert all(map(torch.equal, weights.values(), student.state_dict().values()))


def test_generator_steps_leave_the_students_statistics_alone():
    student = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3))
    before = deepcopy(student.state_dict())
    args = MazeArgs(distill_iters=3, batch_size=8, iter_clone=0, iter_gen=2, latent_dim=6)
    distill(Ensemble([linear(1)]), student, source(), args, generator())
    assert all(map(torch.equal, before.values(), student.state_dict().values()))


def test_teachers_without_bounded_logits_are_left_out():
    broken = linear(2, 1e9)
    student = linear(3)
    report = distill(Ensemble([linear(1), broken]), student, source(), ARGS, generator())
    assert report.removed == 1
    assert all(parameter.isfinite().all() for parameter in student.parameters())
    nobody = Ensemble([broken])
    assert distill(nobody, student, source(), ARGS, generator()).iterations == 0
    assert not nobody.members


def test_early_stopping_is_only_where_asked_for_and_by_held_out_data():
    """Regression: DROP's stops by test accuracy whether or not it is asked to."""
    teacher = linear(1, 3.0)
    x = torch.rand(50, 1, 8, 8, generator=generator(8)) * 2 - 1
    with torch.no_grad():
        holdout = Labelled(x, teacher(x).argmax(1))
    reports = []
    for stop in (False, True):
        args = MazeArgs(
            **{**vars(ARGS), "early_stopping": stop, "frac_recover_acc": 0.5, "log_iter": 16}
        )
        ensemble = Ensemble([deepcopy(teacher)])
        reports.append(distill(ensemble, linear(3), source(), args, generator(), holdout=holdout))
    assert reports[0].iterations == 60
    assert reports[1].iterations < 60
    assert reports[1].teacher_accuracy == 1
    assert reports[1].accuracy >= 0.5


@pytest.mark.parametrize("channels_last", [False, True])
def test_it_ends_after_a_cycle_that_changed_nothing(channels_last):
    args = replace(ARGS, cycles=6, plateau=1.0, channels_last=channels_last)
    report = distill(Ensemble([linear(1), linear(2)]), linear(3), source(), args, generator())
    assert report.iterations == 10
    assert 0 <= report.agreement <= 1
    going = distill(
        Ensemble([linear(1), linear(2)]),
        linear(3),
        source(),
        replace(args, plateau=None),
        generator(),
    )
    assert going.iterations == 60
