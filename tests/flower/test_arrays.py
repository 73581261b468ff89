"""Models through Flower's arrays and back, and what is no model."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

pytest.importorskip("flwr.serverapp")
from flwr.app import Array, ArrayRecord
from odd_models import scratch, tied

from entity.config.schema import ConfigError
from entity.flower.arrays import ArrayLayout, Malformed, to_arrays
from entity.layout import ParamSpec


def npy(values) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def array(data: bytes, stype: str = "numpy.ndarray") -> Array:
    return Array("float32", (3,), stype, data)


def test_a_state_dict_goes_through_to_the_bit_with_its_dtypes(federation):
    model = federation.model
    counter = next(name for name in federation.arrays if name.endswith("num_batches_tracked"))
    state = federation.layout.read(federation.arrays, federation.layout.empty())
    assert torch.equal(state.weights, federation.state.weights)
    assert torch.equal(state.buffers, federation.state.buffers)
    back = federation.layout.write(state).to_torch_state_dict()
    assert back[counter].dtype == torch.int64
    for name, tensor in model.state_dict().items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_our_own_global_arrays_are_those_of_the_state_dict(federation):
    ours = to_arrays(federation.spec, federation.state)
    assert {k: (a.dtype, a.shape) for k, a in ours.items()} == {
        k: (a.dtype, a.shape) for k, a in federation.arrays.items()
    }


def test_prefixes_of_wrapped_models_are_kept_and_matched(federation):
    wrapped = ArrayRecord({f"module.{k}": v for k, v in federation.model.state_dict().items()})
    layout = ArrayLayout.of(federation.spec, wrapped)
    assert torch.equal(layout.read(wrapped, layout.empty()).weights, federation.state.weights)
    assert set(layout.write(federation.state)) == set(wrapped)


def test_the_prefix_of_opacus_is_kept_and_matched(federation):
    private = ArrayRecord({f"_module.{k}": v for k, v in federation.model.state_dict().items()})
    layout = ArrayLayout.of(federation.spec, private)
    assert torch.equal(layout.read(private, layout.empty()).weights, federation.state.weights)
    assert set(layout.write(federation.state)) == set(private)


def through(model):
    """Return a model's layouts by spec and by arrays, and its arrays."""
    arrays, spec = ArrayRecord(model.state_dict()), ParamSpec.of(model)
    return spec, ArrayLayout.of(spec, arrays), arrays


def test_non_persistent_buffers_are_in_no_message():
    model = scratch(1, 4, 10)
    spec, layout, arrays = through(model)
    back = layout.write(layout.read(arrays, layout.empty()))
    assert set(back) == set(arrays) == set(to_arrays(spec, spec.flatten(model)))
    scratch(1, 4, 10).load_state_dict(back.to_torch_state_dict())


def test_tied_weights_go_through_under_all_their_names():
    model = tied(1, 4, 10)
    spec, layout, arrays = through(model)
    state = layout.read(arrays, layout.empty())
    assert torch.equal(state.weights, spec.flatten(model).weights)
    back = layout.write(state)
    assert set(back) == set(arrays) == set(to_arrays(spec, state))
    other = tied(1, 4, 10)
    other.load_state_dict(back.to_torch_state_dict())
    assert torch.equal(spec.flatten(other).weights, state.weights)


@pytest.mark.parametrize("left_out", ["embedding.weight", "head.weight"])
def test_of_tied_weights_one_name_is_enough_where_the_global_arrays_have_one(left_out):
    spec, whole, arrays = through(tied(1, 4, 10))
    del arrays[left_out]  # as files of some libraries have it
    layout = ArrayLayout.of(spec, arrays)
    state = layout.read(arrays, layout.empty())
    assert set(layout.write(state)) == set(arrays)
    with pytest.raises(Malformed, match=f'unexpected array "{left_out}"'):
        layout.read(whole.write(state), layout.empty())


