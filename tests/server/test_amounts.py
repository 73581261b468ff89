"""What the cosines of clients owe to their amounts of data."""

import itertools
import math

import numpy as np
import pytest
import torch
from colluders import SEEDS, a_round, groups_of, looked, looking, normal

from entity.server.amounts import FAR, MOST, without_amounts
from entity.server.coalition_search import Look
from entity.server.push_history import PushHistory
from entity.server.sketches import descriptions

AMOUNTS = torch.tensor([785, 210, 151, 176, 504, 367, 506, 580, 162, 59])


def cosines_of(rows):
    rows = rows / rows.norm(dim=1, keepdim=True)
    return rows @ rows.T


@pytest.mark.parametrize("n", [4, 5, 9, 30])
def test_what_is_left_is_the_residual_of_numpys_least_squares(n):
    """Of that one, of all without a client, which leaves the least mean square."""
    rng = np.random.default_rng(n)
    samples = torch.from_numpy(rng.integers(100, 790, n))
    logs = np.log(samples.numpy())
    logs = logs - logs.mean()
    rows = torch.from_numpy(logs)[:, None] * normal(1, 5000, seed=1) + 2 * normal(n, 5000, seed=n)
    cosines = cosines_of(rows.double())
    above = np.triu_indices(n, 1)
    x, y = np.outer(logs, logs)[above], cosines.numpy()[above]
    fits = []
    for client in range(n):
        kept = (above[0] != client) & (above[1] != client)
        design = np.stack([np.ones(kept.sum()), x[kept]], 1)
        (level, slope), *_ = np.linalg.lstsq(design, y[kept], rcond=None)
        fits.append((np.mean((y[kept] - level - slope * x[kept]) ** 2), slope))
    slope = min(fits)[1]
    assert 0 < slope < MOST
    found = without_amounts(cosines, samples)
    np.testing.assert_allclose(found.numpy()[above], y - slope * (x - x.mean()), atol=1e-12)
    torch.testing.assert_close(found, found.T)
    assert torch.equal(found.diagonal(), cosines.diagonal())


def test_of_fewer_than_four_nothing_is_known():
    for n in range(1, 4):
        cosines = cosines_of(normal(n, 5))
        assert torch.equal(without_amounts(cosines, AMOUNTS[:n]), cosines)


def test_one_who_registers_what_it_does_not_have_hides_little_of_what_the_others_owe():
    honest = torch.tensor([100.0, 110, 120, 130, 140, 700, 710, 720, 730])
    logs = honest.double().log()
    logs -= logs.mean()
    cosines = torch.zeros(10, 10).double()
    cosines[:9, :9] = 0.4 * torch.outer(logs, logs)
    pairs = torch.ones(9, 9).triu(1) > 0
    before = cosines[:9, :9][pairs].std()
    for lie in (1, 140, 720, 1e15):
        found = without_amounts(cosines, torch.cat([honest, torch.tensor([lie])]))
        assert found[:9, :9][pairs].std() < 0.45 * before, lie


def test_amounts_that_are_far_from_the_usual_count_as_eight_times_as_much_or_as_little():
    cosines = cosines_of(normal(10, 4, seed=2) + AMOUNTS.log()[:, None])
    usual = float(AMOUNTS.double().quantile(0.5))
    far, at_most = AMOUNTS.double(), AMOUNTS.double()
    far[0], at_most[0] = 1e15, usual * FAR
    far[9], at_most[9] = 1, usual / FAR
    assert torch.equal(without_amounts(cosines, far), without_amounts(cosines, at_most))


def test_equal_amounts_change_no_digit():
    cosines = cosines_of(normal(7, 5))
    for samples in (torch.full((7,), 350), torch.zeros(7), torch.ones(7)):
        assert torch.equal(without_amounts(cosines, samples), cosines)


def test_the_unit_of_the_amounts_does_not_matter_and_none_counts_as_one():
    cosines = cosines_of(normal(10, 4, seed=2) + 9 * (AMOUNTS > 300)[:, None])
    one, other = (without_amounts(cosines, scale * AMOUNTS) for scale in (1, 1000))
    assert not torch.equal(one, cosines)
    torch.testing.assert_close(one, other)
    none, few = AMOUNTS.clone(), AMOUNTS.clone()
    none[3], few[3] = 0, 1
    assert torch.equal(without_amounts(cosines, none), without_amounts(cosines, few))


def test_who_is_unlike_those_of_like_amounts_owes_them_nothing():
    logs = AMOUNTS.double().log()
    cosines = -0.1 * torch.outer(logs - logs.mean(), logs - logs.mean())
    assert torch.equal(without_amounts(cosines, AMOUNTS), cosines)


