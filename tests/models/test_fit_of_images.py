"""Which images a model can take, asked of the model itself on real tensors."""

import pytest
import torch

from entity.models import MODELS, build
from entity.models.fit_of_images import next_size, takes, trains_on_one
from entity.setup.checks import ANY_MODEL


@pytest.mark.parametrize("name", ["cnn", "lenet", "vit", "resnet8"])
@pytest.mark.parametrize("size", [1, 3, 4, 15, 16])
def test_what_is_found_without_computing_is_what_a_model_does(name, size):
    try:
        model = build(name, 3, size, 5, torch.Generator())
        works = model(torch.zeros(2, 3, size, size)).shape == (2, 5)
    except (RuntimeError, ZeroDivisionError):
        works = False
    assert takes(MODELS[name].make, 3, size) == works


@pytest.mark.parametrize("name", [*MODELS])
def test_every_model_takes_the_size_from_which_none_is_asked(name):
    for size in (ANY_MODEL, ANY_MODEL + 1, 28, 32):
        assert takes(MODELS[name].make, 1, size), size


def test_the_next_size_is_named():
    assert next_size(MODELS["lenet"].make, 1, 12) == 16
    assert next_size(lambda channels, size, classes: torch.nn.Linear(1, 1), 1, 12) is None


def test_batch_norm_of_one_value_a_channel_cannot_be_trained_on_one_image():
    tall = torch.zeros(1, 32, 32)
    small = torch.zeros(1, 16, 16)
    vgg11 = {size: build("vgg11", 1, size, 5, torch.Generator()) for size in (16, 32)}
    assert not trains_on_one(vgg11[16], small)
    assert trains_on_one(vgg11[32], tall)
    assert trains_on_one(build("vgg11", 1, 16, 5, torch.Generator(), "group"), small)
    assert trains_on_one(build("lenet", 1, 16, 5, torch.Generator()), small)
