"""What a reply may take in memory, before Flower joins its arrays."""

import json

import pytest

pytest.importorskip("flwr.serverapp")
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.superlink.grid import http_grid

from entity.flower.arrays import Malformed
from entity.flower.inflation import BESIDE, at_most, joined_size


def sent(record):
    """Return what a node uploads for a record: its object's id, and all objects' bytes."""
    objects = get_all_nested_objects(record)
    return record.object_id, {name: each.deflate() for name, each in objects.items()}


def bomb(chunk: bytes, times: int):
    """Return an array that names one chunk many times, as the bytes of its objects."""
    content = f"ArrayChunk  {len(chunk)}".encode() + b"\0" + chunk
    body = json.dumps(
        {"dtype": "f4", "shape": [1], "stype": "numpy.ndarray", "arraychunk_ids": [0] * times}
    ).encode()
    array = f"Array {get_object_id(content)} {len(body)}".encode() + b"\0" + body
    return get_object_id(array), {get_object_id(array): array, get_object_id(content): content}


def test_a_chunk_that_is_named_many_times_is_refused_before_it_is_joined():
    name, objects = bomb(b"\0" * 1000, 1000)
    with at_most(100_000), pytest.raises(Malformed, match="more bytes than the model has"):
        inflate_object_from_contents(name, objects)


def test_arrays_of_a_reply_count_together():
    record = ArrayRecord({f"a{i}": Array(np.full(100, float(i))) for i in range(3)})
    name, objects = sent(record)
    size = 3 * len(Array(np.zeros(100)).data)
    with at_most(size):
        found = inflate_object_from_contents(name, dict(objects))
    assert all(np.array_equal(found[key].numpy(), record[key].numpy()) for key in record)
    with at_most(size - 1), pytest.raises(Malformed):
        inflate_object_from_contents(name, dict(objects))


@pytest.mark.parametrize("kind", [ConfigRecord, MetricRecord])
def test_records_beside_the_arrays_have_little_room(kind):
    def beside(size):
        junk = {"x": b"\0" * size} if kind is ConfigRecord else {"x": [1.0] * (size // 8)}
        record = RecordDict({"arrays": ArrayRecord([np.zeros(3)]), "junk": kind(junk)})
        name, objects = sent(record)
        with at_most(1000):
            return inflate_object_from_contents(name, objects)

    assert "junk" in beside(BESIDE // 2)
    with pytest.raises(Malformed, match="records of more than 1048576 bytes beside its arrays"):
        beside(BESIDE + 100)


def test_objects_that_no_array_names_are_refused_before_all_are_pulled():
    class Answer:
        object_found = object_available = True
        object_content = b"\0" * 400_000

    pulled = []

    def pull(request):
        pulled.append(request.object_id)
        return Answer

    def pull_all():
        made = http_grid.make_pull_object_fn_protobuf(pull, None, 1)
        return http_grid.pull_objects([f"{i}" for i in range(100)], made, max_concurrent_pulls=2)

    with at_most(1000), pytest.raises(Malformed, match="more bytes than the model has"):
        pull_all()
    assert len(pulled) < 10
    pulled.clear()
    assert len(pull_all()) == 100  # nothing is bounded outside


def test_without_a_bound_flower_joins_as_it_does():
    name, objects = bomb(b"abc", 5)
    assert inflate_object_from_contents(name, objects).data == b"abc" * 5


def test_the_size_is_that_of_the_joined_array():
    name, objects = bomb(b"abcd", 3)
    with at_most(12):
        assert len(inflate_object_from_contents(name, dict(objects)).data) == 12
    (chunk,) = (each for key, each in objects.items() if key != name)

    class Chunk:
        data = chunk.partition(b"\0")[2]

    ids = objects[name].split(b" ")[1].decode()
    assert joined_size(objects[name], {ids: Chunk}) == 12


def test_an_array_without_chunks_takes_nothing():
    name, objects = bomb(b"abcd", 0)
    with at_most(0), pytest.raises(ValueError, match="Unexpected set"):
        inflate_object_from_contents(name, objects)