def test_amounts_that_hardly_differ_account_for_hardly_anything():
    """Four push together, and have one sample more."""
    group = torch.tensor([1.0] * 4 + [-1.0] * 6)
    cosines = 0.5 * torch.outer(group, group)
    found = without_amounts(cosines, 350 + (group + 1) / 2)
    assert (found - cosines).abs().max() < 1e-4
    found = without_amounts(cosines, 350 + 70 * (group + 1))  # two fifths more
    assert 0.02 < (found - cosines).abs().max() < 0.06  # the slope would be 2


def test_where_but_one_has_another_amount_nothing_is_known_of_the_others():
    """Three push together, and have one sample more; the fourth has eight times as much."""
    group = torch.tensor([1.0] * 3 + [-1.0] * 6 + [0.0])
    cosines = 0.3 * torch.outer(group, group)
    samples = torch.tensor([351.0] * 3 + [350.0] * 6 + [2800.0])
    found = without_amounts(cosines, samples)
    assert (found - cosines)[:9, :9].abs().max() < 0.02
    rows = normal(4, 4000, seed=4)
    rows[2] = 0.3 * rows[2] + (normal(4, 1, seed=5) * rows).sum(0)
    cosines = cosines_of(rows.double())
    samples = torch.tensor([350, 350, 100, 350])
    found = without_amounts(cosines, samples)
    for order in itertools.permutations(range(4)):  # of those left, nothing but rounding differs
        permuted = without_amounts(cosines[order, :][:, order], 7 * samples[list(order)])
        torch.testing.assert_close(permuted, found[order, :][:, order])


def steps_on_a_bent_path(number, samples, spec, noise=0.3):
    """Updates of clients who take a step for each ten samples on one quadratic loss."""
    at = normal(1, spec.num_parameters, seed=900 + number)
    bend = 0.3 * 10 ** -normal(1, spec.num_parameters, seed=7).abs()  # some directions are steep
    steps = (samples / 10).float()[:, None]
    path = -at * (1 - (1 - bend) ** steps)
    return path + noise * path.norm(dim=1, keepdim=True).mean() * normal(
        len(samples), spec.num_parameters, seed=number
    ) / math.sqrt(spec.num_parameters)


@pytest.mark.parametrize("part", ["hidden", "shown"])
def test_honest_clients_with_much_and_with_little_data_are_no_coalitions(part):
    """Regression: half of ten honest clients were left out where amounts were unequal."""
    spec, of = looked()
    (plain, camps), (mended, others) = (looking(enough=0.2) for _ in range(2))

    for number in range(8):
        updates = steps_on_a_bent_path(number, AMOUNTS, spec)
        described = getattr(descriptions(updates, of, SEEDS), part)
        plain.observe(range(10), described, torch.ones(10))
        mended.observe(range(10), described, AMOUNTS)
    two = camps.groups()
    assert camps.clear(two)
    larger = {client for client in range(10) if AMOUNTS[client] > 300}
    assert larger in (two.smaller, two.larger)
    assert not others.clear(others.groups())


def test_the_last_amounts_of_all_who_are_known_count_in_whatever_order_they_come():
    spec, of = looked()
    whole, other, again = (PushHistory(2, 0.95) for _ in range(3))
    for number in range(6):
        updates = steps_on_a_bent_path(number, AMOUNTS, spec)
        described = descriptions(updates, of, SEEDS).shown
        ids = [f"client {row}" for row in range(10)]
        amounts = AMOUNTS if number > 1 else AMOUNTS.flip(0)
        rows = list(range(10)) if number < 5 else list(range(8))  # two stay away
        whole.observe([ids[row] for row in rows], described[rows], amounts[rows])
        shuffled = torch.randperm(len(rows), generator=torch.Generator().manual_seed(number))
        rows = [rows[place] for place in shuffled.tolist()]
        other.observe([ids[row] for row in rows], described[rows], amounts[rows])
    rows = torch.stack([whole.sums[each] for each in ids])
    expected = groups_of(dict(zip(ids, rows, strict=True)), AMOUNTS)
    assert expected != groups_of(dict(zip(ids, rows, strict=True)))
    for history in (whole, other):
        groups = Look(history).groups()
        assert groups.smaller == expected.smaller
        assert groups[2:4] == pytest.approx(expected[2:4], rel=1e-4)
    again.load_state_dict(whole.state_dict())
    assert Look(again).groups() == Look(whole).groups()
    assert again.samples == whole.samples
    again.pardon(ids[3])
    assert ids[3] not in again.samples


def test_who_pushes_together_is_found_though_amounts_differ():

    spec, of = looked()
    history, look = looking(enough=0.2, effect=math.inf)
    for number in range(8):
        updates = a_round(spec, number, colluders=(1, 4, 6))
        history.observe(range(10), descriptions(updates, of, SEEDS).hidden, AMOUNTS)
    groups = look.groups()
    assert look.clear(groups)
    assert groups.smaller == {1, 4, 6}
