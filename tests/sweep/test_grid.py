"""Grid files: what they mean, and that nothing but a ConfigError comes of what is none."""

import json
from copy import deepcopy
from datetime import date
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from entity.config.schema import ConfigError
from entity.sweep import grid_file
from entity.sweep.grid import MOST, label_of
from entity.sweep.grid_file import parse, read

HERE = Path("grid.yaml")
EXAMPLE = {
    "base": "mnist5k/drop",
    "axes": {
        "config": ["mnist5k/drop", "mnist5k/median"],
        "attack": {"none": {"client.attack": None}, "badnets": {}, "dba": {"poison": "dba"}},
        "rounds": [10, 20],
        "lr": [0.1, 0.05],
    },
    "zip": [["rounds", "lr"]],
    "seeds": [1, 2],
    "exclude": [{"attack": ["none", "dba"], "config": "mnist5k/median"}],
}


def refusal_of(data):
    with pytest.raises(ConfigError) as refusal:
        parse(data, HERE)
    text = str(refusal.value)
    assert "\n" not in text
    assert text.endswith((".", "?"))
    return text


def changed(**keys):
    return {**deepcopy(EXAMPLE), **keys}


def test_the_example_has_the_cells_that_one_counts_by_hand():
    cells = list(parse(EXAMPLE, HERE).assignments())
    # 2 seeds x (3 attacks of drop + badnets of median) x 2 pairs of rounds and lr
    assert len(cells) == 16
    assert cells[0] == {
        "seed": "1",
        "config": "mnist5k/drop",
        "attack": "none",
        "rounds": "10",
        "lr": "0.1",
    }
    assert [cell["seed"] for cell in cells] == ["1"] * 8 + ["2"] * 8  # whole seeds come first
    assert {(cell["rounds"], cell["lr"]) for cell in cells} == {("10", "0.1"), ("20", "0.05")}
    assert {cell["attack"] for cell in cells if "median" in cell["config"]} == {"badnets"}


def test_values_are_what_the_command_line_would_be_given():
    axes = {axis.name: axis for axis in parse(EXAMPLE, HERE).axes}
    assert list(axes) == ["seed", "config", "attack", "rounds", "lr"]
    assert [value.overrides for value in axes["attack"].values] == [
        {"client.attack": "null"},
        {},
        {"poison": "dba"},
    ]
    assert [value.overrides for value in axes["rounds"].values] == [
        {"rounds": "10"},
        {"rounds": "20"},
    ]
    odd = parse({"axes": {"x": [True, None, "7", [[0, 0], [1, 1]], 1e-3]}}, HERE).axes[0]
    assert [value.overrides["x"] for value in odd.values] == [
        "true",
        "null",
        "7",
        "[[0, 0], [1, 1]]",
        "0.001",
    ]


def test_a_grid_of_nothing_but_a_base_is_one_cell():
    assert list(parse({"base": "mnist5k/drop"}, HERE).assignments()) == [{}]


def test_zipped_axes_stand_where_the_first_of_them_does():
    data = {"axes": {"a": [1, 2], "b": [3, 4], "c": [5, 6]}, "zip": [["c", "a"]]}
    cells = [tuple(cell.values()) for cell in parse(data, HERE).assignments()]
    assert cells == [("1", "3", "5"), ("1", "4", "5"), ("2", "3", "6"), ("2", "4", "6")]


def test_seeds_may_move_together_with_an_axis():
    data = {"axes": {"a": [1, 2]}, "seeds": [7, 8], "zip": [["seed", "a"]]}
    assert [tuple(c.values()) for c in parse(data, HERE).assignments()] == [("7", "1"), ("8", "2")]


