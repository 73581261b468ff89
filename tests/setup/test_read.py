"""Configuration files: what is read, and what is refused."""

import json
from pathlib import Path

import pytest

from entity.config.schema import ConfigError
from entity.setup import resolve
from entity.setup.read import read


def test_json_and_yaml_give_the_same_experiment(tmp_path, tables):
    (tmp_path / "a.json").write_text(json.dumps(tables()))
    lines = [
        "dataset: mnist5k",
        "model: cnn",
        "client: {num_epochs: 1, lr: 5e-2, batch_size: 32, ADR: 1.e-1, transform: false, attack: ",
        "  {type: badnets, DPR: 1, victim_class: 0, target_class: 7}}",
        "server: {held_out: 5E1, defense: null}",
        "federation: {size: 4, number_of_malicious_clients: 1, round_size: 3, rounds: 2}",
        "settings: {seed: 1, cuda: -1, engine: inline, num_threads: 1}",
    ]
    (tmp_path / "a.yml").write_text("\n".join(lines))
    one, other = (resolve.experiment(read(tmp_path / n)) for n in ("a.json", "a.yml"))
    assert one == other


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b"", "is not JSON (Expecting value at line 1, column 1)"),
        ("a.json", b'{"a": 1,\n "b" 2}', "is not JSON (Expecting ':' delimiter at line 2, column"),
        ("a.json", b"{'a': 1}", "is not JSON ("),
        ("a.json", b"null", "holds null, not a table of fields"),
        ("a.json", b"[1, 2]", "holds [1, 2], not a table of fields"),
        ("a.json", b'{"a": ' + b"1" * 5000 + b"}", "is not JSON ("),
        ("a.json", b"[" * 100_000, "is nested too deeply"),
        ("a.json", b"\xff\xfe{\x00}\x00", "is not UTF-8 text"),
        ("a.yaml", b"a: [1,\nb: 2", "is not YAML ("),
        ("a.yaml", b"a: b: c", "is not YAML (mapping values are not allowed here at line 1, colum"),
        ("a.yaml", b"", "holds null, not a table of fields"),
        (
            "a.yaml",
            b"a: 1\nb: 2\na: 3",
            'is not YAML (the key "a" comes twice at line 3, column 1)',
        ),
        ("a.yaml", b"a: !!map b", "is not YAML ("),
        ("a.yaml", b"when: 2020-99-99", "is not YAML (month must be in 1..12)"),
        ("a.yaml", b"a: !!bool maybe", "is not YAML ("),
        ("a.yaml", b"a: !!timestamp x", "is not YAML ("),
        ("a.yaml", b'a: !!int ""', "is not YAML ("),
        ("a.yaml", b"a: !!python/name:os.system x", "is not YAML ("),
        ("a.yaml", b"a: \x80", "is not UTF-8 text"),
        ("a.yaml", b"[" * 1500, "is nested too deeply"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refusal:
        read(path)
    assert str(refusal.value).startswith(f"--config {path}: {reason}")
    assert "\n" not in str(refusal.value)


def test_missing_files_and_folders_are_refused_with_the_nearest_file(tmp_path):
    (tmp_path / "droplet.json").write_text("{}")
    for name, end in [
        ("dropelt.json", "No such file or directory. Did you mean droplet.json?"),
        ("qqq.json", "No such file or directory. Files there: droplet.json."),
        ("no/where.json", "No such file or directory."),
        (".", "Is a directory."),
        ("droplet.json/x.json", "Not a directory."),
        (f"{'x' * 300}/a.json", "File name too long."),
        (f"{'x' * 300}.json", "File name too long. Files there: droplet.json."),
    ]:
        with pytest.raises(ConfigError) as refusal:
            read(tmp_path / name)
        assert str(refusal.value) == f"--config {tmp_path / name}: {end}"


def test_the_nearest_file_is_one_of_the_same_kind(tmp_path):
    for name in ("drop.json", "main.yaml"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=r"\. Files there: main\.yaml\.$"):
        read(tmp_path / "drop.yaml")


def test_a_file_name_with_a_nul_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r'^grid "a\\u0000\.yaml": embedded null byte\.$'):
        read(Path("a\0.yaml"), "grid")


def test_merged_keys_may_be_overridden(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}")
    assert read(path)["b"] == {"x": 1, "y": 3}