def test_tied_weights_that_differ_are_no_update_of_this_model():
    _, layout, arrays = through(tied(1, 4, 10))
    values = arrays["head.weight"].numpy().copy()
    values[3, 2] += 1e-6
    arrays["head.weight"] = Array(values)
    reason = 'arrays "embedding.weight" and "head.weight" differ, and are one in the model'
    with pytest.raises(Malformed, match=reason):
        layout.read(arrays, layout.empty())
    arrays["head.weight"] = Array(values.astype(np.float64))
    with pytest.raises(Malformed, match=r'array "head\.weight" has dtype <f8 instead of <f4'):
        layout.read(arrays, layout.empty())
    del arrays["head.weight"]
    with pytest.raises(Malformed, match=r'missing array "head\.weight"'):
        layout.read(arrays, layout.empty())


def test_tied_global_arrays_of_two_kinds_are_refused_by_name():
    spec, _, arrays = through(tied(1, 4, 10))
    arrays["head.weight"] = Array(arrays["head.weight"].numpy().astype(np.float16))
    with pytest.raises(ConfigError, match=r"head\.weight is float16, and embedding\.weight"):
        ArrayLayout.of(spec, arrays)
    arrays["head.weight"] = Array(np.zeros((10, 9), np.float32))
    with pytest.raises(ConfigError, match=r"head\.weight has the shape \(10, 9\), and \(10, 8\)"):
        ArrayLayout.of(spec, arrays)


def test_a_fortran_array_is_read_in_row_major_order():
    model = nn.Linear(3, 2, bias=False)
    spec = ParamSpec.of(model)
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    layout = ArrayLayout.of(spec, ArrayRecord({"weight": torch.zeros(2, 3)}))
    record = {"weight": array(npy(np.asfortranarray(values)))}
    assert b"True" in record["weight"].data
    assert layout.read(record, layout.empty()).weights.tolist() == [0, 1, 2, 3, 4, 5]


def test_half_precision_global_arrays_stay_half_precision():
    spec = ParamSpec.of(nn.Linear(3, 1, bias=False))
    arrays = ArrayRecord({"weight": torch.tensor([[0.5, 1.0, -2.0]], dtype=torch.float16)})
    layout = ArrayLayout.of(spec, arrays)
    state = layout.read(arrays, layout.empty())
    assert state.weights.tolist() == [0.5, 1.0, -2.0]
    assert layout.write(state)["weight"].dtype == "float16"


def test_a_counter_stops_where_float32_would_stop_counting(federation):
    name = next(name for name in federation.arrays if name.endswith("num_batches_tracked"))
    record = federation.layout.write(federation.state)
    for sent, kept in ((2**62, 2**24), (-(2**62), -(2**24)), (2**24 - 1, 2**24 - 1)):
        record[name] = Array(np.asarray(sent))
        state = federation.layout.read(record, federation.layout.empty())
        assert federation.layout.write(state)[name].numpy() == kept