def test_an_exclusion_may_name_a_list_that_is_itself_a_value():
    data = {"axes": {"trigger_pattern": [[[0, 0]], "4pixel"]}}
    data["exclude"] = [{"trigger_pattern": [[0, 0]]}]
    assert list(parse(data, HERE).assignments()) == [{"trigger_pattern": "4pixel"}]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"axess": {}}, "axess is unknown. Did you mean axes?"),
        ({"base": 3}, "base = 3: allowed is a file or a table of fields."),
        ({"axes": ["lr"]}, 'axes = ["lr"]: allowed is a table of fields.'),
        ({"axes": None}, "axes = null: allowed is a table of fields."),
        ({"axes": {"lr": date(2020, 1, 1)}}, 'axes.lr = "2020-01-01": allowed is a value, a list'),
        ({"sedes": 3}, "sedes is unknown. Did you mean seeds?"),
        ({"client": {"lr": 1}}, "client is unknown."),
        ({"rounds": 3}, "rounds and axes.rounds say the same; leave one of them out."),
        ({"DPR": 0.5, "axes": {"attack.DPR": [1]}}, "axes.attack.DPR and axes.DPR: both set att"),
        (
            {"axes": {"defense": ["drop"], "server.defense.type": ["krum"]}},
            "axes.defense and axes.server.defense.type: both set server.defense.type",
        ),
        ({"axes": {"lr": []}}, "axes.lr: is empty"),
        ({"axes": {"lr": [0.1, 0.1]}}, 'axes.lr: has "0.1" more than once.'),
        ({"axes": {3: [1]}}, "axes: the name 3 is no text; put it in quotes."),
        ({"axes": {"lr": [{"a": 1}]}}, 'axes.lr = {"a": 1}: is a table; name its fields one by'),
        ({"axes": {"a": {"x": 3}}}, "axes.a.x = 3: allowed is a table of fields"),
        ({"axes": {"a": {True: {}}}}, "axes.a: the name true is no text; put it in quotes."),
        ({"axes": {"a": {"x": {"b": {"c": 1}}}}}, 'axes.a.x.b = {"c": 1}: is a table'),
        ({"axes": {"a": {"x": {"": 1}}}}, 'axes.a.x: the field "" is no text'),
        ({"seeds": 3}, "seeds = 3: allowed is a list of whole numbers at least 0"),
        ({"seeds": [1, -1]}, "seeds = [1, -1]: allowed is a list of whole numbers at least 0"),
        ({"seeds": [1, 1]}, 'seeds: has "1" more than once.'),
        ({"seeds": []}, "seeds: is empty"),
        ({"axes": {"seed": [1]}}, "axes.seed and seeds say the same; leave one of them out."),
        ({"zip": [["rounds", "lrr"]]}, "zip: axis lrr is unknown. Did you mean lr?"),
        ({"zip": [["rounds"]]}, 'zip: ["rounds"] has nothing to move together.'),
        ({"zip": [["rounds", "attack"]]}, "zip: rounds has 2, attack has 3 values; axes that"),
        ({"zip": [["rounds", "lr"], ["lr", "config"]]}, "zip: lr comes twice."),
        ({"zip": ["rounds"]}, 'zip = "rounds": allowed is a list of texts.'),
        ({"exclude": [{"atack": "dba"}]}, "exclude: axis atack is unknown. Did you mean attack?"),
        ({"exclude": [{"attack": "dbaa"}]}, "exclude.attack = dbaa is unknown. Did you mean dba?"),
        ({"exclude": [{"rounds": [10, 11]}]}, "exclude.rounds = 11 is unknown."),
        ({"exclude": [{}]}, "exclude: {} would mean every cell."),
        (
            {"exclude": [{"rounds": []}]},
            "exclude.rounds = []: means no cell; name a value, or leave",
        ),
        ({"exclude": [{"seed": [1, 2]}]}, "exclude: leaves no cell of the grid."),
        (
            {"axes": {"attack": ["ipm"], "client.attack.type": ["badnets"]}},
            "axes.attack and axes.client.attack.type: both set client.attack.type",
        ),
        ({"axes": {"client.lr": [1], "lr": [2]}}, "axes.client.lr and axes.lr: both set client.lr"),
        (
            {"axes": {"a": {"x": {"DPR": 1}}, "attack.DPR": [0.5]}},
            "axes.a and axes.attack.DPR: both set attack.DPR; a cell has one value for each field.",
        ),
        (
            {"axes": {"a": {"x": {"attack": "badnets", "client.attack.type": "neurotoxin"}}}},
            "axes.a.x: attack and client.attack.type both set client.attack.type; leave one of th",
        ),
        (
            {"axes": {"a": {"x": {"DPR": 0.1, "client.attack.DPR": 0.3}}}},
            "axes.a.x: DPR and client.attack.DPR both set client.attack.DPR",
        ),
        (
            {"axes": {"a": {"x": {}, "y": {"rounds": 3, "federation.rounds": 4}}}},
            "axes.a.y: rounds and federation.rounds both set federation.rounds",
        ),
        (
            {"axes": {name: list(range(100)) for name in ("a", "b", "c")}},
            f"axes: make {2 * 100**3} cells; allowed are {MOST}.",
        ),
        ({"axes": {"a": [10**5000]}}, "a number too long to print"),
    ],
)
def test_what_is_no_grid_is_told_in_a_sentence(keys, words):
    data = changed(**keys)
    if "axes" in keys:  # the example's other keys name axes of its own
        data = {"seeds": [1, 2], **keys}
    assert words in refusal_of(data)


