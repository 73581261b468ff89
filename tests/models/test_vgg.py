import pytest
import torch
from torch import nn

from entity.models import build
from entity.models.vgg import vgg11


@pytest.mark.parametrize(("size", "sides"), [(28, [28, 14, 7, 4, 2]), (32, [32, 16, 8, 4, 2])])
def test_five_poolings_leave_one_pixel_of_28_as_of_32(size, sides):
    seen = []
    with torch.device("meta"):
        model = vgg11(3, size, 10)
        for layer in model.modules():
            if isinstance(layer, nn.MaxPool2d | nn.AdaptiveAvgPool2d):
                layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-1]))
        model.eval()(torch.empty(1, 3, size, size))
    assert seen == [*sides, 1]


def test_the_convolutions_are_those_of_configuration_a():
    with torch.device("meta"):
        layers = list(vgg11(3, 32, 10).features)
    plan = [
        layer.out_channels if isinstance(layer, nn.Conv2d) else "pool"
        for layer in layers
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d)
    ]
    pool = "pool"
    assert plan == [64, pool, 128, pool, 256, 256, pool, 512, 512, pool, 512, 512, pool]


def test_pooling_before_relu_is_relu_before_pooling_bit_for_bit():
    model = build("vgg11", 3, 16, 10, torch.Generator().manual_seed(0))
    layers = list(model.features)
    for place, layer in enumerate(model.features):
        if isinstance(layer, nn.MaxPool2d):
            layers[place], layers[place + 1] = layers[place + 1], layer
    usual = nn.Sequential(*layers)
    assert [type(m) for m in usual] != [type(m) for m in model.features]
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    gradients = []
    for features in (model.features, usual):
        model.zero_grad()
        answers = model.head(features(x))
        answers.square().sum().backward()
        gradients.append([answers, *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
