"""Models between Flower's records of named arrays and this project's flat vectors.

A node's message is hostile until shown otherwise. NumPy's own reader is not used: it opens zip
archives, evaluates the header as a literal and allocates as much memory as the header says. Here
the header is matched as text and compared with the model before the payload is touched.

Parameters and floating buffers keep the dtype that the global arrays have; counters (BatchNorm's
`num_batches_tracked`) come back as the integers they were, and are in no distance, as `ParamSpec`
keeps them apart.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from entity.config.schema import ConfigError, show
from entity.layout import ModelState, ParamSpec, Slot, plain_names

HEADER = re.compile(
    rb"\{'descr': '([<>|=]?\w+)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \} *\n"
)
"""The header of every .npy file that NumPy writes for a plain array."""

EXACT = 1 << 24
"""Counters are held in float32, and stop where that stops being exact."""


_KEPT_OUT = "a buffer that never changes need not be in the state (persistent=False)."


class Malformed(ValueError):
    """A node sent no update of this model; the text is the reason of its refusal."""


class Place(NamedTuple):
    """One array of the record, and its slot in the flat vectors."""

    names: tuple[str, ...]
    """The names in the global arrays, prefixes included; a tied tensor has several."""
    dtype: np.dtype[Any]
    slot: Slot
    is_parameter: bool

    @property
    def name(self) -> str:
        """The first of the names."""
        return self.names[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.slot.shape)

    @property
    def is_counter(self) -> bool:
        """Whether the entries are integers, of which no mean is taken."""
        return self.dtype.kind not in "f"


@dataclass(frozen=True)
class ArrayLayout:
    """The slots of a record's arrays in the flat vectors."""

    places: tuple[Place, ...]
    spec: ParamSpec

    @classmethod
    def of(cls, spec: ParamSpec, arrays: Mapping[str, Array]) -> "ArrayLayout":
        """Match the global arrays, such as `ArrayRecord(model.state_dict())`, to a model.

        Raises
        ------
        ConfigError
            If they are not those of the model: a name, a shape or a kind of number differs.
        """
        slots = [(slot, True) for slot in spec.parameters]
        slots += [(slot, False) for slot in spec.buffers]
        given = {plain: name for name, plain in plain_names(arrays).items()}
        known = {name for slot, _ in slots for name in spec.names(slot)}
        for kind, names in (
            ("lack", [slot.name for slot, _ in slots if given.keys().isdisjoint(spec.names(slot))]),
            ("have", [name for name in given if name not in known]),
        ):
            if names:
                other = "which the server's model has" if kind == "lack" else "which it has not"
                raise ConfigError(f"initial_arrays: {kind} {show(names[0])}, {other}.")
        places: list[Place] = []
        for slot, is_parameter in slots:
            called = tuple(given[name] for name in spec.names(slot) if name in given)
            place = Place(called, np.dtype(arrays[called[0]].dtype), slot, is_parameter)
            for name in called:
                _check(arrays[name], name, place, spec)
            places.append(place)
        return cls(tuple(places), spec)

    @property
    def rounds(self) -> bool:
        """Whether parameters or floating buffers have less than single precision."""
        return any(place.dtype.itemsize < 4 for place in self.places if not place.is_counter)

    @property
    def room(self) -> int:
        """Most bytes that a record of this model takes, the arrays' headers included."""
        return sum(_longest(place) * len(place.names) for place in self.places)

    def empty(self, rows: int | None = None) -> ModelState:
        """Return uninitialised vectors, or matrices of so many rows, to read into."""
        size = () if rows is None else (rows,)
        return ModelState(
            torch.empty(*size, self.spec.num_parameters), torch.empty(*size, self.spec.num_buffers)
        )

    def read(self, arrays: Mapping[str, Array], out: ModelState) -> ModelState:
        """Read a record into flat vectors (P,) and (B,), which may be rows of a matrix.

        Raises
        ------
        Malformed
            If it is not exactly this model in finite numbers; `out` may then be half written.
        """
        known = {name for place in self.places for name in place.names}
        if missing := [name for name in known if name not in arrays]:
            raise Malformed(f"missing array {_first(missing)}")
        if extra := [name for name in arrays if name not in known]:
            raise Malformed(f"unexpected array {_first(extra)}")
        vectors = out.weights.numpy(), out.buffers.numpy()
        for place in self.places:
            values = npy_values(arrays[place.name], place)
            row = vectors[0 if place.is_parameter else 1][place.slot.start : place.slot.stop]
            with np.errstate(over="ignore", invalid="ignore"):
                row[:] = np.clip(values, -EXACT, EXACT) if place.dtype.kind in "iu" else values
            if not np.isfinite(row).all():
                raise Malformed("nonfinite update")
            for other in place.names[1:]:
                if not np.array_equal(values, npy_values(arrays[other], place, other)):
                    one = f"arrays {show(place.name)} and {show(other)}"
                    raise Malformed(f"{one} differ, and are one in the model")
        return out

    def first(self, arrays: Mapping[str, Array]) -> ModelState:
        """Read the global arrays that a federation begins with.

        Raises
        ------
        ConfigError
            If they are not finite, or have whole numbers that single precision does not hold.
        """
        for place in self.places:
            counts = place.slot.name.rpartition(".")[2] == "num_batches_tracked"
            try:
                values = npy_values(arrays[place.name], place)
            except Malformed as error:
                raise ConfigError(f"initial_arrays: {error}.") from error
            if not np.isfinite(values).all():
                raise ConfigError(
                    f"initial_arrays: {place.name} has numbers that are not finite; {_KEPT_OUT}"
                )
            if (
                place.dtype.kind in "iu"
                and not counts
                and (np.abs(values.astype("f8")) > EXACT).any()
            ):
                raise ConfigError(
                    f"initial_arrays: {place.name} has whole numbers above {EXACT:,}, which single "
                    f"precision does not hold; {_KEPT_OUT}"
                )
        return self.read(arrays, self.empty())

    def write(self, state: ModelState) -> ArrayRecord:
        """Return a model as a record, with the names and dtypes of the global arrays."""
        record = ArrayRecord()
        for place in self.places:
            vector = (state.weights if place.is_parameter else state.buffers).numpy()
            values = vector[place.slot.start : place.slot.stop].reshape(place.shape)
            if place.is_counter:
                values = values.round()
            array = np.asarray(values.astype(place.dtype))
            for name in place.names:
                record[name] = Array(array)
        return record


