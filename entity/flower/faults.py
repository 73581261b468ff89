"""Broken replies for drills: what a node sends instead of its update, by `fault` in its config.

flower-supernode ... --node-config "partition-id=3 num-partitions=4 fault='nan'"
"""

import time
from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord

Fault = Callable[[ArrayRecord], None]
"""Changes a record of arrays in place."""


def _first(arrays: ArrayRecord) -> str:
    return next(iter(arrays))


def nan(arrays: ArrayRecord) -> None:
    """Put a NaN into the first array."""
    values = arrays[_first(arrays)].numpy().copy()
    values.flat[0] = np.nan
    arrays[_first(arrays)] = Array(values)


def missing(arrays: ArrayRecord) -> None:
    """Leave the first array out."""
    del arrays[_first(arrays)]


def extra(arrays: ArrayRecord) -> None:
    """Send an array that the model does not have."""
    arrays["no.such.array"] = arrays[_first(arrays)]


def shape(arrays: ArrayRecord) -> None:
    """Flatten the first array and add an entry."""
    values = arrays[_first(arrays)].numpy().ravel()
    arrays[_first(arrays)] = Array(np.append(values, values[:1]))


def dtype(arrays: ArrayRecord) -> None:
    """Send the first array in double precision."""
    arrays[_first(arrays)] = Array(arrays[_first(arrays)].numpy().astype(np.float64))


def oversized(arrays: ArrayRecord) -> None:
    """Send the first array a hundred times over."""
    arrays[_first(arrays)] = Array(np.repeat(arrays[_first(arrays)].numpy(), 100, axis=0))


def crash(arrays: ArrayRecord) -> None:
    """Fail."""
    raise RuntimeError("fault = crash")


def hang(arrays: ArrayRecord) -> None:
    """Be an hour late."""
    time.sleep(3600)


FAULTS: dict[str, Fault] = {
    "nan": nan,
    "missing": missing,
    "extra": extra,
    "shape": shape,
    "dtype": dtype,
    "oversized": oversized,
    "crash": crash,
    "hang": hang,
}
