"""A tool that is not there is a reason to skip a test on somebody's machine, and never in CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NEEDS_CHROMIUM = (
    "tests/report/test_page.py::test_a_browser_draws_sorts_and_recolours_without_an_error"
)
NEEDS_FLOWER = "tests/defenses/test_flower_as_judge.py"


@pytest.mark.slow
@pytest.mark.parametrize("needs", [NEEDS_CHROMIUM, NEEDS_FLOWER])
@pytest.mark.parametrize("required", [False, True])
def test_what_would_be_skipped_fails_where_all_tools_must_be_there(tmp_path, needs, required):
    (tmp_path / "flwr.py").write_text("raise ModuleNotFoundError('not installed')\n")
    there = {"PATH": "", "PYTHONPATH": str(tmp_path), "REQUIRE_TOOLS": "1" if required else ""}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-rs",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-m",
            "",
            needs,
        ],
        cwd=Path(__file__).parents[1],
        env=os.environ | there,
        capture_output=True,
        text=True,
    )
    failed = done.returncode in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    assert failed == required, done.stdout
    assert ("SKIPPED" in done.stdout) != required, done.stdout
