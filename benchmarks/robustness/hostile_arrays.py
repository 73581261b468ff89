"""Records of arrays that are no update of a model: each function makes one kind of them."""

import io
import pickle
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

Change = Callable[[Random, ArrayRecord], Any]

NAMES = ("", "x" * 100_000, "\x1b[2Jx", "a\nb", "\u202e", "head.bias\x00", "arrays", "é" * 300)
LONG = "x" * 50_000 + "\n\x1b[31m\ud83d"


def _name(rng: Random, arrays: ArrayRecord) -> str:
    return rng.choice(list(arrays))


def _values(arrays: ArrayRecord, name: str) -> NDArray[Any]:
    """Return the entries of an array, or of a sound one where an earlier change has broken it."""
    try:
        return arrays[name].numpy().copy()
    except Exception:
        return np.ones(3, np.float32)


def wrong_shape(rng: Random, arrays: ArrayRecord) -> None:
    name = _name(rng, arrays)
    flat = _values(arrays, name).ravel()
    shapes = [flat, flat[:-1], np.append(flat, 1).astype(flat.dtype), flat[:0], flat[None, :, None]]
    arrays[name] = Array(np.ascontiguousarray(rng.choice(shapes)))


def wrong_dtype(rng: Random, arrays: ArrayRecord) -> None:
    name = _name(rng, arrays)
    kinds = ["<f8", "<f2", ">f4", "<i8", "<i4", "?", "<c8", "<c16", "u1", "<U4", "S3", "<f4", "<M8"]
    with np.errstate(all="ignore"):
        values = _values(arrays, name)
        kind = rng.choice(kinds)
        if kind == "<M8":
            values = values.astype("<i8").astype("<M8[s]")
        arrays[name] = _array(_npy(values.astype(kind) if kind != "<M8" else values), values)


def nonfinite(rng: Random, arrays: ArrayRecord) -> None:
    name = _name(rng, arrays)
    values = _values(arrays, name).astype(np.float32)
    if values.size:
        values.flat[rng.randrange(values.size)] = rng.choice([np.nan, np.inf, -np.inf])
    arrays[name] = Array(values)


def huge(rng: Random, arrays: ArrayRecord) -> None:
    """Put the largest finite numbers everywhere, or here and there."""
    share, size = rng.choice([0.01, 0.5, 1.0]), rng.choice([1e6, 1e19, 1e20, 3e30, 3.4028e38])
    draw = np.random.default_rng(rng.randrange(2**32))
    for name in list(arrays):
        values = _values(arrays, name)
        if values.dtype.kind == "f":
            hit = draw.random(values.shape) < share
            signs = draw.choice([-1.0, 1.0], values.shape)
            arrays[name] = Array(np.asarray(np.where(hit, size * signs, values), np.float32))


def tiny(rng: Random, arrays: ArrayRecord) -> None:
    """Send zeros, or the smallest numbers there are."""
    size = rng.choice([0.0, -0.0, 1e-45, 1e-38])
    for name in list(arrays):
        values = _values(arrays, name)
        if values.dtype.kind == "f":
            arrays[name] = Array(np.full(values.shape, size, np.float32))


def negative_variances(rng: Random, arrays: ArrayRecord) -> None:
    for name in list(arrays):
        if name.endswith("running_var"):
            size = rng.choice([-1.0, -1e30, 0.0])
            arrays[name] = Array(np.full(_values(arrays, name).shape, size, np.float32))


def counters(rng: Random, arrays: ArrayRecord) -> None:
    for name in list(arrays):
        if name.endswith("num_batches_tracked"):
            count = rng.choice([2**62, -(2**62), -1, 2**63 - 1, -(2**63), 2**24 + 1])
            arrays[name] = Array(np.asarray(count, np.int64))


def missing(rng: Random, arrays: ArrayRecord) -> None:
    for name in rng.sample(list(arrays), rng.choice([1, len(arrays)])):
        del arrays[name]


def extra(rng: Random, arrays: ArrayRecord) -> None:
    for number in range(rng.choice([1, 1, 500])):
        arrays[rng.choice(NAMES) + str(number)] = arrays[_name(rng, arrays)]


def renamed(rng: Random, arrays: ArrayRecord) -> None:
    name = _name(rng, arrays)
    array = arrays[name]
    del arrays[name]
    arrays[rng.choice([*NAMES, "module." + name, name.upper()])] = array


def swapped(rng: Random, arrays: ArrayRecord) -> None:
    one, other = _name(rng, arrays), _name(rng, arrays)
    arrays[one], arrays[other] = arrays[other], arrays[one]


def cut_or_padded(rng: Random, arrays: ArrayRecord) -> None:
    name = _name(rng, arrays)
    data = arrays[name].data
    cut = data[: rng.randrange(len(data) + 1)]
    arrays[name] = _array(rng.choice([cut, data + b"\0" * rng.choice([1, 70_000]), data + data]))


def flipped(rng: Random, arrays: ArrayRecord) -> None:
    """Change a few bytes, most of them in the header."""
    name = _name(rng, arrays)
    data = bytearray(arrays[name].data or b"\0")
    for _ in range(rng.choice([1, 1, 5])):
        data[rng.randrange(min(len(data), rng.choice([130, 10**9])))] = rng.randrange(256)
    arrays[name] = _array(bytes(data))


def noise(rng: Random, arrays: ArrayRecord) -> None:
    arrays[_name(rng, arrays)] = _array(rng.randbytes(rng.choice([0, 6, 10, 128, 5000])))


def objects(rng: Random, arrays: ArrayRecord) -> None:
    """Send what NumPy's own reader would unpickle or unzip."""
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("a.npy", _npy(np.zeros(3, np.float32)))
    sent = [stream.getvalue(), archive.getvalue(), pickle.dumps([1.0, 2.0])]
    arrays[_name(rng, arrays)] = _array(rng.choice(sent))


def headers(rng: Random, arrays: ArrayRecord) -> None:
    texts = [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\n",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (" + "9," * 5000 + "), }\n",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }\n",
        "{'descr': '<f4' * 10**9, 'fortran_order': False, 'shape': (3,), }\n",
        "(" * 9000 + "\n",
        "",
    ]
    content = rng.choice(texts).encode()
    start = b"\x93NUMPY" + rng.choice([b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x09"])
    length = len(content).to_bytes(2 if start[6] == 1 else 4, "little")
    arrays[_name(rng, arrays)] = _array(start + length + content + bytes(12))


def metadata(rng: Random, arrays: ArrayRecord) -> None:
    """Describe sound bytes wrongly."""
    name = _name(rng, arrays)
    data = arrays[name].data
    dtype = rng.choice(["float32", "", "object", LONG, "float64"])
    shape = rng.choice([(), (3,), (-1,), (10**18,), tuple(range(1000))])
    kind = rng.choice(["numpy.ndarray", "torch.pickle", "", LONG])
    arrays[name] = Array(dtype, shape, kind, data)


CHANGES: list[Change] = [
    *(wrong_shape, wrong_dtype, nonfinite, huge, huge, tiny, negative_variances, counters),
    *(missing, extra, renamed, swapped, cut_or_padded, flipped, noise, objects, headers, metadata),
]


def _npy(values: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def _array(data: bytes, values: NDArray[Any] | None = None) -> Array:
    shape = (3,) if values is None else values.shape
    return Array("float32", shape, "numpy.ndarray", data)
