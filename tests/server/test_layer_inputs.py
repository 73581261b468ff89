"""Inputs times weights are the outputs of each layer."""

import pytest
import torch
from torch import nn

from entity.server.layer_inputs import ROWS, layer_inputs

SPARE = torch.Generator().manual_seed(0)
IMAGES = torch.randn(7, 4, 8, 8, generator=torch.Generator().manual_seed(1))

CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 3, 3, padding=1),
    "strided, not square": nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), bias=False),
    "grouped, reflecting": nn.Conv2d(4, 6, 3, padding=1, groups=2, padding_mode="reflect"),
    "depthwise, same": nn.Conv2d(4, 4, (2, 3), padding="same", groups=4),
    "dilated, valid": nn.Conv2d(4, 2, 3, dilation=2, padding="valid"),
}


def outputs(model, x):
    """Return what each layer answers, by name."""
    found = {}
    for name, layer in model.named_modules():
        layer.register_forward_hook(lambda _, __, out, name=name: found.setdefault(name, out))
    model(x)
    return found


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_patches_times_weights_are_what_a_convolution_answers(kind):
    layer = CONVOLUTIONS[kind]
    model = nn.Sequential(layer)
    answer = outputs(model, IMAGES)["0"].detach()
    ((name, found, inputs),) = layer_inputs(model, IMAGES, SPARE)
    assert (name, found) == ("0", layer)
    weights = layer.weight.detach().reshape(layer.groups, -1, inputs.shape[2])
    bias = 0 if layer.bias is None else layer.bias.detach()
    # (b, out, h, w) to rows (b * h * w, out), a group of outputs after the other
    rows = (inputs @ weights.mT).permute(1, 0, 2).flatten(1) + bias
    assert torch.allclose(rows, answer.permute(0, 2, 3, 1).flatten(0, 2), atol=1e-5)


def test_a_convolution_over_sequences_and_a_linear_layer_on_each_step():
    model = nn.Sequential(nn.Conv1d(4, 5, 3, padding=1), nn.Flatten(2), nn.Linear(8, 2))
    x = IMAGES[:, :, 0]
    answers = outputs(model, x)
    for name, layer, inputs in layer_inputs(model, x, SPARE):
        rows = inputs[0] @ layer.weight.detach().flatten(1).T + layer.bias.detach()
        answer = answers[name].detach()
        answer = answer.permute(0, 2, 1) if name == "0" else answer
        assert torch.allclose(rows, answer.flatten(0, 1), atol=1e-5)


def test_tokens_of_an_embedding_are_all_kept():
    tokens = torch.arange(3000) % 11
    model = nn.Sequential(nn.Embedding(11, 3))
    ((_, _, found),) = layer_inputs(model, tokens.reshape(-1, 10), SPARE)
    assert found.tolist() == tokens.tolist()


def test_of_many_patches_some_are_drawn_the_same_with_the_same_generator():
    model = nn.Sequential(nn.Conv2d(1, 1, 3))
    images = torch.randn(220, 1, 12, 12, generator=torch.Generator().manual_seed(2))

    def drawn(seed):
        return next(iter(layer_inputs(model, images, torch.Generator().manual_seed(seed))))[2]

    assert ROWS <= drawn(0).shape[1] <= ROWS + 3
    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


@pytest.mark.parametrize("number", [150, 300, 501])
def test_patches_are_drawn_alike_many_of_each_image(number):
    """Regression: those of a last part of fewer than a hundred images were drawn more often."""
    images = torch.arange(number).float()[:, None, None, None].expand(-1, 1, 12, 12)
    ((_, _, found),) = layer_inputs(nn.Sequential(nn.Conv2d(1, 1, 1)), images, SPARE)
    parts = torch.bincount(found.flatten().long() // 100)
    sizes = torch.tensor([len(part) for part in torch.arange(number).split(100)])
    assert ((parts - ROWS * sizes / number).abs() <= 1).all()


def test_the_model_is_looked_at_in_evaluation_and_left_as_it_was():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.9), nn.Conv2d(4, 1, 1)).train()
    ((_, _, inputs),) = layer_inputs(model, IMAGES, SPARE)
    expected = IMAGES / (1 + 1e-5) ** 0.5
    assert torch.allclose(inputs[0], expected.permute(0, 2, 3, 1).flatten(0, 2), atol=1e-6)
    assert all(part.training for part in model.modules())
    assert model[0].num_batches_tracked == 0
    assert not model[2]._forward_pre_hooks


def test_a_layer_used_twice_has_both_inputs_and_one_not_used_is_left_out():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice, self.never = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.twice(self.twice(x))

    ((name, _, inputs),) = layer_inputs(Odd(), torch.ones(3, 4), SPARE)
    assert (name, inputs.shape) == ("twice", (1, 6, 4))


def test_inputs_may_be_given_by_name_and_one_at_a_time():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(4, 2, 3), nn.Linear(72, 5)

        def forward(self, x):
            maps = torch.stack([self.conv(input=each) for each in x])
            return torch.stack([self.head(each.flatten()) for each in maps])

    model = Odd()
    answers = model(IMAGES)
    (_, conv, patches), (_, head, rows) = layer_inputs(model, IMAGES, SPARE)
    assert patches.shape == (1, 7 * 36, 36)
    maps = (patches[0] @ conv.weight.flatten(1).T + conv.bias).reshape(7, 36, 2).mT.flatten(1)
    assert torch.allclose(maps, rows[0], atol=1e-6)
    assert torch.allclose(rows[0] @ head.weight.T + head.bias, answers, atol=1e-6)
