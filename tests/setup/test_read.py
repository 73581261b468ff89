"""Configuration files: what is read, and what is refused."""

import json
import os
from pathlib import Path

import pytest

import entity
from entity.config.schema import ConfigError, flatten
from entity.config.shipped import shipped
from entity.defenses import DEFENSES
from entity.setup import resolve
from entity.setup.read import merged, read


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


def _bomb(levels=9, merge=False):
    """Return nine levels of ten: 1e9 values in a few lines."""
    lines = ["a0: &a0 {x0: 1}"]
    for level in range(1, levels + 1):
        below = f"*a{level - 1}"
        if merge:
            value = "{<<: [" + ", ".join([below] * 10) + "]}"
        else:
            value = "[" + ", ".join([below] * 10) + "]"
        lines.append(f"a{level}: &a{level} {value}")
    return "\n".join(lines).encode()


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
        ("a.json", b'{"a": ' + b"9" * 5000 + b"}", "is not JSON (a whole number has 5,000 digits)"),
        ("a.yaml", b"a: 010", "is not YAML (010 would be another number, to the base 8 or 60"),
        ("a.yaml", b"a: [1, -1:30.5]", "is not YAML (-1:30.5 would be another number, to the"),
        ("a.yaml", b"a: " + b"9" * 5000, "is not YAML (a number has 5,000 characters at line 1"),
        ("a.yaml", b"a: " + b"1:" * 90_000 + b"1", "is not YAML (a number has 180,001 charact"),
        ("a.yaml", _bomb(), "is not YAML (aliases make more than 100,000 values of it at line 1"),
        ("a.yaml", _bomb(merge=True), "is not YAML (aliases make more than 100,000 values of i"),
        ("a.json", b" " * 2**20 + b"{}", "More than 1,048,576 bytes"),
    ],
)
def test_unreadable_files_are_refused(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refusal:
        read(path)
    assert str(refusal.value).startswith(f"--config {path}: {reason}")
    assert "\n" not in str(refusal.value)


@pytest.mark.timeout(20)
def test_a_pipe_where_a_file_should_be_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"^--config .*: Not a regular file\."):
        read(tmp_path / "pipe.yaml")


def test_what_a_shell_pipes_in_is_read(tables):
    end, start = os.pipe()
    os.write(start, json.dumps(tables()).encode())
    os.close(start)
    assert read(Path(f"/dev/fd/{end}")) == tables()
    os.close(end)


