"""Runs `ray_scenes.py` in a network namespace: Ray listens on the machine's own address."""

import json
import sys
from pathlib import Path

import pytest

from entity.cli import main


@pytest.mark.deployment
def test_the_scenes_of_sweeps_on_ray(apart):
    apart.play(Path(__file__).parent / "ray_scenes.py")


def test_without_ray_there_is_a_sentence_with_the_mend(tables, tmp_path, monkeypatch, capsys):
    grid = tmp_path / "g.json"
    grid.write_text(json.dumps({"base": tables(), "seeds": [1]}))
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", str(grid), "--out", str(tmp_path / "runs"), "--ray", "auto"]) == 2
    said = capsys.readouterr().err
    assert "--ray auto: needs Ray, which is not installed" in said
    assert "Traceback" not in said
