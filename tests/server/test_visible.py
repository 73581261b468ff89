"""The visible part of an update, against NumPy, ridge regression and hand-made cases."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from entity.layout import ParamSpec
from entity.server.visible import add_agreed_words, viewed, views, visible_part, visible_update


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(
    m=st.integers(1, 12),
    d=st.integers(1, 12),
    strength=st.floats(1e-3, 1e2),
    seed=st.integers(0, 99),
)
def test_it_is_d_c_times_the_inverse_of_c_plus_mu(m, d, strength, seed):
    inputs, update = random(1, m, d, seed=seed), random(1, 3, d, seed=seed + 100)
    a, full = inputs[0].numpy().astype("f8"), update[0].numpy().astype("f8")
    moments = a.T @ a / m
    mu = strength * np.trace(moments) / d
    expected = full @ moments @ np.linalg.inv(moments + mu * np.eye(d))
    np.testing.assert_allclose(visible_part(update, inputs, strength)[0], expected, atol=2e-5)


def test_it_is_the_ridge_regression_of_the_changed_outputs():
    """Of all V the one with the least |A V^T - A D^T|^2 / m + mu |V|^2: no step makes it less."""
    inputs, update = random(1, 20, 8, seed=1), random(1, 1, 8, seed=2)
    found = visible_part(update, inputs, 0.5)[0, 0].double().requires_grad_()
    a, full = inputs[0].double(), update[0, 0].double()
    mu = 0.5 * a.square().mean()
    loss = (a @ (found - full)).square().mean() + mu * found.square().sum()
    (slope,) = torch.autograd.grad(loss, found)
    assert slope.abs().max() < 1e-5


def test_a_direction_that_no_image_has_is_dropped_and_one_that_all_have_is_kept():
    inputs = torch.zeros(1, 50, 4)
    inputs[..., 0] = 1.0
    part = visible_part(torch.ones(1, 2, 4), inputs, strength=0.01)
    assert part[0, :, 0].tolist() == pytest.approx([1 / 1.0025] * 2)
    assert part[0, :, 1:].abs().max() == 0


def test_half_is_kept_where_the_mean_square_is_strength_times_that_of_an_entry():
    inputs = torch.diag(torch.tensor([4.0, 2.0, 2.0])).sqrt()[None] * 3**0.5  # C = diag(4, 2, 2)
    part = visible_part(torch.ones(1, 1, 3), inputs, strength=0.75)  # mu = 0.75 * 8 / 3 = 2
    assert part.flatten().tolist() == pytest.approx([2 / 3, 0.5, 0.5])


def test_inputs_of_zero_show_nothing_and_huge_ones_do_not_overflow():
    assert visible_part(torch.ones(1, 1, 3), torch.zeros(1, 5, 3), 0.1).tolist() == [[[0, 0, 0]]]
    huge = visible_part(torch.full((1, 1, 3), 1e38), 1e30 * random(1, 9, 3), 0.1)
    assert huge.isfinite().all()
    assert (huge < 1.01e38).all()


@settings(max_examples=15, deadline=None)
@given(strength=st.floats(1e-3, 10), seed=st.integers(0, 99))
def test_it_is_linear_and_never_longer_than_the_update(strength, seed):
    inputs = random(1, 6, 9, seed=seed)
    one, two = random(1, 4, 9, seed=seed + 1), random(1, 4, 9, seed=seed + 2)
    parts = [visible_part(each, inputs, strength) for each in (one, two, 2 * one - 3 * two)]
    assert torch.allclose(2 * parts[0] - 3 * parts[1], parts[2], atol=1e-4)
    assert parts[0].norm() <= one.norm() * (1 + 1e-6)


def make_model():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 3, 2, bias=False),
        nn.Flatten(),
        nn.Linear(27, 5),
    )


def test_what_an_honest_step_of_training_changes_is_all_visible_with_its_own_images():
    """A gradient lies in the span of the inputs that it is of: with little strength it stays."""
    torch.manual_seed(0)
    model, images = make_model().eval(), random(9, 2, 6, 6, seed=4)
    spec = ParamSpec.of(model)
    nn.functional.cross_entropy(model(images), torch.arange(9) % 5).backward()
    step = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    of = list(views(model, spec, images, 1e-9, torch.Generator()))
    assert [view.name for view in of] == ["0", "3", "5"]
    assert torch.allclose(visible_update(step, of), step, atol=1e-4 * float(step.abs().max()))


def test_what_pixels_taught_that_no_clean_image_lights_is_dropped():
    """The weights of a linear model on images whose first column is always black."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    images = random(30, 1, 4, 4, seed=5)
    images[..., 0] = 0
    triggered = images.clone()
    triggered[..., 0] = 1
    nn.functional.cross_entropy(model(triggered), torch.zeros(30, dtype=torch.long)).backward()
    step = -torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    spec = ParamSpec.of(model)
    of = list(views(model, spec, images, 1e-6, torch.Generator()))
    seen = visible_update(step, of)
    weight = spec.slot("1.weight")
    assert weight.of(step).reshape(3, 4, 4)[..., 0].abs().min() > 1e-3
    assert weight.of(seen).reshape(3, 4, 4)[..., 0].abs().max() < 1e-6


