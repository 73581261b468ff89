"""What a mix of classes makes of an update: gradients by class, and what is left without them."""

import numpy as np
import pytest
import torch
from colluders import normal
from torch import nn

from entity.layout import ParamSpec
from entity.server.mixes import EACH, MOST, class_gradients, without


def linear(classes, inputs=6):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(inputs, classes)


def test_they_are_the_gradients_of_a_softmax_by_the_class_that_the_model_calls():
    model, x = linear(4), normal(90, 6, seed=1)
    found = class_gradients(model, ParamSpec.of(model), x).numpy()
    weight, bias, rows = model.weight.detach().numpy(), model.bias.detach().numpy(), x.numpy()
    logits = rows @ weight.T + bias
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    called = logits.argmax(1)
    expected = []
    for label in sorted(range(4), key=lambda label: -(called == label).sum()):
        for few in np.array_split(np.flatnonzero(called == label), EACH):
            if not len(few):
                continue
            error = shares[few] - np.eye(4)[label]
            row = np.concatenate([(error.T @ rows[few]).ravel(), error.sum(0)])
            expected.append(row / np.linalg.norm(row))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("classes", "most"), [(2, 2 * EACH), (14, 28), (100, MOST)])
def test_their_number_is_bounded_whatever_the_number_of_classes(classes, most):
    model = linear(classes)
    found = class_gradients(model, ParamSpec.of(model), normal(500, 6, seed=2) * 3)
    assert 0 < len(found) <= most <= MOST
    assert torch.allclose(found.norm(dim=1), torch.ones(len(found)))


def test_of_many_classes_it_is_those_with_the_most_images():
    model = linear(40, inputs=40)
    with torch.no_grad():
        model.weight.copy_(torch.eye(40))
        model.bias.zero_()
    counts = [3 if label % 2 else 1 for label in range(40)]
    images = torch.eye(40).repeat_interleave(torch.tensor(counts), 0) * 5
    found = class_gradients(model, ParamSpec.of(model), images)
    lit = found[:, :1600].unflatten(1, (40, 40)).abs().sum(1).argmax(1)
    assert set(lit.tolist()) >= {label for label in range(40) if label % 2}


def test_one_image_and_a_model_without_finite_answers():
    model = linear(3)
    spec = ParamSpec.of(model)
    assert class_gradients(model, spec, normal(1, 6)).shape == (1, spec.num_parameters)
    with torch.no_grad():
        model.bias.fill_(float("nan"))
    assert class_gradients(model, spec, normal(20, 6)).shape == (0, spec.num_parameters)


def test_tied_frozen_and_unused_weights_and_tokens():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(20, 8)
            self.frozen = nn.Linear(8, 8).requires_grad_(False)
            self.unused = nn.Linear(8, 2)
            self.head = nn.Linear(8, 20, bias=False)
            self.head.weight = self.words.weight

        def forward(self, tokens):
            return self.head(self.frozen(self.words(tokens).mean(1)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Words()
    spec = ParamSpec.of(model)
    tokens = torch.randint(20, (50, 5), generator=torch.Generator().manual_seed(1))
    found = class_gradients(model, spec, tokens)
    assert len(found) > 1
    for slot in spec.parameters:
        moved = bool(slot.of(found).abs().sum() > 0)
        assert moved == (slot.name == "words.weight")


def test_a_recurrent_model_has_gradients_in_evaluation_mode():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.steps(x)[0][:, -1])

    model = Last()
    assert len(class_gradients(model, ParamSpec.of(model), normal(30, 7, 4))) > 0


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_what_is_left_is_that_of_least_squares(rank):
    span = normal(5, rank, seed=3) @ normal(rank, 40, seed=4)  # of less rank than rows
    rows = normal(7, 40, seed=5)
    a = span.numpy().astype("f8")
    expected = rows.numpy() - np.stack(
        [a.T @ np.linalg.lstsq(a.T, row, rcond=1e-5)[0] for row in rows.numpy().astype("f8")]
    )
    np.testing.assert_allclose(without(rows, span), expected, atol=1e-4)


def test_what_lies_in_the_span_is_nothing_and_not_rounding():
    span = normal(3, 50, seed=6)
    rows = torch.cat([normal(2, 3, seed=7) @ span, torch.zeros(1, 50)])
    assert without(rows, span).abs().max() == 0
    assert without(rows[:0], span).shape == (0, 50)
    assert torch.equal(without(rows, span[:0]), rows)
