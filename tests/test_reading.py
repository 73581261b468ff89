"""Reading within bounds: what is no file, too large, too deep or too long ends in an exception."""

import gzip
import json
import os

import pytest

from entity.reading import (
    NotRegular,
    TooDeep,
    TooLarge,
    at_most,
    deeper_than,
    open_regular,
    parse_json,
    read_bytes,
)


@pytest.mark.timeout(20)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link", "/dev/zero"):
        with pytest.raises(NotRegular, match="Not a regular file"):
            open_regular(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


def test_a_file_is_read_to_its_limit_and_no_farther(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(TooLarge, match="More than 4 bytes") as refusal:
        read_bytes(path, 4)
    assert refusal.value.strerror == "More than 4 bytes"


def test_an_archive_is_unpacked_to_the_limit_and_no_farther(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    with gzip.open(path) as file, pytest.raises(TooLarge):
        at_most(file, 1000, path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 101 + "]" * 101])
def test_json_is_not_followed_into_the_depth(text):
    with pytest.raises(TooDeep):
        parse_json(text)


def test_a_hundred_levels_are_not_too_deep():
    assert json.dumps(parse_json("[" * 100 + "]" * 100)) == "[" * 100 + "]" * 100


def test_whole_numbers_have_at_most_as_many_digits_as_the_largest_float():
    assert parse_json("-" + "9" * 308) == -(10**308 - 1)
    for digits in (309, 400, 5000):
        with pytest.raises(ValueError, match=f"a whole number has {digits:,} digits"):
            parse_json("-" + "9" * digits)


def test_an_endless_table_is_deeper_than_any_limit():
    table = {}
    table["x"] = [table]
    assert deeper_than(table, 10_000)
    assert not deeper_than({"x": [{}]}, 3)
    assert deeper_than({"x": [{}]}, 2)
