"""docs/DEPLOY.md says of every defense what the code says."""

import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tables_are_those_of_the_code_and_the_measurements(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    sys.modules.pop("make_deploy", None)
    import make_deploy

    text = (DOCS / "DEPLOY.md").read_text()
    assert make_deploy.page(text) == text, "run python docs/make_deploy.py"
    assert "| `droplet` |  |  | yes | yes | yes |  |" in text
    assert "| 1,000 | 100M | 400 GB |" in text
