"""What updates are like where no clean image looks, and where they do."""

import numpy as np
import pytest
import torch
from colluders import SEEDS, a_round, groups_of, looked, normal

from entity.server.sketches import HIDDEN, SHOWN, descriptions, unit


@pytest.fixture
def looked_at():
    return looked()


def test_products_are_those_of_the_hidden_parts_and_squares_of_the_whole(looked_at):
    spec, of = looked_at
    updates = a_round(spec, 1, colluders=(0, 1, 2), skewed=(3, 4))
    (view,) = of
    whole = np.asarray(view.of(updates).flatten(1), "f8")
    hidden = whole - np.asarray(view.visible(view.of(updates)).flatten(1))
    for size in (1, 1e-25, 1e30):  # squares of these are no single-precision numbers
        found = descriptions(updates * size, of, SEEDS)
        scale = size * 2.0 ** -np.frexp(size * float(updates.abs().max()))[1]
        products = hidden @ hidden.T * scale**2
        np.testing.assert_allclose(found.products, products, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.squares, (whole**2).sum(1) * scale**2, rtol=1e-6)


@pytest.mark.parametrize("mixes", [0, 4])
def test_cosines_of_descriptions_are_those_of_the_parts(looked_at, mixes):
    """Of the visible one, what lies outside of the span of the mixes of classes."""
    spec, of = looked_at
    updates = a_round(spec, 1, colluders=(0, 1, 2), skewed=(3, 4))
    (view,) = of
    shown = view.visible(view.of(updates))
    mixed = normal(mixes, spec.num_parameters, seed=8) if mixes else None
    described = descriptions(updates, of, SEEDS, mixed)
    assert (described.hidden.shape, described.shown.shape) == ((10, HIDDEN), (10, SHOWN))
    hidden, shown = (np.asarray(part.flatten(1)) for part in (view.of(updates) - shown, shown))
    shown = shown - shown.mean(0)
    if mixes:
        span = np.linalg.qr(np.asarray(view.of(mixed).flatten(1)).T)[0]
        shown = shown - shown @ span @ span.T
    for found, own in zip(described, (hidden - hidden.mean(0), shown), strict=False):
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        np.testing.assert_allclose(np.linalg.norm(found.numpy(), axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(found @ found.T, own @ own.T, atol=0.05)


@pytest.mark.parametrize("part", ["hidden", "shown"])
def test_who_takes_more_steps_is_not_alike_for_that(looked_at, part):
    """Regression: of ten honest clients the five with most samples were left out, to the end.

    They go twice as far where everybody goes. Less the mean they were one of two camps.
    """
    spec, of = looked_at
    common = normal(1, spec.num_parameters, seed=5)
    steps = torch.tensor([2.0] * 5 + [1.0] * 5)
    updates = steps[:, None] * (common + 0.7 * normal(10, spec.num_parameters, seed=6))
    found = dict(enumerate(getattr(descriptions(updates, of, SEEDS), part)))
    plain, mended = groups_of(found), groups_of(found, 350 * steps)
    assert plain.contrast >= 0.1
    assert plain.effect >= 2.5
    assert {*range(5)} in (plain.smaller, plain.larger)
    assert mended.effect < 2


def test_rows_of_any_finite_length_come_out_at_length_one():
    """Regression: 10,000 entries of 1e-24 had a length of 1e8, and outweighed every other layer."""
    rows = normal(1, 10_000, seed=1).expand(8, -1).clone()
    scales = torch.tensor([1.0, 1e-24, 1e-36, 1e-43, 1e10, 1e19, 1e30, 1e37])
    found = unit(rows * scales[:, None])
    assert torch.allclose(found.norm(dim=1), torch.ones(8), atol=1e-5)
    assert torch.allclose(found, found[:1], atol=1e-3)  # subnormal entries have few digits
    assert torch.equal(found[0], rows[0] / rows[0].norm())
    assert torch.equal(unit(torch.zeros(2, 5)), torch.zeros(2, 5))


@pytest.mark.parametrize("part", ["hidden", "shown"])
def test_descriptions_do_not_depend_on_length_and_equal_clients_have_none(looked_at, part):
    spec, of = looked_at

    def described(updates):
        return getattr(descriptions(updates, of, SEEDS), part)

    updates = a_round(spec, 2)
    assert torch.allclose(described(1e3 * updates), described(updates), atol=1e-4)
    assert described(updates[:1].expand(5, -1)).isfinite().all()
    assert described(torch.zeros(3, spec.num_parameters)).abs().max() == 0
    assert described(updates[:1]).abs().max() == 0  # one client is the mean
