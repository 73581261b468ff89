import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from entity.config.schema import ConfigError
from entity.layout import ParamSpec
from entity.models import ALIASES, CRITICS, GENERATORS, MODELS, build, find
from entity.models.resnet import BasicBlock


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


COUNTS = {
    # Counted layer by layer: k*k*in*out weights, biases, two numbers a normalised channel.
    "cnn": lambda c, s, k: (9 * c + 1) * 16 + 145 * 32 + (32 * (s // 4) ** 2 + 1) * 64 + 65 * k,
    "lenet": lambda c, s, k: (
        (25 * c + 1) * 6 + 151 * 16 + (16 * (s // 4 - 3) ** 2 + 1) * 120 + 121 * 84 + 85 * k
    ),
    # Those of the paper's family in colour with 10 classes; the stem and the head differ.
    "resnet8": lambda c, s, k: 78_042 + (c - 3) * 9 * 16 + (k - 10) * 65,
    "resnet20": lambda c, s, k: 272_474 + (c - 3) * 9 * 16 + (k - 10) * 65,
    "resnet18": lambda c, s, k: 11_173_962 + (c - 3) * 9 * 64 + (k - 10) * 513,
    "resnet34": lambda c, s, k: 21_282_122 + (c - 3) * 9 * 64 + (k - 10) * 513,
    "emnist_resnet18": lambda c, s, k: 11_173_962 + (c - 3) * 9 * 64 + (k - 10) * 513,
    "gtsrb_resnet18": lambda c, s, k: 11_173_962 + (c - 3) * 9 * 64 + (k - 10) * 513,
    "vgg11": lambda c, s, k: (
        9 * (c * 64 + 64 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 3 * 512 * 512)
        + 2 * (64 + 128 + 2 * 256 + 4 * 512)
        + 513 * 512
        + 513 * k
    ),
    "vit": lambda c, s, k: (
        (16 * c + 1) * 96
        + (s // 4) ** 2 * 96
        + 4 * (97 * 288 + 97 * 96 + 97 * 192 + 193 * 96 + 4 * 96)
        + 2 * 96
        + 97 * k
    ),
}
SHAPES = [(1, 28), (3, 32)]


def test_every_model_is_counted():
    assert set(COUNTS) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("channels", "size"), SHAPES)
@pytest.mark.parametrize("classes", [10, 43, 47, 100])
def test_classifiers_have_the_size_of_their_papers(name, channels, size, classes):
    with torch.device("meta"):
        model = MODELS[name].make(channels, size, classes)
        answers = model.eval()(torch.empty(2, channels, size, size))
    count = sum(p.numel() for p in model.parameters())
    assert count == COUNTS[name](channels, size, classes)
    assert answers.shape == (2, classes)


@pytest.mark.parametrize("name", MODELS)
def test_the_summary_states_the_number_of_parameters(name):
    summary = MODELS[name].summary
    figure = re.search(r"([\d.]+)(k|M)( parameters| at 28x28)$", summary)
    assert figure, summary
    shape = (1, 28) if "28x28" in summary else (3, 32)
    unit = {"k": 1e3, "M": 1e6}[figure[2]]
    digits = len(figure[1].partition(".")[2])
    assert round(COUNTS[name](*shape, 10) / unit, digits) == float(figure[1])


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize(("channels", "size"), SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_a_classifier_trains_in_every_parameter_and_travels_as_vectors(name, channels, size, norm):
    model = build(name, channels, size, 10, rng(), norm)
    batch_norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    spec = ParamSpec.of(model)
    if norm == "group":
        assert not batch_norms
        assert spec.num_buffers == 0
    assert spec.num_parameters == COUNTS[name](channels, size, 10)
    x = torch.randn(2, channels, size, size, generator=rng(1))
    F.cross_entropy(model(x), torch.arange(2)).backward()
    for parameter, found in model.named_parameters():
        assert found.grad is not None, parameter
        assert found.grad.abs().sum() > 0, parameter

    model.eval()
    with torch.no_grad():
        answers = model(x)
        assert torch.equal(model(x), answers)
        twin = build(name, channels, size, 10, rng(2), norm).eval()
        assert not torch.equal(twin(x), answers)
        spec.load(twin, spec.flatten(model))
        assert torch.equal(twin(x), answers)


def test_the_original_s_names_of_models_are_understood():
    for alias, name in ALIASES.items():
        assert find(alias) is MODELS[name]
    assert set(ALIASES) == {"emnist", "fashionmnist", "gtsrb"}


@pytest.mark.parametrize(
    ("name", "channels", "size", "side"),
    [
        ("resnet18", 3, 32, 2),
        ("resnet18", 1, 28, 4),
        ("resnet34", 3, 32, 2),
        ("emnist_resnet18", 1, 28, 4),
        ("emnist_resnet18", 3, 28, 4),
        ("gtsrb_resnet18", 3, 32, 2),
        ("gtsrb_resnet18", 1, 32, 2),
    ],
)
def test_who_pools_behind_the_stem(name, channels, size, side):
    sides = []
    with torch.device("meta"):
        model = MODELS[name].make(channels, size, 10)
        pool = next(m for m in model.modules() if isinstance(m, nn.AdaptiveAvgPool2d))
        pool.register_forward_pre_hook(lambda _, given: sides.append(tuple(given[0].shape)))
        model.eval()(torch.empty(2, channels, size, size))
    assert sides == [(2, 512, side, side)]


@pytest.mark.parametrize(("inputs", "stride"), [(4, 1), (3, 1), (4, 2)])
def test_a_block_adds_to_its_shortcut(inputs, stride):
    block = BasicBlock(inputs, 4, stride).eval()
    nn.init.zeros_(block.bn2.weight)  # silences the two convolutions
    x = torch.randn(2, inputs, 6, 6)
    projects = (inputs, stride) != (4, 1)
    assert len(block.shortcut) == (2 if projects else 0)
    expected = F.conv2d(x, block.shortcut[0].weight, stride=stride) if projects else x
    torch.testing.assert_close(block(x), expected.relu(), atol=1e-4, rtol=1e-4)
    nn.init.ones_(block.bn2.weight)
    assert not torch.allclose(block(x), expected.relu(), atol=1e-2)


def test_convolutions_of_residual_networks_start_as_he_s():
    convolutions = [
        m for m in build("resnet18", 3, 32, 10, rng()).modules() if isinstance(m, nn.Conv2d)
    ]
    assert len(convolutions) == 20
    for convolution in convolutions:
        weight = convolution.weight.detach().double()
        outputs, _, height, width = weight.shape
        z = weight / (2 / (outputs * height * width)) ** 0.5
        slack = 5 / z.numel() ** 0.5  # five standard errors; the kurtosis of a uniform is 1.8
        assert z.mean().item() == pytest.approx(0, abs=slack)
        assert z.square().mean().item() == pytest.approx(1, abs=1.5 * slack)
        assert z.pow(4).mean().item() == pytest.approx(3, abs=10 * slack)


def test_initial_weights_come_from_the_generator_alone():
    torch.manual_seed(1)
    first = build("cnn", 1, 8, 3, rng(4)).state_dict()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = build("cnn", 1, 8, 3, rng(4)).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = build("cnn", 1, 8, 3, rng(5)).state_dict()
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_convolutions_are_in_channels_last():
    model = build("resnet8", 3, 8, 10, rng())
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels > 1]
    kernels = [c.weight for c in convolutions if c.kernel_size == (3, 3)]
    assert kernels
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in kernels)


def test_an_unknown_model_gets_the_nearest_name():
    with pytest.raises(ConfigError, match=r"resnet81 is unknown. Did you mean resnet8\?"):
        find("resnet81")


def test_the_configs_names_of_generators_and_critics_exist():
    assert {"conv3_gen", "conv3_cgen"} <= set(GENERATORS)
    assert "conv3_dis" in CRITICS
    assert all(entry.summary for entry in MODELS.values())
