import pytest
import torch
from odd_models import scratch, tied
from torch import nn

from entity.layout import BLOCK, ModelState, ParamSpec, blocks


def norm_net(seed=0):
    """A small network with BatchNorm, none of whose tensors is at its initial value."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), model[1].running_mean, model[1].running_var]:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        model[1].num_batches_tracked.fill_(7 + seed)
    return model


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_module_survives_the_way_into_vectors_and_back(memory):
    source, target = norm_net(0).to(memory_format=memory), norm_net(1).to(memory_format=memory)
    spec = ParamSpec.of(source)
    spec.load(target, spec.flatten(source))
    for (name, a), (_, b) in zip(
        source.state_dict().items(), target.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
        assert a.dtype == b.dtype
    x = torch.randn(2, 2, 4, 4)
    assert torch.equal(source.eval()(x), target.eval()(x))


def test_vectors_hold_parameters_in_definition_order_and_buffers_apart():
    model = norm_net().to(memory_format=torch.channels_last)
    spec = ParamSpec.of(model)
    state = spec.flatten(model)
    norm = model[1]
    expected = [model[0].weight, norm.weight, norm.bias, model[3].weight, model[3].bias]
    assert torch.equal(state.weights, torch.cat([p.detach().reshape(-1) for p in expected]))
    assert state.buffers.tolist() == [*norm.running_mean, *norm.running_var, 7.0]
    assert (spec.num_parameters, spec.num_buffers) == (72 + 8 + 48 + 3, 9)
    assert spec.counters.tolist() == [False] * 8 + [True]
    assert spec.variances.tolist() == [False] * 4 + [True] * 4 + [False]
    assert state.weights.dtype == state.buffers.dtype == torch.float32


def test_vectors_are_copies():
    model = norm_net()
    spec = ParamSpec.of(model)
    state = spec.flatten(model)
    kept = state.weights.clone(), state.buffers.clone()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    assert torch.equal(state.weights, kept[0])
    assert torch.equal(state.buffers, kept[1])


def test_rows_of_a_shared_matrix_are_filled_in_place():
    model = norm_net()
    spec = ParamSpec.of(model)
    weights, buffers = torch.zeros(3, spec.num_parameters), torch.zeros(3, spec.num_buffers)
    spec.flatten_into(model, ModelState(weights[1], buffers[1]))
    assert torch.equal(weights[1], spec.flatten(model).weights)
    assert torch.equal(buffers[1], spec.flatten(model).buffers)
    assert float(weights[[0, 2]].abs().sum() + buffers[[0, 2]].abs().sum()) == 0


def wrapped(name, model):
    holder = nn.Module()
    holder.add_module(name, model)
    return holder


@pytest.mark.parametrize(
    "names",
    [
        ["module"],
        ["_module"],
        ["_orig_mod"],
        ["_orig_mod", "module"],
        ["module", "_orig_mod"],
        ["_module", "module"],
    ],
)
def test_a_wrapped_or_compiled_module_has_the_layout_of_the_bare_one(names):
    model = norm_net()
    bare = ParamSpec.of(model)
    outer = model
    for name in names:
        outer = wrapped(name, outer)
    spec = ParamSpec.of(outer)
    assert spec.parameters == bare.parameters
    assert spec.buffers == bare.buffers
    assert torch.equal(spec.variances, bare.variances)
    assert torch.equal(spec.flatten(outer).weights, bare.flatten(model).weights)


def test_a_module_compiled_in_part_has_the_layout_of_the_bare_one():
    model = norm_net()
    bare = ParamSpec.of(model)
    model[1] = wrapped("_orig_mod", model[1])
    assert ParamSpec.of(model).parameters == bare.parameters


def test_a_models_own_module_is_no_wrapper():
    model = nn.Module()
    model.add_module("module", nn.Linear(2, 2))
    model.add_module("weight_of_head", nn.Linear(2, 2))
    names = [slot.name for slot in ParamSpec.of(model).parameters]
    assert names[0] == "module.weight"
    assert [slot.name for slot in ParamSpec.of(wrapped("_module", model)).parameters] == names


def test_tied_weights_are_in_the_vector_once_and_stay_tied():
    model = tied(1, 4, 10)
    spec = ParamSpec.of(model)
    assert spec.ties == {"head.weight": "embedding.weight"}
    assert spec.num_parameters == 10 * 8 + (8 * 16 * 8 + 8) + 2 * 8 + 10
    assert spec.slot("head.weight") == spec.slot("embedding.weight") == spec.parameters[0]
    assert spec.names(spec.parameters[0]) == ("embedding.weight", "head.weight")
    assert spec.names(spec.parameters[1]) == ("body.0.weight",)
    state = spec.flatten(model)
    other = tied(1, 4, 10)
    spec.load(other, state)
    assert other.head.weight is other.embedding.weight
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    around = wrapped("_module", model)
    assert ParamSpec.of(around).ties == spec.ties


def test_a_layer_under_two_names_and_a_tied_buffer_are_there_once():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU())
    model.append(model[0])
    model.append(nn.BatchNorm1d(3, affine=False))
    model[4].running_mean = model[1].running_mean
    spec = ParamSpec.of(model)
    assert [slot.name for slot in spec.parameters] == ["0.weight", "1.weight", "1.bias"]
    assert spec.ties == {"3.weight": "0.weight", "4.running_mean": "1.running_mean"}
    assert spec.num_buffers == 3 + 3 + 1 + 3 + 1
    spec.load(model, spec.flatten(model))
    assert model[4].running_mean is model[1].running_mean


def test_non_persistent_buffers_are_no_part_of_the_vectors_and_begin_anew():
    model = scratch(1, 4, 10)
    spec = ParamSpec.of(model)
    assert [slot.name for slot in spec.buffers] == ["features.2.kept"]
    assert set(spec.scratch) == {"features.2.mask", "features.2.calls"}
    state = spec.flatten(model)
    used = scratch(1, 4, 10)
    for _ in range(3):
        used(torch.zeros(2, 1, 4, 4))
    assert (used.features[2].calls, len(used.features[2].cache)) == (3, 2)
    spec.load(used, state)
    assert used.features[2].calls == 0
    assert used.features[2].kept.tolist() == [0, 0]
    x = torch.randn(2, 1, 4, 4)
    assert torch.equal(used(x), model(x))


def test_a_cache_that_has_grown_is_left_as_it_is():
    model = nn.Linear(2, 2)
    model.register_buffer("cache", torch.zeros(3), persistent=False)
    spec = ParamSpec.of(model)
    model.cache = torch.ones(5)
    spec.load(model, spec.flatten(model))
    assert model.cache.tolist() == [1] * 5


def test_a_module_with_state_that_is_no_tensor_has_a_layout():
    class Noted(nn.Linear):
        def get_extra_state(self):
            return {"notes": "of its own"}

        def set_extra_state(self, state):
            pass

    assert ParamSpec.of(Noted(2, 1)).num_parameters == 3


def test_a_slot_shows_its_tensor_in_a_vector_and_in_every_row():
    model = norm_net()
    spec = ParamSpec.of(model)
    slot = spec.slot("3.weight")
    vector = spec.flatten(model).weights
    assert torch.equal(slot.of(vector), model[3].weight)
    assert torch.equal(slot.of(vector.repeat(2, 1))[1], model[3].weight)
    with pytest.raises(KeyError, match="fc"):
        spec.slot("fc")


def test_a_module_without_buffers_has_empty_ones():
    spec = ParamSpec.of(nn.Linear(2, 1))
    assert spec.flatten(nn.Linear(2, 1)).buffers.shape == (0,)
    assert (spec.num_parameters, spec.num_buffers, len(spec.counters)) == (3, 0, 0)


def test_blocks_cover_every_column_once():
    for size in (0, 1, BLOCK, BLOCK + 1, 3 * BLOCK - 1):
        columns = [c for part in blocks(size) for c in range(part.start, part.stop)]
        assert columns == list(range(size))
