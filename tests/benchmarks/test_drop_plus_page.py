"""The tables of docs/DROP_PLUS.md are those of the lines that are there."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.usefixtures("forget_plugins")
def test_the_page_has_the_tables_that_the_script_writes(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("drop_plus", "pages", "run_study", "studies"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import drop_plus

    committed, made = drop_plus.PAGE.read_text(), tmp_path / "DROP_PLUS.md"
    made.write_text(committed)
    monkeypatch.setattr(drop_plus, "PAGE", made)
    assert drop_plus.main() == 0
    assert made.read_text() == committed, "python benchmarks/drop_plus.py makes the tables anew"