def test_a_value_stands_for_a_list_of_one_in_axes_and_beside_them():
    whole = parse({"axes": {"lr": [0.1, 0.2], "rounds": [25], "seed": [3]}}, HERE)
    assert parse({"axes": {"lr": [0.1, 0.2], "rounds": 25, "seed": 3}}, HERE) == whole
    assert parse({"axes": {"lr": [0.1, 0.2]}, "rounds": 25, "seed": 3}, HERE) == whole
    assert [axis.name for axis in whole.varied] == ["lr"]


def test_a_program_s_axes_are_those_of_a_file():
    program = grid_file.of_axes(
        ["mnist5k/drop"],
        {"defense": ("drop", "flame"), "seed": range(1, 3), "lr": np.array([0.5, 1.0])},
        "sweep",
    )
    file = parse(
        {"base": "mnist5k/drop", "axes": {"seed": [1, 2], "defense": ["drop", "flame"],
         "lr": [0.5, 1.0]}}, HERE,
    )  # fmt: skip
    assert list(program.assignments()) == list(file.assignments())
    assert program.axes == file.axes
    assert next(iter(program.assignments()))["seed"] == "1"
    assert program.said == "sweep"
    several = grid_file.of_axes(["mnist5k/drop", "mnist5k/flame"], {"DPR": 0.5}, "sweep")
    assert [axis.name for axis in several.axes] == ["config", "DPR"]
    for axes, said in (
        ({"lr": []}, "sweep: axes.lr: is empty"),
        ({"lr": [object()]}, "sweep: axes.lr = "),
        ({"lr": [1, 1]}, 'sweep: axes.lr: has "1" more than once.'),
    ):
        with pytest.raises(ConfigError, match=said):
            grid_file.of_axes(["mnist5k/drop"], axes, "sweep")


def test_axes_beside_a_file_are_more_of_its_own():
    file = parse(EXAMPLE, HERE)
    more = grid_file.with_axes(file, {"DPR": [0.5, 1]})
    assert len(list(more.assignments())) == 2 * len(list(file.assignments()))
    with pytest.raises(ConfigError, match=r"^grid grid.yaml: axes: rounds comes twice\."):
        grid_file.with_axes(file, {"rounds": 3})
    with pytest.raises(ConfigError, match=r"^grid grid.yaml: axes.lr and axes.client.lr: both set"):
        grid_file.with_axes(file, {"client.lr": 3})


def test_axes_beside_a_file_keep_the_rules_of_those_in_it():
    base = {"extends": "mnist5k/drop", "federation": {"rounds": 3}}
    file = parse({"base": base, "axes": {"DPR": [0.5, 1]}}, HERE)
    flame = {"flame": {"config": "mnist5k/flame"}}
    said = r"^grid grid.yaml: base: has fields of its own, and axis method chooses another config"
    with pytest.raises(ConfigError, match=said):
        grid_file.with_axes(file, {"method": flame})
    grid_file.with_axes(file, {"method": {"its own": {}, **flame}})
    cells = list(grid_file.with_axes(file, {"lr": [0.1], "seed": [1, 2]}).assignments())
    assert list(cells[0]) == ["seed", "DPR", "lr"]
    assert [cell["seed"] for cell in cells] == ["1", "1", "2", "2"]  # whole seeds come first


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("axes: {a: [1]}\naxes: {b: [2]}", 'is not YAML (the key "axes" comes twice at line 2'),
        ("axes: {a: [1], a: [2]}", 'the key "a" comes twice at line 1, column 16'),
        ("axes: {lr: [2020-01-01]}", 'axes.lr = "2020-01-01": allowed are numbers, texts'),
        ("axes: {a: &a [*a]}", "the grid: is nested too deeply"),
        ("- 1", "holds [1], not a table of fields."),
        ("seed: [1]", "seed is unknown. Did you mean seeds?"),
    ],
)
def test_the_file_is_named_in_front(tmp_path, text, words):
    path = tmp_path / "g.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        read(path)
    assert str(refusal.value).startswith(f"grid {path}: ")
    assert words in str(refusal.value)


def test_a_missing_file_is_told_with_the_nearest_one(tmp_path):
    (tmp_path / "main.yaml").write_text("axes: {}")
    with pytest.raises(ConfigError) as refusal:
        read(tmp_path / "mian.yaml")
    assert str(refusal.value) == (
        f"grid {tmp_path / 'mian.yaml'}: No such file or directory. Did you mean main.yaml?"
    )


