"""`drop reproduce NAME --add AXIS=MINE`: a method of one's own beside those of a study."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from entity.cli import main, reproduce
from entity.results import store
from entity.sweep import study

pytestmark = pytest.mark.usefixtures("forget_plugins")

OWN = Path(__file__).parents[2] / "examples/own"
ADD = ["--plugins", "elsewhere/norm_gate.py", "--add", "defense=norm_gate"]


@pytest.fixture(autouse=True)
def tiny(tmp_path, tables, monkeypatch):
    """A study of two defenses and one round, and plugins in a folder beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "_folder", lambda: tmp_path / "studies")
    (tmp_path / "studies").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in ("norm_gate.py", "loud.py"):
        shutil.copy(OWN / name, tmp_path / "elsewhere")
    data = {
        "study": {
            "title": "A tiny study",
            "takes": "no time",
            "source": "made up",
            "expect": [{"cells": {"defense": ["undefended", "median"]}, "mta": [0, 100]}],
        },
        "base": tables({"federation.rounds": 1}),
        "seeds": [1, 2],
        "axes": {
            "defense": {
                "undefended": {"defense.type": "undefended"},
                "median": {"defense.type": "median"},
            },
            "attack": {"badnets": {"attack.type": "badnets"}},
        },
    }
    (tmp_path / "studies/tiny.yaml").write_text(yaml.safe_dump(data, sort_keys=False))


def test_a_cell_of_an_own_defense_runs_is_judged_shown_and_not_run_again(capsys):
    where = ["--where", "seed=1", "defense=norm_gate"]
    words = ["reproduce", "tiny", *ADD, "norm_gate.factor=1.5", *where]
    assert main([*words, "--markdown", "t.md"]) == 0
    shown = capsys.readouterr()
    assert "tiny: 1 run: 1 new" in shown.err
    head, _, row = [x for x in Path("t.md").read_text().splitlines() if x.startswith("|")]
    # An axis that had one value is no column before a value is added to it.
    assert head.startswith("| defense | n | MTA % |")
    assert row.startswith(r"| norm\_gate | 1 | ")
    assert row.endswith("| no figure |")
    assert (
        "`drop reproduce tiny --plugins elsewhere/norm_gate.py --add defense=norm_gate "
        "norm_gate.factor=1.5 --where seed=1 defense=norm_gate` of drop-fl "
        f"`{reproduce.__version__}`." in Path("t.md").read_text()
    )
    (run,) = store.collect([Path("runs/tiny")])
    assert run.finished
    assert run.path.name.startswith("norm_gate-seed1-")
    assert run.facts["defense"] == "norm_gate"
    assert run.fields["server.defense.defense_args.factor"] == 1.5
    config = json.loads((run.path / "config.json").read_text())
    assert config["plugins"][0].startswith(f"{Path('elsewhere/norm_gate.py').resolve()}#sha256=")

    assert main(words) == 0
    assert "tiny: 1 run: 1 finished" in capsys.readouterr().err
    assert main(["results", "runs/tiny", "--by", "defense,factor"]) == 0
    assert "norm_gate" in capsys.readouterr().out
    assert main(["reproduce", "tiny", *ADD, "--dry-run"]) == 0  # another factor is another run
    assert "tiny: 6 runs: 6 new" in capsys.readouterr().out


def test_shipped_values_keep_their_runs(capsys):
    assert main(["reproduce", "tiny", "--dry-run"]) == 0
    before = [x for x in capsys.readouterr().out.splitlines() if x.startswith("new")]
    assert main(["reproduce", "tiny", *ADD, "--dry-run"]) == 0
    after = [x for x in capsys.readouterr().out.splitlines() if x.startswith("new")]
    assert len(before) == 4
    assert [line for line in after if "norm_gate" not in line] == before
    assert len(after) == 6


def test_an_axis_of_one_value_is_a_column_once_it_has_two(capsys):
    plugins = ["--plugins", "elsewhere/norm_gate.py", "elsewhere/loud.py"]
    words = ["reproduce", "tiny", *plugins, "--add", "defense=norm_gate", "--add", "attack=loud"]
    assert main([*words, "loud.loudness=4", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "tiny: 12 runs: 12 new" in shown
    assert "runs/tiny/norm_gate-loud-seed2-" in shown.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([*ADD, "norm_gate.factr=1"], "--add norm_gate.factr=1: factr is unknown. Did you mean fa"),
        ([*ADD[:3], "defence=norm_gate"], "--add defence=norm_gate: axis defence is unknown. Did"),
        (
            [*ADD[:3], "defense=norm_gat"],
            "--add defense=norm_gat: is no defense that is known. Did",
        ),
        ([*ADD[:3], "defense=median"], "--add defense=median: defense has the value median alread"),
        (
            [*ADD[:3], "seed=3"],
            "--add seed=3: the axis seed is no choice of a method; allowed here",
        ),
        (ADD[2:], "--add defense=norm_gate: is no defense that is known. Known are undefended, "),
        (["--plugins", "none.py", *ADD[2:]], "plugins = "),
        (
            [*ADD, "--where", "defense=norm_gat"],
            "--where defense=norm_gat: is no value of the axis defense. Did you mean norm_gate?",
        ),
    ],
)
def test_what_cannot_be_added_is_one_sentence_and_nothing_is_written(words, says, capsys):
    assert main(["reproduce", "tiny", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"drop: {says}")
    assert len(said.err.splitlines()) == 1
    assert not Path("runs").exists()


def test_the_help_says_how(capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--plugins norm_gate.py --add defense=norm_gate norm_gate.factor=1.5" in shown
    assert "--add AXIS=NAME" in shown
