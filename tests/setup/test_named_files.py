"""What the files of an attack hold, as a part of what a run is."""

import hashlib
import os

import pytest

from entity.setup.named_files import READ, contents


def of(value, field="edge_case_path"):
    return contents({"client": {"attack": {field: str(value)}}})


def test_a_folder_is_the_names_and_contents_of_its_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    first = of(tmp_path)
    assert set(first) == {READ[1]}
    (tmp_path / ".hidden").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    assert of(tmp_path) == first
    (tmp_path / "b.png").write_bytes(b"2")
    both = of(tmp_path)
    assert both != first
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    assert of(tmp_path) != both


def test_a_file_s_name_may_be_no_utf_8(tmp_path):
    for name in ("é.png".encode(), b"\xff.png"):
        try:
            (tmp_path / os.fsdecode(name)).write_bytes(b"1")
        except OSError:
            pytest.skip("the disk takes no such name")
    one = hashlib.sha256(b"1").hexdigest().encode()
    lines = b"\n".join([b"\xc3\xa9.png " + one, b"\xff.png " + one])
    assert of(tmp_path) == {READ[1]: hashlib.sha256(lines).hexdigest()}


@pytest.mark.parametrize("value", ["4pixel", "", "nowhere.png", "/dev/zero"])
def test_a_pattern_s_name_and_what_is_no_file_have_none(value):
    assert of(value, "trigger_pattern") == {}


def test_a_list_of_pixels_is_no_file():
    assert contents({"client": {"attack": {"trigger_pattern": [[0, 0]]}}}) == {}
