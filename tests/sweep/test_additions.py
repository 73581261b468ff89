"""Methods beside those of a study: what an added value sets, and what the study says of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from entity.setup.plugins import use
from entity.sweep import study
from entity.sweep.added_value import CannotAdd
from entity.sweep.additions import with_added
from entity.sweep.cells import expand
from entity.sweep.grid import with_plugins
from entity.sweep.plan import SweepOptions, choose_cells

pytestmark = pytest.mark.usefixtures("forget_plugins")

OWN = Path(__file__).parents[2] / "examples/own"


def added(name, *words, plugins=("norm_gate.py", "loud.py", "frame.py")):
    chosen = study.find(name)
    files = [OWN / each for each in plugins]
    chosen = replace(chosen, grid=with_plugins(chosen.grid, files))
    return with_added(chosen, words)


def value(of, axis, label):
    (found,) = [each for each in of.grid.axes if each.name == axis]
    (own,) = [each for each in found.values if each.label == label]
    return dict(own.overrides)


@pytest.mark.parametrize(
    ("name", "words", "axis", "label", "fields"),
    [
        (
            "rivals",
            ["defense=norm_gate", "norm_gate.factor=1.5"],
            "defense",
            "norm_gate",
            {
                "config": "mnist5k/undefended",
                "server.defense.type": "norm_gate",
                "factor": "1.5",
            },
        ),
        ("rivals", ["attack=loud"], "attack", "loud", {"client.attack.type": "loud"}),
        ("rivals", ["attack=frame"], "attack", "frame", {"client.attack.poison": "frame"}),
        (
            "rivals",
            ["tight.factor=1", "defense=tight", "tight.defense=norm_gate"],
            "defense",
            "tight",
            {"config": "mnist5k/undefended", "factor": "1", "server.defense.type": "norm_gate"},
        ),
        ("quick", ["defense=flame"], "defense", "flame", {"config": "mnist5k/flame"}),
        (
            "quick",
            ["defense=short", "short.config=mnist5k/drop", "short.K=5"],
            "defense",
            "short",
            {"config": "mnist5k/drop", "K": "5"},
        ),
        (
            "durability",
            ["defense=norm_gate"],
            "defense",
            "norm_gate",
            {"server.defense.type": "norm_gate"},
        ),
        (
            "durability",
            ["attack=loud", "loud.attack.poisoning_end_round=3"],
            "attack",
            "loud",
            {"client.attack.type": "loud", "attack.poisoning_end_round": "3"},
        ),
        (
            "paper/table-5-cifar10",
            ["defense=norm_gate"],
            "defense",
            "norm_gate",
            {"config": "cifar10/drop", "server.defense.type": "norm_gate"},
        ),
        (
            "budget",
            ["budget=norm_gate"],
            "budget",
            "norm_gate",
            {"config": "mnist5k/stealthy/droplet", "server.defense.type": "norm_gate"},
        ),
        (
            "laptop",
            ["run=norm_gate", "norm_gate.config=mnist/undefended"],
            "run",
            "norm_gate",
            {"config": "mnist/undefended", "server.defense.type": "norm_gate"},
        ),
    ],
)
def test_a_value_is_made_as_those_of_its_axis_are(name, words, axis, label, fields):
    assert value(added(name, *words), axis, label) == fields


def test_a_data_set_keeps_what_the_only_value_sets_but_its_name():
    plugins = ("waves.py",)
    found = value(added("configurations-cifar10", "data=waves", plugins=plugins), "data", "waves")
    (cifar10,) = study.find("configurations-cifar10").grid.axes[1].values
    assert found == {
        **{name: text for name, text in cifar10.overrides.items() if name != "name"},
        "dataset": "waves",
    }


def test_cells_of_the_study_stay_the_experiments_that_they_were(tmp_path):
    asked = SweepOptions(tmp_path, ("seed=1", "data=IID", "attack=badnets"))
    before = choose_cells(study.find("rivals").grid, asked)
    after = choose_cells(added("rivals", "defense=norm_gate").grid, asked)
    assert [cell.identity for cell in after[:-1]] == [cell.identity for cell in before]
    assert [cell.name for cell in after[:-1]] == [cell.name for cell in before]
    own = after[-1]
    assert own.name == "IID-badnets-norm_gate-seed1"
    assert own.config.server.defense.type == "norm_gate"
    (plugin,) = own.config.plugins
    assert plugin.startswith(f"{OWN / 'norm_gate.py'}#sha256=")
    assert all(cell.config.plugins == () for cell in before)
    undefended = next(cell for cell in before if cell.labels["defense"] == "undefended")
    assert own.config.federation == undefended.config.federation
    assert own.config.client == undefended.config.client


def test_a_shipped_method_is_the_experiment_that_another_study_has(tmp_path):
    where = ("seed=1", "attack=badnets", "defense=flame")
    rivals = study.find("rivals").grid
    (other,) = choose_cells(rivals, SweepOptions(tmp_path, (*where, "data=IID")))
    (own,) = choose_cells(added("quick", "defense=flame").grid, SweepOptions(tmp_path, where))
    assert own.config.server == other.config.server
    (via_settings,) = choose_cells(
        added("quick", "defense=mine", "mine.defense=flame").grid,
        SweepOptions(tmp_path, ("seed=1", "attack=badnets", "defense=mine")),
    )
    assert via_settings.identity == own.identity


def test_what_a_study_leaves_out_by_other_axes_is_left_out_of_the_new_value():
    cells = list(added("configurations", "defense=norm_gate").grid.assignments())
    own = [cell for cell in cells if cell["defense"] == "norm_gate"]
    assert not [cell for cell in own if (cell["rate"], cell["mcr"]) == ("2.5%", "40%")]
    assert not [cell for cell in own if cell["configuration"] != "C4" and cell["mcr"] == "20%"]
    assert own


def test_no_figure_of_a_paper_and_no_expectation_of_one_value_is_the_new_ones():
    """Table V is of DROP alone: its axis `defense` has one value, which no figure names."""
    old, new = study.find("paper/table-5-cifar10"), added("paper/table-5-cifar10", "defense=flame")
    assert old.axes == ("configuration",)
    assert new.axes == ("configuration", "defense")
    for cell in new.grid.assignments():
        figure = new.published.figure("mta", cell)
        if cell["defense"] == "drop":
            assert figure == old.published.figure("mta", cell)
            assert new.published.reasons(cell) == old.published.reasons(cell)
        else:
            assert figure is None
            assert new.published.reasons(cell) == []


def test_a_second_value_is_no_part_of_the_paper_either():
    new = added("paper/table-3-cifar10", "defense=norm_gate", "defense=loose,median2",
                "loose.defense=norm_gate", "loose.factor=3", "median2.defense=median",
                "median2.server_lr=0.5")  # fmt: skip
    cells = [cell for cell in new.grid.assignments() if cell["rate"] == "1.25%"]
    known = {cell["defense"] for cell in cells if new.published.figure("asr", cell)}
    assert known == {each.label for each in study.find(new.name).grid.axes[3].values}
    assert new.axes == study.find(new.name).axes


def test_what_is_expected_of_every_defense_is_expected_of_the_new_one():
    quick = added("quick", "defense=norm_gate")
    cell = {"seed": "1", "defense": "norm_gate", "attack": "none"}
    assert quick.expectation(cell).mta.low == 0.94
    assert quick.expectation({**cell, "attack": "badnets"}) is None


def test_without_words_nothing_changes():
    chosen = study.find("quick")
    assert with_added(chosen, []) is chosen


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("rivals", ["defense"], "defense: allowed is AXIS=NAME[,NAME ...]"),
        ("rivals", ["=norm_gate"], "=norm_gate: allowed is AXIS=NAME"),
        ("rivals", ["defense="], "defense=: has an empty name"),
        ("rivals", ["defense=norm_gate,"], "defense=: has an empty name"),
        ("rivals", ["defense=norm_gate,norm_gate"], "defense=norm_gate: comes twice"),
        ("rivals", ["defence=norm_gate"], "defence=norm_gate: axis defence is unknown. Did you m"),
        ("rivals", ["defense=drop"], "defense=drop: defense has the value drop already"),
        ("rivals", ["defense=norm_gat"], "is no defense that is known. Did you mean norm_gate?"),
        ("rivals", ["defense=qqq"], "Known are undefended, droplet"),
        ("rivals", ["defense=loud"], "defense=loud: is no defense that is known. It is an attack."),
        ("rivals", ["attack=norm_gate"], "no attack or no data poison that is known. It is a defe"),
        (
            "rivals",
            ["data=waves"],
            "the axis data is no choice of a method; allowed here: attack, d",
        ),
        ("rivals", ["seed=4"], "seed=4: the axis seed is no choice of a method"),
        ("rivals", ["rounds=30"], "rounds=30: the axis rounds is no choice of a method"),
        ("rivals", ["norm_gate.factor=1"], "norm_gate.factor=1: the added value norm_gate is unkn"),
        (
            "rivals",
            ["defense=norm_gate", "norm_gate.factr=1"],
            "factr=1: factr is unknown. Did you",
        ),
        ("rivals", ["defense=norm_gate", "norm_gate.factor=0"], "allowed is a number above 0"),
        ("rivals", ["defense=norm_gate", "norm_gate.K=1"], "K=1: K belongs to drop, which is not"),
        ("rivals", ["defense=norm_gate", "norm_gate.rounds=3"], "both set rounds"),
        ("rivals", ["defense=norm_gate", *["norm_gate.factor=3"] * 2], "factor comes twice"),
        (
            "rivals",
            ["defense=a", "a.config=none/such"],
            "a.config=none/such: config none/such: is n",
        ),
        ("rivals", ["defense=a", "a.defense=qqq"], "a.defense=qqq: is no defense that is kno"),
        (
            "rivals",
            ["defense=a", "a.defense=drop"],
            "defense=a: is the value drop of the study alr",
        ),
        ("rivals", ["defense=a,b", "a.defense=norm_gate", "b.defense=norm_gate"], "is the value a"),
        (
            "durability",
            ["attack=loud"],
            "every value of attack sets its own poisoning_end_round; g",
        ),
        (
            "rivals",
            ["defense=mine", "mine.defense=flame", "mine.defense.type=median"],
            "defense=mine: two settings name its method; leave one of them out.",
        ),
        ("laptop", ["run=norm_gate"], "say from which this one does, such as norm_gate.config="),
    ],
)
def test_what_cannot_be_added_is_one_sentence(name, words, says):
    with pytest.raises(CannotAdd) as refusal:
        added(name, *words)
    said = str(refusal.value)
    assert says in said
    assert "\n" not in said
    assert said.endswith((".", "?"))


def test_a_name_of_two_kinds_is_said_to_be_ambiguous(tmp_path):
    code = (OWN / "loud.py").read_text() + (OWN / "frame.py").read_text()
    code = code.replace('ATTACKS = {"loud"', 'ATTACKS = {"twofold"')
    code = code.replace('POISONS = {"frame"', 'POISONS = {"twofold"')
    (tmp_path / "both.py").write_text(code)
    use([str(tmp_path / "both.py")])
    with pytest.raises(CannotAdd, match=r"an attack or a data poison; add it as mine, with"):
        added("rivals", "attack=twofold", plugins=())
    grid = added("rivals", "attack=mine", "mine.attack.poison=twofold", plugins=())
    assert value(grid, "attack", "mine") == {"client.attack.poison": "twofold"}


def test_axes_that_move_together_get_no_more_values(tmp_path):
    path = tmp_path / "zipped.yaml"
    path.write_text(
        "study: {title: A, takes: no time}\n"
        "base: mnist5k/undefended\n"
        "axes: {defense: [undefended, median], rounds: [1, 2]}\n"
        "zip: [[defense, rounds]]\n"
    )
    with pytest.raises(CannotAdd, match=r"defense=krum: axes\.defense: moves together"):
        with_added(study.load(path), ["defense=krum"])


def test_the_cells_of_a_plain_axis_are_experiments(tmp_path):
    path = tmp_path / "plain.yaml"
    path.write_text(
        "study: {title: A, takes: no time}\nbase: mnist5k/undefended\n"
        "axes: {defense: [undefended, median], model: [cnn]}\n"
    )
    grid = with_added(study.load(path), ["defense=krum", "model=lenet"]).grid
    cells = expand(grid, tmp_path / "runs")
    found = {(cell.config.server.defense.type, cell.config.model) for cell in cells}
    assert found == {(d, m) for d in ("undefended", "median", "krum") for m in ("cnn", "lenet")}