def test_aliases_that_amount_to_little_are_as_good_as_copies(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(_bomb(levels=3))
    assert len(read(path)["a3"]) == 10


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


def test_what_is_merged_may_itself_merge_in_any_order(tmp_path):
    path = tmp_path / "a.yaml"
    text = "b: &b {k: 0, m: 2}\nx:\n  y: &a {<<: *b, k: 1}\nz: {<<: *a}"
    path.write_text(text)
    merged = {"k": 1, "m": 2}
    assert read(path) == {"b": {"k": 0, "m": 2}, "x": {"y": merged}, "z": merged}
    for twice in ("{<<: *b, k: 1, k: 1}", "{<<: {q: 1, q: 1}}", "{<<: *b, n: [{o: {p: 1, p: 2}}]}"):
        path.write_text(text.replace("{<<: *b, k: 1}", twice))
        assert " comes twice at line 3, column " in refusal_of(path)


def test_the_first_of_several_merged_tables_counts_and_none_is_changed(tmp_path):
    path = tmp_path / "a.yaml"
    lines = (
        "one: &one {rate: 1, k: 1}",
        "two: &two {rate: 2, k: 2, more: 2}",
        "both: {<<: [*one, *two]}",
        "own: &own {<<: [*two, *one], k: 3}",
        "last: {rate: 4, <<: *own}",
    )
    path.write_text("\n".join(lines))
    assert read(path) == {
        "one": {"rate": 1, "k": 1},
        "two": {"rate": 2, "k": 2, "more": 2},
        "both": {"rate": 1, "k": 1, "more": 2},
        "own": {"rate": 2, "k": 3, "more": 2},
        "last": {"rate": 4, "k": 3, "more": 2},
    }
    for text, place in (("a: {<<: 3}", 9), ("a: {<<: [{b: 1}, c]}", 18)):
        path.write_text(text)
        said = f"<< takes a table, or a list of tables at line 1, column {place}"
        assert said in refusal_of(path)


# --- files that extend others


def written(folder, **files):
    """Write JSON files and return the path of the first."""
    paths = [folder / f"{name}.json" for name in files]
    for path, tables in zip(paths, files.values(), strict=True):
        path.write_text(json.dumps(tables))
    return paths[0]


def refusal_of(path):
    with pytest.raises(ConfigError) as refusal:
        read(path)
    return str(refusal.value)


def test_tables_are_merged_key_by_key_and_anything_else_replaces():
    over = {"x": {"kept": None, "list": [3], "new": {"y": 1}}, "table": 5}
    base = {"x": {"kept": 1, "list": [1, 2], "old": {"z": 0}}, "table": {"u": 1}, "word": "b"}
    assert merged(base, over) == {
        "x": {"kept": None, "list": [3], "old": {"z": 0}, "new": {"y": 1}},
        "table": 5,
        "word": "b",
    }


def test_a_chain_goes_from_folder_to_folder_and_from_json_to_yaml(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "base.yaml").write_text("client: {lr: 1, num_epochs: 1, batch_size: 1}")
    written(tmp_path, middle={"extends": "base.yaml", "client": {"lr": 2, "num_epochs": 2}})
    path = written(tmp_path / "below", top={"extends": "../middle.json", "client": {"lr": 3}})
    assert read(path) == {"client": {"lr": 3, "num_epochs": 2, "batch_size": 1}}


def test_a_file_may_extend_a_shipped_configuration_but_its_neighbour_comes_first(tmp_path):
    path = written(tmp_path, mine={"extends": "mnist5k/drop", "client": {"lr": 0.5}})
    shipped_one = read(shipped("mnist5k/drop"))
    assert read(path) == {**shipped_one, "client": {**shipped_one["client"], "lr": 0.5}}
    (tmp_path / "mnist5k").mkdir()
    (tmp_path / "mnist5k" / "drop").write_text('{"model": "vit"}')
    assert read(path) == {"model": "vit", "client": {"lr": 0.5}}


@pytest.mark.parametrize(
    ("start", "change"),
    [
        ("mnist5k/drop", {"server": {"defense": {"type": "finetuning"}}}),
        ("mnist5k/drop", {"server": {"defense": {"type": "MAZE"}}}),
        ("mnist5k/flip", {"server": {"defense": {"type": "undefended"}}}),
        ("mnist5k/drop", {"client": {"attack": {"type": "neurotoxin"}}}),
        ("mnist5k/drop", {"client": {"attack": {"poison": "blended"}}}),
    ],
)
def test_another_type_means_what_it_means_on_the_command_line(tmp_path, start, change):
    path = written(tmp_path, mine={"extends": start, **change})
    overrides = [(name, str(value)) for name, value in flatten(change)]
    assert resolve.experiment(read(path)) == resolve.experiment(read(shipped(start)), overrides)


def test_settings_of_another_defense_are_forgotten_and_common_ones_stay(tmp_path):
    path = written(
        tmp_path,
        a={"extends": "mnist5k/drop", "server": {"defense": {"type": "finetuning"}}},
    )
    assert read(path)["server"]["defense"]["defense_args"] == {"batch_size": 64, "num_seed": 300}


def test_settings_of_another_attack_and_poison_are_forgotten(tmp_path):
    attack = {"type": "neurotoxin", "neurotoxin_top_k": 0.1}
    poison = {"poison": "blended", "blend_opacity": 0.3}
    base = read(shipped("mnist5k/undefended"))
    base["client"]["attack"].update(attack | poison)
    path = written(
        tmp_path,
        a={"extends": "b.json", "client": {"attack": {"type": "pgd", "poison": "pixel"}}},
        b=base,
    )
    common = base["client"]["attack"].keys() - {"neurotoxin_top_k", "blend_opacity"}
    assert read(path)["client"]["attack"].keys() == common
    again = written(tmp_path, c={"extends": "b.json", "client": {"lr": 0.2}})
    assert read(again)["client"]["attack"] == base["client"]["attack"]


@pytest.mark.parametrize("nothing", [{"defense": None}, {"defense": {"type": "undefended"}}])
def test_a_defense_can_be_taken_away(tmp_path, nothing):
    path = written(tmp_path, a={"extends": "mnist5k/drop", "server": nothing})
    undefended = resolve.experiment(read(shipped("mnist5k/undefended")))
    assert resolve.experiment(read(path)) == undefended


def test_an_attack_can_be_taken_away(tmp_path):
    path = written(tmp_path, a={"extends": "mnist5k/drop", "client": {"attack": None}})
    assert resolve.experiment(read(path)).client.attack is None


def test_defense_args_of_null_are_the_defaults(tmp_path):
    path = written(
        tmp_path, a={"extends": "mnist5k/drop", "server": {"defense": {"defense_args": None}}}
    )
    args = resolve.experiment(read(path)).server.defense.defense_args
    assert args == DEFENSES["drop"].hyperparameters()


@pytest.mark.parametrize("name", [None, 5, True, ["b.json"], {"a": 1}])
def test_extends_must_be_a_name(tmp_path, name):
    path = written(tmp_path, a={"extends": name})
    assert refusal_of(path) == (
        f"--config {path}: extends = {json.dumps(name)}: allowed is a file, or the name of a "
        "shipped configuration."
    )


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("bb.json", "No such file or directory. Did you mean b.json?"),
        ("cifar10/flam", "No such file or directory. Did you mean cifar10/flame?"),
        ("qqq/qqq.json", "No such file or directory."),
        (".", "Is a directory."),
        ("x" * 300, "File name too long."),
        ("broken.json", "is not JSON (Expecting value at line 1, column 1)."),
        ("list.json", "holds [], not a table of fields."),
    ],
)
def test_a_file_that_cannot_be_extended_is_named_with_the_file_that_says_so(tmp_path, name, end):
    (tmp_path / "broken.json").write_text("")
    path = written(tmp_path, a={"extends": name}, b={}, list=[])
    said = refusal_of(path)
    assert said.startswith(f"--config {path}: extends {tmp_path / name}: {end}")
    assert "\n" not in said