def _check(array: Array, name: str, place: Place, spec: ParamSpec) -> None:
    """Refuse a global array that is not one of the model; the error names it."""
    slot = place.slot
    counts = not place.is_parameter and bool(spec.counters[slot.start : slot.stop].any())
    if tuple(array.shape) != place.shape:
        raise ConfigError(
            f"initial_arrays: {name} has the shape {tuple(array.shape)}, and "
            f"{place.shape} in the server's model."
        )
    if place.dtype.kind not in ("iub" if counts else "f"):
        raise ConfigError(
            f"initial_arrays: {name} is {array.dtype}, another kind of "
            "number than in the server's model."
        )
    if np.dtype(array.dtype) != place.dtype:
        raise ConfigError(
            f"initial_arrays: {name} is {array.dtype}, and {place.name}, which is the same in the "
            f"model, {place.dtype}."
        )


def to_arrays(spec: ParamSpec, state: ModelState) -> ArrayRecord:
    """Return a model of the project as global arrays: float32, counters int64."""
    places = [Place(spec.names(slot), np.dtype("f4"), slot, True) for slot in spec.parameters]
    for slot in spec.buffers:
        counts = bool(spec.counters[slot.start : slot.stop].any())
        places.append(Place(spec.names(slot), np.dtype("i8" if counts else "f4"), slot, False))
    return ArrayLayout(tuple(places), spec).write(state)


def npy_values(array: Array, place: Place, name: str | None = None) -> NDArray[Any]:
    """Return the entries (size,) of one array in row-major order, as a view of its bytes.

    Parameters
    ----------
    array
        As a node sent it.
    place
        What it must be.
    name
        Its name; None for the first of the place's.

    Raises
    ------
    Malformed
        If it is not in NumPy's format, or has another dtype, shape or length than the model's.
    """
    what, data = f"array {show(name or place.name)}", array.data
    if array.stype != "numpy.ndarray":
        raise Malformed(f"{what} is not in NumPy's format")
    size = math.prod(place.shape) * place.dtype.itemsize
    if len(data) > _longest(place):
        raise Malformed(f"{what} is oversized: {len(data)} bytes instead of {size}")
    wide = data[6:8] == b"\x02\x00"
    if data[:6] != b"\x93NUMPY" or not (wide or data[6:8] == b"\x01\x00"):
        raise Malformed(f"{what} is not in NumPy's format")
    start = 12 if wide else 10
    end = start + int.from_bytes(data[8:start], "little")
    header = HEADER.fullmatch(data[start:end])
    if header is None:
        raise Malformed(f"{what} has no plain header")
    dtype, fortran, shape = (part.decode() for part in header.groups())
    if dtype != place.dtype.str:
        raise Malformed(f"{what} has dtype {dtype[:10]} instead of {place.dtype.str}")
    expected = ", ".join(map(str, place.shape)) + ("," if len(place.shape) == 1 else "")
    if shape != expected:
        raise Malformed(f"{what} has shape ({shape[:40]}) instead of ({expected})")
    if len(data) - end != size:
        kind = "oversized" if len(data) - end > size else "truncated"
        raise Malformed(f"{what} is {kind}: {len(data) - end} bytes instead of {size}")
    values = np.frombuffer(data, place.dtype, offset=end)
    return values.reshape(place.shape, order="F").ravel() if fortran == "True" else values


def _longest(place: Place) -> int:
    """Return the most bytes of an array: its entries and the longest header of version 1."""
    return math.prod(place.shape) * place.dtype.itemsize + (1 << 16) + 16


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return show(sorted(names)[0]) + more