def test_yaml_anchors_merge_without_being_called_twice(tmp_path):
    path = tmp_path / "g.yaml"
    path.write_text(
        "base: mnist5k/drop\naxes:\n  a:\n    x: &x {lr: 1, K: 2}\n    y: {<<: *x, K: 3}"
    )
    values = read(path).axes[0].values
    assert [dict(value.overrides) for value in values] == [
        {"lr": "1", "K": "2"},
        {"lr": "1", "K": "3"},
    ]


# --- anything at all


NAMES = st.sampled_from(["a", "b", "c", "d"])
AXES = st.dictionaries(
    NAMES, st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True), max_size=4
)


@given(AXES, st.data())
@settings(max_examples=100, deadline=None)
def test_cells_are_the_product_without_what_is_excluded(axes, data):
    pattern = st.dictionaries(st.sampled_from(sorted(axes)), st.integers(0, 4), min_size=1)
    patterns = data.draw(st.lists(pattern, max_size=3)) if axes else []
    expected = [
        dict(zip(axes, map(str, values), strict=True))
        for values in product(*axes.values())
        if not any(
            all(dict(zip(axes, values, strict=True))[name] == value for name, value in one.items())
            for one in patterns
        )
    ]
    tables = {"axes": axes, "exclude": patterns}
    known = all(value in axes[name] for one in patterns for name, value in one.items())
    if known and expected:
        assert list(parse(tables, HERE).assignments()) == expected
    else:
        refusal_of(tables)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 60)
    | st.floats()
    | st.sampled_from([10**400, 2**64, "lr", "seed", "config", "dba", "mnist5k/drop", ""])
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["lr", "seed", "config"]) | st.text(max_size=6), inner)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(["base", "axes", "zip", "seeds", "exclude", "x"])
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "base": st.just(EXAMPLE["base"]),
        "axes": st.just(EXAMPLE["axes"]) | st.just({"lr": [0.1]}),
        "seeds": st.lists(st.integers(0, 9), min_size=1, unique=True),
    },
)
"""Parts of a sensible grid."""


def test_any_json_is_a_grid_or_a_config_error():
    accepted = []

    @given(st.dictionaries(KEYS, JSON) | PARTS, st.booleans())
    @example({"axes": {"\n": None}}, False)
    @settings(max_examples=300, deadline=None)
    def accepts(data, whole):
        if whole:
            data = {**EXAMPLE, **data}
        try:
            found = parse(data, HERE)
        except ConfigError as error:
            assert str(error).isprintable()  # noqa: PT017
            accepted.append(False)
            return
        accepted.append(True)
        for cell in found.assignments():
            assert set(cell) == {axis.name for axis in found.axes}

    accepts()
    assert sum(accepted) > 0.15 * len(accepted)


TEXTS = st.lists(
    st.sampled_from(
        [
            *'{}[]:,"-&*!|># \n',
            "a",
            "axes: ",
            "zip: ",
            "seeds: ",
            "<<: ",
            "1e9",
            "0x",
            "!!set ",
            "~",
        ]
    )
).map("".join)


def test_any_bytes_are_a_grid_or_a_config_error(scratch):
    accepted = []

    @given(
        st.binary(max_size=40)
        | TEXTS.map(str.encode)
        | PARTS.map(lambda part: json.dumps({"axes": EXAMPLE["axes"], **part}).encode()),
        st.sampled_from(["g.json", "g.yaml"]),
    )
    @settings(max_examples=250, deadline=None)
    def accepts(content, name):
        (scratch / name).write_bytes(content)
        try:
            read(scratch / name)
        except ConfigError as error:
            assert str(error).startswith(f"grid {scratch / name}: ")  # noqa: PT017
            accepted.append(False)
        else:
            accepted.append(True)

    accepts()
    assert sum(accepted) > 0.15 * len(accepted)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("grids")


@given(JSON)
def test_every_value_has_a_label(value):
    assert isinstance(label_of(value), str)


def test_the_docstring_names_every_key_of_the_file():
    assert all(f"`{name}`" in grid_file.__doc__ for name in EXAMPLE)


def test_a_base_of_fields_that_every_cell_replaces_is_refused_and_not_lost():
    table = {"extends": "mnist5k/undefended", "federation": {"rounds": 2}}
    axes = {"config": ["mnist5k/undefended", "mnist5k/median"]}
    with pytest.raises(ConfigError, match="base: has fields of its own, and axis config chooses"):
        parse({"base": table, "axes": axes}, HERE)
    some = {"way": {"base": {}, "median": {"config": "mnist5k/median"}}}
    assert len(list(parse({"base": table, "axes": some}, HERE).assignments())) == 2
    assert len(list(parse({"base": "mnist5k/drop", "axes": axes}, HERE).assignments())) == 2
