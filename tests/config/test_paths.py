"""`~` is the user's home in every path that is given, whoever passes it on."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import entity
from entity.cli import main
from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.setup import resolve
from entity.setup.assembly import assemble
from entity.sweep.cells import expand
from entity.sweep.grid_file import parse


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home, and another folder to be in."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.mark.parametrize("value", [3, None, b"runs", ["a"]])
def test_what_is_no_path_is_said_so_by_everything_that_takes_one(value, home):
    said = rf"^{re.escape(repr(value))}: is no path; allowed is text, or a pathlib\.Path\.$"
    for taken in (user_path, entity.results, entity.open_run):
        with pytest.raises(ConfigError, match=said):
            taken(value)


def test_a_home_is_found_and_nobody_s_is_left_as_it_is(home):
    assert user_path("~/r") == home / "r"
    assert str(user_path("~no-such-user/x")) == "~no-such-user/x"
    assert str(user_path("a/~")) == "a/~"


def test_the_command_line_goes_home(home, tables, capsys):
    (home / "c.json").write_text(json.dumps(tables({"federation.rounds": 1})))
    assert main(["run", "--config=~/c.json", "--out=~/r", "--quiet"]) == 0
    assert (home / "r" / "summary.json").exists()
    assert main(["results", "~/r", "--out=~/table.csv"]) == 0
    assert (home / "table.csv").exists()
    assert main(["report", "~/r", "--out=~/page.html"]) == 0
    assert (home / "page.html").exists()
    assert main(["run", "--resume=~/r", "--quiet"]) == 0
    assert list(home.parent.glob("here/*")) == []


def test_data_folders_go_home(home, tables, monkeypatch, capsys):
    for part in ("train/a", "train/b", "test/a", "test/b"):
        (home / "d" / "own" / part).mkdir(parents=True)
        for number in range(12):
            image = Image.fromarray(np.full((28, 28), number, dtype=np.uint8))
            image.save(home / "d" / "own" / part / f"{number}.png")
    changes = {"dataset": "imagefolder:own", "server.held_out": 2, "client.attack": None}
    changes |= {"federation.size": 4, "federation.round_size": 4, "client.ADR": 1}
    in_a_file = tables({**changes, "settings.datasets_path": "~/d"})
    assert len(assemble(resolve.experiment(in_a_file)).split.test) == 24
    given = resolve.experiment(tables(changes), [("datasets_path", "~/d")])
    assert len(assemble(given).split.test) == 24
    monkeypatch.setenv("DROP_DATA", "~/d")
    assert len(assemble(resolve.experiment(tables(changes))).split.test) == 24
    assert main(["data", "where"]) == 0
    assert str(home / "d") in capsys.readouterr().out.replace("\n", "")


def test_configurations_and_grids_go_home(home, tables):
    (home / "base.json").write_text(json.dumps(tables()))
    (home / "top.json").write_text('{"extends": "~/base.json", "model": "lenet"}')
    assert entity.load("~/top.json").model == "lenet"
    (cell,) = expand(parse({"base": "~/top.json"}, home / "g.yaml"), home / "runs")
    assert cell.config.model == "lenet"


def test_a_trigger_s_image_goes_home(home, tables):
    Image.fromarray(np.full((28, 28), 9, dtype=np.uint8)).save(home / "t.png")
    assert resolve.experiment(tables({"client.attack.trigger_pattern": "~/t.png"}))