def test_a_fault_deep_in_a_chain_is_told_with_the_whole_chain(tmp_path):
    path = written(tmp_path, a={"extends": "b.json"}, b={"extends": "c.yaml"})
    assert refusal_of(path) == (
        f"--config {path}: extends {tmp_path / 'b.json'}: extends {tmp_path / 'c.yaml'}: "
        "No such file or directory."
    )


@pytest.mark.parametrize("files", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_circles_are_refused(tmp_path, files):
    following = dict(zip(files, [*files[1:], "a"], strict=True))
    path = written(tmp_path, **{name: {"extends": f"./{following[name]}.json"} for name in files})
    assert refusal_of(path).endswith(f": extends {path}: goes in a circle.")


def test_a_circle_by_a_symbolic_link_is_one(tmp_path):
    path = written(tmp_path, a={"extends": "b.json"})
    (tmp_path / "b.json").symlink_to(path)
    assert refusal_of(path).endswith("b.json: goes in a circle.")


def test_at_most_ten_files_may_extend_one_another(tmp_path):
    files = {f"f{i}": {"extends": f"f{i + 1}.json", "name": str(i)} for i in range(10)}
    path = written(tmp_path, **files, f10={})
    assert refusal_of(path).endswith("f10.json: is one too many; allowed are 10 files.")
    assert read(tmp_path / "f1.json") == {"name": "1"}


def test_deep_and_circular_tables_are_refused_before_they_are_merged(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.json\nx: &x {y: *x}")
    written(tmp_path, b={"x": {}})
    assert refusal_of(tmp_path / "a.yaml").endswith("nested too deeply; allowed are 20 levels.")
    deep = {}
    for _ in range(400):
        deep = {"x": deep}
    path = written(tmp_path, c={"extends": "b.json", "x": {}}, b=deep)
    assert refusal_of(path).endswith("nested too deeply; allowed are 20 levels.")


def test_a_run_s_recorded_configuration_is_whole(tmp_path):
    path = written(tmp_path, a={"extends": "mnist5k/drop"})
    assert "extends" not in resolve.to_json(resolve.experiment(read(path)))


def saved(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path):
    with pytest.raises(ConfigError) as found:
        read(path)
    assert "\n" not in str(found.value)
    return str(found.value)


def test_a_key_that_comes_twice_in_json_is_refused_as_in_yaml(tmp_path):
    for text in ('{"model": "cnn", "model": "lenet"}', '{"client": {"model": 1, "model": 1}}'):
        said = refusal(saved(tmp_path, "twice.json", text))
        assert said.endswith('twice.json: is not JSON (the key "model" comes twice).')


def test_a_byte_order_mark_is_no_part_of_json_nor_of_yaml(tmp_path):
    for name, text in (("a.json", '{"model": "cnn"}'), ("a.yaml", "model: cnn")):
        path = saved(tmp_path, name, b"\xef\xbb\xbf" + text.encode())
        assert read(path) == {"model": "cnn"}


def test_yaml_is_known_by_its_name_in_any_case_and_toml_is_refused_by_its(tmp_path):
    assert read(saved(tmp_path, "a.YAML", "model: cnn")) == {"model": "cnn"}
    assert read(saved(tmp_path, "a.Yml", "model: cnn")) == {"model": "cnn"}
    said = refusal(saved(tmp_path, "a.toml", 'model = "cnn"'))
    assert said.endswith("a.toml: is TOML by its name; allowed are JSON and YAML.")


@pytest.mark.parametrize("key", ["extend", "Extends", "extents"])
def test_a_misspelt_extends_is_told_of_extends(tmp_path, key):
    said = refusal(saved(tmp_path, "a.json", json.dumps({key: "mnist5k/drop"})))
    assert said.endswith(f"a.json: {key} is unknown. Did you mean extends?")
    inner = saved(tmp_path, "b.json", '{"extends": "a.json"}')
    assert f"a.json: {key} is unknown. Did you mean extends?" in refusal(inner)


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_extends_is_told_what_is_allowed(tmp_path, name):
    said = refusal(saved(tmp_path, "a.json", json.dumps({"extends": name})))
    assert said.endswith(
        f'a.json: extends = "{name}": allowed is a file, or the name of a shipped configuration.'
    )


@pytest.mark.parametrize(
    ("parent", "end"),
    [
        ({"client": {"lrr": 0.1}}, "client.lrr is unknown. Did you mean lr?"),
        ({"clinet": {"lr": 0.1}}, "clinet is unknown. Did you mean client?"),
        ({"modle": "cnn"}, "modle is unknown. Did you mean model?"),
        (
            {"server": {"defense": {"defense_args": {"rewardd": 1}}}},
            "server.defense.defense_args.rewardd is unknown. Did you mean reward?",
        ),
        ({"client": {"attack": {"DPRR": 1}}}, "client.attack.DPRR is unknown. Did you mean DPR?"),
        ({"client": {"lr": -1}}, "client.lr = -1: allowed is a number above 0."),
        ({"settings": {"seed": "x"}}, 'settings.seed = "x": allowed is a whole number at least 0.'),
    ],
)
def test_a_typo_in_a_file_that_another_extends_is_told_with_its_own_name(tmp_path, parent, end):
    saved(tmp_path, "parent.json", json.dumps(parent))
    top = saved(tmp_path, "top.json", '{"extends": "parent.json"}')
    said = refusal(top)
    assert said.startswith(f"--config {top}: extends {tmp_path / 'parent.json'}: ")
    assert said.endswith(end)


def test_parents_that_leave_much_open_are_read(tmp_path):
    parents = (
        {"client": {"attack": None}, "server": {"defense": None}},
        {"client": {"attack": {"type": "None", "neurotoxin_top_k": None}}},
        {"server": {"defense": {"type": "Maze", "defense_args": {"K": 3, "num_seed": 5}}}},
        {"server": {"defense": {"type": "krum", "defense_args": None}}},
        {"client": {"attack": {"gamma": "replace"}}},
        {},
    )
    for parent in parents:
        saved(tmp_path, "parent.json", json.dumps(parent))
        top = saved(tmp_path, "top.json", '{"extends": "parent.json", "model": "cnn"}')
        assert read(top) == {**parent, "model": "cnn"}


def test_an_experiment_runs_by_the_name_of_its_configuration(tmp_path, tables):
    path = saved(tmp_path, "tiny.json", json.dumps(tables({"federation.rounds": 1})))
    assert entity.run(path).summary["state"] == "finished"
    with pytest.raises(ConfigError, match="neither a file nor a shipped configuration"):
        entity.run("mnist5k/dorp")
