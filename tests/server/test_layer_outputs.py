import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine, euclidean
from torch import nn

from entity.layout import ModelState, ParamSpec
from entity.models import build
from entity.server.layer_outputs import distances, layer_distances, layers_of


def network() -> nn.Module:
    layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(5, 2))


def moved(spec: ParamSpec, state: ModelState, seed: int, size: float = 0.1) -> ModelState:
    rng = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(state.weights), generator=rng)
    return ModelState(state.weights + size * noise, state.buffers + 0.5)


def outputs(model: nn.Sequential, x: torch.Tensor) -> list[np.ndarray]:
    """What the layers with weight matrices put out, by running one module after the other."""
    model.eval()
    seen = []
    with torch.no_grad():
        for module in model:
            x = module(x)
            if isinstance(module, nn.Conv2d | nn.Linear):
                seen.append(x.flatten(1).numpy().astype(float))
    return seen


@pytest.mark.parametrize("channels_last", [False, True])
def test_distances_are_those_of_a_plain_forward_pass(channels_last):
    model = network()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    spec = ParamSpec.of(model)
    first = spec.flatten(model)
    states = [moved(spec, first, seed, 10.0**-seed) for seed in (1, 2, 3)]
    x = torch.randn(130, 1, 4, 4, generator=torch.Generator().manual_seed(0))  # two batches
    found = layer_distances(model, spec, first, states, x).numpy()
    assert found.shape == (2, 3, 130, 3)
    spec.load(model, first)
    reference = outputs(model, x)
    for m, state in enumerate(states):
        spec.load(model, state)
        for layer, own in enumerate(outputs(model, x)):
            for sample in (0, 64, 129):
                pair = own[sample], reference[layer][sample]
                place = m, sample, layer
                assert found[0][place] == pytest.approx(cosine(*pair), rel=1e-3, abs=1e-9)
                assert found[1][place] == pytest.approx(euclidean(*pair), rel=1e-4)


def test_small_turns_do_not_drown_in_rounding():
    b = torch.tensor([[3.0, 4.0] * 500])
    turn = torch.tensor([[-4.0, 3.0] * 500])
    a = b + 1e-4 * turn
    assert distances(a, b)[0].item() == pytest.approx(1e-8 / 2, rel=0.02)
    assert distances(2 * b, b)[0].item() == pytest.approx(0, abs=1e-12)
    assert distances(-b, b)[0].item() == pytest.approx(2)


def test_what_is_not_finite_is_the_farthest():
    model = network()
    spec = ParamSpec.of(model)
    first = spec.flatten(model)
    for value in (3e38, 1e30):
        huge = ModelState(torch.full_like(first.weights, value), first.buffers)
        found = layer_distances(model, spec, first, [huge, first], torch.ones(3, 1, 4, 4))
        assert found.isfinite().all()
        assert (found[1, 0] > 1e29).all()
        assert (found[:, 1] == 0).all()  # the same model, to the bit


@pytest.mark.parametrize("name", ["cnn", "lenet", "resnet8", "vit"])
def test_every_layer_of_every_registered_model_is_looked_at(name):
    model = build(name, 1, 16, 3, torch.Generator().manual_seed(0))
    spec = ParamSpec.of(model)
    state = spec.flatten(model)
    weighted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    own = len(layers_of(model))
    assert own == len(weighted) + (name == "vit")  # its patches' positions
    found = layer_distances(model, spec, state, [moved(spec, state, 1)], torch.randn(2, 1, 16, 16))
    assert found.shape == (2, 1, 2, own)
    assert (found > 0).all()


class Reader(nn.Module):
    """Words, a recurrent layer with time first, and one linear layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.over_time = nn.GRU(4, 4)
        self.twice = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.over_time(self.words(x).transpose(0, 1))
        return self.twice(self.twice(hidden[-1]))


def test_a_users_own_model_of_words_is_looked_at_too():
    model = Reader()
    spec = ParamSpec.of(model)
    state = spec.flatten(model)
    x = torch.tensor([[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [0, 0, 0, 0, 0]])
    others = [moved(spec, state, 1), moved(spec, state, 2)]
    found = layer_distances(model, spec, state, others, x)
    assert found.shape == (2, 2, 3, 4)  # words, hidden states, and the linear layer twice
    assert (found > 0).all()
    spec.load(model, state)
    words = model.words(x).detach()
    spec.load(model, others[1])
    expected = (model.words(x).detach() - words).flatten(1).norm(dim=1)
    torch.testing.assert_close(found[1, 1, :, 0].float(), expected)


def test_a_model_of_one_module_is_its_own_layer():
    model = nn.Linear(2, 2)
    spec = ParamSpec.of(model)
    state = spec.flatten(model)
    assert list(layers_of(model)) == [""]
    assert layer_distances(model, spec, state, [state], torch.ones(4, 2)).shape == (2, 1, 4, 1)


def test_layers_that_work_in_place_on_what_was_put_out_change_nothing():
    """Regression: the first model's outputs were kept as views, and an activation changed them."""
    plain, inplace = (
        nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(inplace=here), nn.Linear(8, 3))
        for here in (False, True)
    )
    spec = ParamSpec.of(plain)
    first = spec.flatten(plain)
    x = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    others = [first, moved(spec, first, 2)]
    expected, found = (layer_distances(m, spec, first, others, x) for m in (plain, inplace))
    assert torch.equal(found, expected)
    assert not found[:, 0].any()