def test_other_parameters_keep_their_update_and_several_clients_are_looked_at_at_once():
    torch.manual_seed(1)
    model = make_model()
    spec, images = ParamSpec.of(model), random(5, 2, 6, 6, seed=6)
    updates = random(3, spec.num_parameters, seed=7)
    of = list(views(model, spec, images, 0.1, torch.Generator()))
    scale = spec.slot("1.weight")
    for update in updates:
        seen = visible_update(update, of)
        assert torch.equal(scale.of(seen), scale.of(update))
        assert not torch.allclose(seen, update)
    for view in of:
        alone = torch.stack([view.visible(view.of(update)) for update in updates])
        assert torch.allclose(view.visible(view.of(updates)), alone, atol=1e-6)


@pytest.mark.parametrize(("m", "d"), [(5, 9), (9, 5)])
@pytest.mark.parametrize("scale", [1e-41, 1e-39, 1e-20, 1e18, 3e37])
def test_it_does_not_depend_on_the_scale_of_the_inputs(m, d, scale):
    """Regression: of tiny inputs the inverse overflowed, and the update was no number."""
    inputs, update = random(1, m, d, seed=1), random(1, 3, d, seed=2)
    scaled = scale * inputs
    expected = visible_part(update, scaled / scale, 0.1)  # subnormal inputs have fewer digits
    torch.testing.assert_close(visible_part(update, scaled, 0.1), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("m", "d"), [(5, 9), (9, 5)])
@pytest.mark.parametrize("exponent", [-40, -7, 1, 60])
def test_a_power_of_two_in_the_inputs_changes_no_digit(m, d, exponent):
    inputs, update = random(1, m, d, seed=1), random(1, 3, d, seed=2)
    scaled = visible_part(update, 2.0**exponent * inputs, 0.01)
    assert torch.equal(scaled, visible_part(update, inputs, 0.01))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_show_nothing_and_spoil_no_other_map(bad):
    """Regression: a model that had diverged ended the run in the factorisation."""
    inputs, update = random(3, 20, 4, seed=1), random(3, 2, 4, seed=2)
    alone = visible_part(update, inputs, 0.1)
    inputs[1, 7, 2] = bad
    part = visible_part(update, inputs, 0.1)
    assert not part[1].any()
    assert torch.equal(part[[0, 2]], alone[[0, 2]])


