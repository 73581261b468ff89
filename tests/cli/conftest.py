"""A grid of four cells, and what their runs leave behind; no experiment is run."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from entity.record.json_files import write_json
from entity.results.store import read_row
from entity.setup import resolve
from entity.sweep.cells import expand
from entity.sweep.grid_file import read


@pytest.fixture
def grid(tmp_path, tables, monkeypatch):
    """A grid of four cells beside which `runs/` would appear."""
    monkeypatch.chdir(tmp_path)
    data = {"base": tables(), "axes": {"lr": [0.1, 0.2]}, "seeds": [1, 2]}
    Path("tiny.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return "tiny.yaml"


@pytest.fixture
def finish():
    """Write what a cell's run leaves behind, and return the cell with it."""

    def finish(cell, state="finished", mta=0.5, seconds=3600.0):
        cell.folder.mkdir(parents=True, exist_ok=True)
        write_json(cell.folder / "config.json", resolve.to_json(cell.config))
        (cell.folder / "rounds.jsonl").write_text("")
        summary = {
            "name": cell.name,
            "state": state,
            "config_hash": cell.identity,
            "mta": {"last10": mta},
            "seconds": {"total": seconds},
        }
        write_json(cell.folder / "summary.json", summary)
        if state == "failed":
            (cell.folder / "error.txt").write_text("Traceback\nValueError: odd [bold]reason[/]\n")
        return replace(cell, done=read_row(cell.folder))

    return finish


@pytest.fixture
def cells(grid):
    return expand(read(Path(grid)), Path("runs/tiny"))