def zipped(member: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", member)
    return stream.getvalue()


def header(text: str, payload: bytes = b"\0" * 12) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + payload


GOOD = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (array(npy(np.zeros(4, np.float32))), "has shape (4,) instead of (3,)"),
        (array(npy(np.zeros((3, 1), np.float32))), "has shape (3, 1) instead of (3,)"),
        (array(npy(np.zeros(3))), "has dtype <f8 instead of <f4"),
        (array(npy(GOOD.astype(">f4"))), "has dtype >f4 instead of <f4"),
        (array(npy(np.zeros(3, np.complex64))), "has dtype <c8 instead of <f4"),
        (array(npy(np.array([1, np.nan, 0], np.float32))), "nonfinite update"),
        (array(npy(np.array([1, 0, -np.inf], np.float32))), "nonfinite update"),
        (array(npy(GOOD)[:-1]), "is truncated: 11 bytes instead of 12"),
        (array(npy(GOOD) + b"\0"), "is oversized: 13 bytes instead of 12"),
        (array(npy(np.zeros(10**5, np.float32))), "is oversized: 400128 bytes instead of 12"),
        (array(b""), "is not in NumPy's format"),
        (array(zipped(npy(GOOD))), "is not in NumPy's format"),
        (array(npy(GOOD), "torch.pickle"), "is not in NumPy's format"),
        (array(header("__import__('os').abort()\n")), "has no plain header"),
        (array(header("(" * 5000 + "\n")), "has no plain header"),
        (
            array(
                header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n")
            ),
            "has shape (1000000000000,) instead of (3,)",
        ),
        (
            array(header("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }\n")),
            "has dtype |O instead of <f4",
        ),
    ],
)
def test_what_is_no_such_array_is_refused_with_the_reason(sent, reason):
    layout = ArrayLayout.of(
        ParamSpec.of(nn.Linear(3, 1, bias=False)), ArrayRecord({"weight": torch.zeros(1, 3)})
    )
    flat = ArrayLayout(
        (
            layout.places[0]._replace(
                slot=layout.places[0].slot.__class__("w", torch.Size([3]), 0, 3)
            ),
        ),
        layout.spec,
    )
    with pytest.raises(Malformed) as error:
        flat.read({"weight": sent}, flat.empty())
    assert str(error.value) in (reason, f'array "weight" {reason}')


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 139), st.integers(0, 255))
def test_no_bytes_do_anything_but_be_read_or_refused(noise, place, value):
    """Neither noise nor one wrong byte in a good file raises anything else."""
    layout = ArrayLayout.of(
        ParamSpec.of(nn.Linear(3, 1, bias=False)), ArrayRecord({"weight": torch.zeros(1, 3)})
    )
    good = bytearray(npy(np.zeros((1, 3), np.float32)))
    good[place] = value
    for data in (noise, bytes(good)):
        try:
            state = layout.read({"weight": array(data)}, layout.empty())
        except Malformed:
            continue
        assert torch.isfinite(state.weights).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("head.bias"), 'lack "head.bias", which the server'),
        (lambda a: a.update(extra=a["head.bias"]), 'have "extra", which it has not'),
        (lambda a: a.update({"head.bias": torch.zeros(4)}), "has the shape (4,), and (3,)"),
        (
            lambda a: a.update({"head.bias": torch.zeros(3, dtype=torch.int64)}),
            "head.bias is int64, another kind of number",
        ),
    ],
)
def test_global_arrays_of_another_model_are_refused(federation, change, message):
    tensors = dict(federation.model.state_dict())
    assert "head.bias" in tensors, json.dumps(list(tensors))
    change(tensors)
    with pytest.raises(ConfigError) as error:
        ArrayLayout.of(federation.spec, ArrayRecord(tensors))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.tensor([2654435761, 40503]), "multipliers has whole numbers above 16,777,216"),
        (torch.tensor([-(2**63), 0]), "multipliers has whole numbers above 16,777,216"),
        (torch.tensor([2**24 + 1, 1], dtype=torch.int32), "multipliers has whole numbers above"),
        (torch.tensor([0.0, -torch.inf]), "multipliers has numbers that are not finite"),
    ],
)
def test_global_arrays_that_single_precision_does_not_hold_are_refused(values, message):
    model = nn.Linear(2, 2)
    model.register_buffer("multipliers", values)
    spec, arrays = ParamSpec.of(model), ArrayRecord(model.state_dict())
    layout = ArrayLayout.of(spec, arrays)
    with pytest.raises(ConfigError, match=f"^initial_arrays: {message}"):
        layout.first(arrays)


def test_a_counter_of_batches_may_have_stopped(federation):
    state = federation.model.state_dict()
    (name,) = (name for name in state if name.endswith("num_batches_tracked"))
    arrays = ArrayRecord(state | {name: torch.tensor(2**30)})
    assert federation.layout.first(arrays).buffers.max() == 2**24


def test_a_dtype_of_sixty_thousand_letters_does_not_go_into_the_reason(federation):
    place = federation.layout.places[0]
    shape = ", ".join(map(str, place.shape))
    header = f"{{'descr': '<{'f' * 60_000}', 'fortran_order': False, 'shape': ({shape}), }}\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    content = {**federation.arrays, place.name: array(data)}
    with pytest.raises(Malformed, match="has dtype") as refusal:
        federation.layout.read(content, federation.layout.empty())
    assert len(str(refusal.value)) < 200
