"""The notebooks of `examples/`: their code runs, in a kernel, with smaller numbers."""

import json
from pathlib import Path

import pytest

import entity

EXAMPLES = Path(entity.__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
SMALL = """
ROUNDS = 2
OTHER_FIELDS = {"ADR": 0.1, "size": 6, "round_size": 6, "number_of_malicious_clients": 2}
FOLDER = "runs"
"""


def cells(path, kind="code"):
    return [each for each in json.loads(path.read_text())["cells"] if each["cell_type"] == kind]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_code_alone_and_their_numbers_in_one_cell(path):
    assert len(NOTEBOOKS) == 2
    for cell in cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        if "%" not in (text := "".join(cell["source"])):
            compile(text, path.name, "exec")
    (numbers,) = [each for each in cells(path) if "parameters" in each["metadata"].get("tags", [])]
    given, small = {}, {}
    exec("".join(numbers["source"]), given)
    exec(SMALL, small)
    assert set(given) == set(small)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(path, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = SMALL
    resources = {"metadata": {"path": str(tmp_path)}}
    client.NotebookClient(book, timeout=500, kernel_name="python3", resources=resources).execute()
    outputs = [each for cell in book.cells if cell.cell_type == "code" for each in cell.outputs]
    assert not [each for each in outputs if each.output_type == "error"]
    shown = "".join(str(each.get("data", "")) for each in outputs)
    if path.stem == "ten_minutes_with_drop":
        assert "<table>" in shown  # a result
        assert "<progress" in shown  # its progress
    assert "dataframe" in shown
    assert "image/png" in shown  # a figure
    assert list((tmp_path / "runs").iterdir())