def test_a_word_of_two_embeddings_that_share_a_weight_moves_once(make_updates):
    """Regression: what most agree on was added for each of the two."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.out = nn.Embedding(5, 2), nn.Embedding(5, 2), nn.Linear(2, 2)
            self.two.weight = self.one.weight

        def forward(self, x):
            x = x.long()
            return self.out(self.one(x[:, 0]) + self.two(x[:, 1]))

    model = Shared()
    spec, tokens = ParamSpec.of(model), torch.tensor([[0, 1], [0, 2]])
    of = list(views(model, spec, tokens, 0.5, torch.Generator()))
    rows = torch.full((4, spec.num_parameters), 0.1)
    step = torch.zeros(spec.num_parameters)
    add_agreed_words(step, make_updates(rows, model=model), [0, 1, 2, 3], torch.ones(4), of)
    moved = spec.slot("one.weight").of(step)
    hidden = {0: 0.2 / 2.2, 1: 0.2 / 1.2}  # of 2 words: counts 2 and 1, mean count 0.4
    assert moved[3].tolist() == pytest.approx([0.1, 0.1])
    assert moved[0].tolist() == pytest.approx([0.1 * hidden[0]] * 2, abs=1e-6)
    assert moved[1].tolist() == pytest.approx([0.1 * hidden[1]] * 2, abs=1e-6)


def test_of_words_that_clean_samples_have_not_what_most_clients_agree_on_is_added(make_updates):
    model = nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 2))
    spec, tokens = ParamSpec.of(model), torch.tensor([[0, 1, 1], [1, 0, 1]])
    of = list(views(model, spec, tokens, 0.5, torch.Generator()))
    words = torch.zeros(4, 5, 2)
    words[:, 0] = 8.0  # 2 of 6 tokens: (2 + 0.5 * 6 / 5) keeps 2 / 2.6 of the mean, and the median
    words[:, 2] = torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 9.0], [9.0, 9.0]])
    words[1, 3] = 7.0  # one client's word
    rows = torch.zeros(4, spec.num_parameters)
    slot = spec.slot("0.weight")
    rows[:, slot.start : slot.stop] = words.flatten(1)
    updates = make_updates(rows, model=model)
    step = torch.zeros(spec.num_parameters)
    factors = torch.tensor([1.0, 1.0, 0.5, 1.0])
    add_agreed_words(step, updates, [0, 1, 2, 3], factors, of)
    moved = slot.of(step)
    assert moved[0].tolist() == pytest.approx([8 * 0.6 / 2.6] * 2)
    assert moved[2].tolist() == pytest.approx([2.0, 4.5 / 2])  # of 1 2 2 9, and of 0 0 4.5 9
    assert moved[1, 0] == moved[3, 0] == moved[4, 0] == 0
    assert not step[slot.stop :].any()
    three = torch.zeros_like(step)
    add_agreed_words(three, updates, [0, 1, 3], factors, of)
    assert slot.of(three)[2].tolist() == [2.0, 0.0]
    add_agreed_words(three, updates, [], factors, of)
    assert slot.of(three)[2].tolist() == [2.0, 0.0]


def test_a_large_vocabulary_is_added_up_in_blocks(make_updates, monkeypatch):
    model = nn.Sequential(nn.Embedding(50, 3), nn.Flatten(), nn.Linear(6, 2))
    spec = ParamSpec.of(model)
    of = list(views(model, spec, torch.tensor([[0, 1], [2, 49]]), 0.01, torch.Generator()))
    rows = torch.randn(5, spec.num_parameters, generator=torch.Generator().manual_seed(3))
    updates = make_updates(rows, model=model)
    whole, parts = torch.zeros(2, spec.num_parameters)
    add_agreed_words(whole, updates, range(5), torch.ones(5), of)
    monkeypatch.setattr("entity.server.visible.BLOCK", 12)
    add_agreed_words(parts, updates, range(5), torch.ones(5), of)
    assert torch.equal(whole, parts)
    slot = spec.slot("0.weight")
    median = np.median(slot.of(updates.deltas).numpy(), 0)
    assert np.allclose(slot.of(whole)[3:49], median[3:49])


def test_of_an_embedding_the_rows_of_words_that_nobody_uses_are_dropped():
    model = nn.Sequential(nn.Embedding(4, 2), nn.Flatten(), nn.Linear(6, 2))
    spec, tokens = ParamSpec.of(model), torch.tensor([[0, 1, 1], [1, 0, 1]])
    of = list(views(model, spec, tokens, 0.5, torch.Generator()))
    update = torch.ones(spec.num_parameters)
    rows = spec.slot("0.weight").of(visible_update(update, of))
    # counts 2, 4, 0, 0 of mean 1.5: kept 2 / 2.75 and 4 / 4.75
    assert rows[:, 0].tolist() == pytest.approx([2 / 2.75, 4 / 4.75, 0, 0])
    one_hot = nn.functional.one_hot(tokens.flatten(), 4).float()[None]
    expected = visible_part(torch.ones(1, 2, 4), one_hot, 0.5)
    assert torch.allclose(rows.T, expected[0], atol=1e-6)


def test_of_weights_that_two_layers_share_what_both_see_is_kept():
    """An embedding and the output layer of a language model: unused words are not learned."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.out = nn.Embedding(12, 4), nn.Linear(4, 12, bias=False)
            self.out.weight = self.words.weight

        def forward(self, x):
            return self.out(self.words(x.long()).mean(1))

    model = Tied()
    spec = ParamSpec.of(model)
    texts = random(40, 6, seed=3).argsort(1) + torch.arange(40)[:, None] % 4
    of = list(views(model, spec, texts, 1e-3, torch.Generator()))
    assert [view.name for view in of] == ["words", "out"]
    step = random(spec.num_parameters, seed=5)
    seen = visible_update(step, of).reshape(12, 4)
    assert seen[9:].norm() == 0
    assert 0.75 < seen[:9].norm() / step.reshape(12, 4)[:9].norm() <= 1
    assert viewed(of) == spec.num_parameters


@pytest.mark.parametrize(
    "wrap", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
def test_a_layer_whose_weight_is_computed_has_no_view(wrap):
    model = nn.Sequential(nn.Flatten(), wrap(nn.Linear(64, 5)), nn.Linear(5, 3))
    spec = ParamSpec.of(model)
    of = list(views(model, spec, random(20, 1, 8, 8), 0.01, torch.Generator()))
    assert [view.name for view in of] == ["2"]
    assert viewed(of) == 5 * 3 + 3 < spec.num_parameters
    step = torch.ones(spec.num_parameters)
    assert visible_update(step, of).shape == step.shape
