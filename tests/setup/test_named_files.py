"""What the files of an attack hold, as a part of what a run is."""

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


@pytest.mark.parametrize("value", ["4pixel", "", "nowhere.png", "/dev/zero"])
def test_a_pattern_s_name_and_what_is_no_file_have_none(value):
    assert of(value, "trigger_pattern") == {}


def test_a_list_of_pixels_is_no_file():
    assert contents({"client": {"attack": {"trigger_pattern": [[0, 0]]}}}) == {}
