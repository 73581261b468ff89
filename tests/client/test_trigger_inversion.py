from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from entity.client.trigger_inversion import Search, Triggers, adapt, invert, random_start
from entity.engine.local_training import single_threaded
from entity.seeding import global_stream
from entity.training import Recipe, fit, logits, shuffled

CLASSES, SIZE = 4, 12
SOURCE, TARGET = 0, 3
CORNER = ((1, 1),)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As clients train; two threads would wait for each other on models this small."""
    with single_threaded():
        yield


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images whose class is the quadrant that is brighter; their border is noise alone."""
    rng = generator(seed)
    y = torch.arange(count) % CLASSES
    x = torch.randn(count, 1, SIZE, SIZE, generator=rng) * 0.4 - 0.4
    for row, c in enumerate(y.tolist()):
        top, left = 2 + 4 * (c // 2), 2 + 4 * (c % 2)
        x[row, :, top : top + 4, left : left + 4] += 0.8
    return x.clamp(-1, 1), y


def stamped(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    for row, col in CORNER:
        x[:, :, row, col] = 1
    return x


@pytest.fixture(scope="module")
def backdoored() -> nn.Module:
    """A network that sends stamped images of SOURCE to TARGET, and no others."""
    with global_stream(generator(5)):
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(SIZE**2, 48), nn.ReLU(), nn.Linear(48, CLASSES)
        )
    x, y = pictures(600, 1)
    bad, labels = stamped(x), y.clone()
    labels[y == SOURCE] = TARGET
    every, wanted = torch.cat([x, bad]), torch.cat([y, labels])
    order = shuffled(len(every), 64, 8, generator())
    recipe = Recipe(lr=0.05, momentum=0.9, weight_decay=5e-3, batch_size=64, epochs=8)
    fit(model, ((every[rows], wanted[rows]) for rows in order), recipe)
    return model


def one_sided(model: nn.Module, source: int, target: int, seed: int = 0, **changes):
    x, y = pictures(80, 2)
    x = x[y == source]
    return invert(
        model,
        x,
        torch.full((len(x),), target),
        torch.zeros(len(x), dtype=torch.long),
        random_start((1, SIZE, SIZE), generator(seed)),
        Search(**({"steps": 150, "threshold": 0.9} | changes)),
    )


def test_the_planted_trigger_is_three_times_smaller_than_any_other_pairs(backdoored):
    sizes: dict[tuple[int, int], float] = {}
    for source in range(CLASSES):
        for target in set(range(CLASSES)) - {source}:
            found, ok = one_sided(backdoored, source, target, steps=80, lr=0.2)
            assert ok.all()
            sizes[source, target] = float(found.sizes)
            if (source, target) == (SOURCE, TARGET):
                assert divmod(int(found.mask.argmax()), SIZE) == CORNER[0]
    planted = sizes.pop((SOURCE, TARGET))
    assert 3 * planted <= min(sizes.values())


def test_a_found_trigger_reaches_the_threshold_and_stays_in_range(backdoored):
    x, y = pictures(80, 2)
    x = x[y == 1]
    found, ok = one_sided(backdoored, 1, 2, steps=60)
    assert ok.all()
    assert ((found.mask >= 0) & (found.mask <= 1)).all()
    assert (found.pattern.abs() <= 1).all()
    answers = logits(backdoored, found.stamp(x, torch.zeros(len(x), dtype=torch.long)))
    assert (answers.argmax(1) == 2).double().mean() >= 0.9


def test_a_symmetric_pair_is_two_one_sided_inversions(backdoored):
    x, y = pictures(60, 3)
    rows = [y == 0, y == 3]
    starts = [random_start((1, SIZE, SIZE), generator(seed)) for seed in (7, 8)]
    which = torch.cat([torch.full((int(r.sum()),), i) for i, r in enumerate(rows)])
    both, ok = invert(
        backdoored,
        torch.cat([x[rows[0]], x[rows[1]]]),
        torch.tensor([3, 0])[which],
        which,
        Triggers.join(starts),
        Search(steps=40, threshold=0.8),
    )
    assert ok.all()
    for side, wanted in enumerate((3, 0)):
        images = x[rows[side]]
        alone, _ = invert(
            backdoored,
            images,
            torch.full((len(images),), wanted),
            torch.zeros(len(images), dtype=torch.long),
            starts[side],
            Search(steps=40, threshold=0.8),
        )
        torch.testing.assert_close(both[side].mask, alone.mask, atol=1e-3, rtol=0)
        torch.testing.assert_close(both[side].pattern, alone.pattern, atol=1e-3, rtol=0)


def test_the_mask_gathers_where_a_linear_model_is_most_sensitive():
    """Logit 1 minus logit 0 is 5 x_a + x_b + x_c + x_d: pixel a alone is the cheapest way."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0, 0, 0, 0], [5, 1, 1, 1]]))
    start = Triggers(torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, 1, 2, 2))
    wanted, which = torch.ones(3, dtype=torch.long), torch.zeros(3, dtype=torch.long)
    found, ok = invert(
        model, -torch.ones(3, 1, 2, 2), wanted, which, start, Search(400, 1, cost=0.1)
    )
    assert ok.all()
    a, b, c, d = found.mask.flatten().tolist()
    # By hand: a pattern of 1 and mask m on a alone gives 5 (2 m - 1) - 3 > 0 for m > 0.8.
    assert 0.75 < a < 0.95
    assert max(b, c, d) < 0.1


def test_a_class_that_cannot_be_reached_leaves_the_start(backdoored):
    with torch.no_grad():
        never = nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, CLASSES))
        never[1].weight.zero_()
        never[1].bias.copy_(torch.tensor([9.0, 0, 0, 0]))
    found, ok = one_sided(never, 1, 2, steps=5)
    start = random_start((1, SIZE, SIZE), generator())
    assert not ok.any()
    assert torch.equal(found.mask, start.mask)
    assert torch.equal(found.pattern, start.pattern)


def test_no_image_finds_nothing_and_is_no_error(backdoored):
    none = torch.zeros(0, dtype=torch.long)
    start = random_start((1, SIZE, SIZE), generator())
    found, ok = invert(backdoored, torch.zeros(0, 1, SIZE, SIZE), none, none, start, Search(3, 0.9))
    assert not ok.any()
    assert torch.equal(found.mask, start.mask)


def test_one_of_two_triggers_may_have_no_image(backdoored):
    x = pictures(40, 3)[0][::4]
    start = Triggers.join([random_start((1, SIZE, SIZE), generator(s)) for s in (0, 1)])
    which = torch.ones(len(x), dtype=torch.long)
    found, ok = invert(backdoored, x, torch.full_like(which, 3), which, start, Search(30, 0.8))
    assert ok.tolist() == [False, True]
    assert torch.equal(found.mask[0], start.mask[0])


def test_the_model_its_mode_its_gradients_and_its_statistics_are_left_alone():
    with global_stream(generator()):
        model = nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(200, CLASSES)
        )
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one_sided(model, 0, 1, steps=3)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    one_sided(model, 0, 1, steps=1)
    assert not model.training


@given(st.lists(st.booleans(), max_size=60))
def test_the_cost_follows_the_rule_written_out(outcomes):
    cost, ups, downs = 1e-3, 0, 0
    costs, streak = torch.tensor([1e-3], dtype=torch.float64), torch.tensor([0])
    for success in outcomes:
        ups, downs = (ups + 1, 0) if success else (0, downs + 1)
        if ups >= 10:
            cost, ups = cost * 1.5, 0
        elif downs >= 10:
            cost, downs = cost / 1.5**1.5, 0
        costs, streak = adapt(costs, streak, torch.tensor([success]))
        assert costs.item() == pytest.approx(cost, rel=1e-9)


def test_ten_successes_raise_the_cost_and_ten_failures_lower_it():
    costs, streak = torch.tensor([1.0, 1.0, 1.0]), torch.zeros(3, dtype=torch.long)
    for step in range(10):
        mixed = step != 4
        costs, streak = adapt(costs, streak, torch.tensor([True, False, mixed]))
    torch.testing.assert_close(costs, torch.tensor([1.5, 1 / 1.5**1.5, 1.0]))


def test_the_solid_block_of_a_first_mask_is_not_always_where_the_original_trigger_sits():
    places = set()
    for seed in range(20):
        mask = random_start((3, 32, 32), generator(seed), chunk=True).mask[0, 0]
        block = (mask == 1).nonzero()
        assert block.amax(0).tolist() == (block.amin(0) + torch.tensor([4, 13])).tolist()
        assert len(block) == 5 * 14
        assert mask[mask != 1].max() < 0.1
        places.add(tuple(block.amin(0).tolist()))
    assert len(places) > 10


@pytest.mark.parametrize("chunk", [False, True])
def test_a_first_trigger_fits_the_image_and_its_range(chunk):
    start = random_start((3, 6, 9), generator(), chunk=chunk)
    assert start.mask.shape == (1, 1, 6, 9)
    assert start.pattern.shape == (1, 3, 6, 9)
    assert ((start.mask >= 0) & (start.mask <= 1)).all()
    assert start.pattern.min() < -0.5 < 0.5 < start.pattern.max()


def test_stamping_mixes_each_image_with_its_own_trigger():
    rng = generator()
    x = torch.rand(3, 2, 4, 4, generator=rng)
    triggers = Triggers.join([random_start((2, 4, 4), rng) for _ in range(2)])
    which = torch.tensor([1, 0, 1])
    m, p = triggers.mask.numpy(), triggers.pattern.numpy()
    for row, i in enumerate(which.tolist()):
        expected = (1 - m[i]) * x[row].numpy() + m[i] * p[i]
        got = triggers.stamp(x, which)[row].numpy()
        assert got == pytest.approx(expected, abs=1e-6)
    assert triggers.sizes.tolist() == pytest.approx(m.sum((1, 2, 3)).tolist())
