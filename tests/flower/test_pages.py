"""docs/DEPLOY.md and the README of `drop deploy init`, followed line by line on a fresh machine.

The commands are those of the pages, in their order. The machine is a checkout, a home folder, a
network namespace of its own and this environment's packages without the project and without the
scripts that packages install; nothing is downloaded.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("flwr.serverapp")

from entity.cli import main
from entity.deployment.followed import FollowedFederation

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"]


def commands(page: str) -> str:
    """Return what a page tells its reader to type, in order."""
    return "".join(re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))


def follow(script: str, folder: Path, machine: Path) -> str:
    """Type commands into a shell, in a folder of a machine; return what it showed."""
    try:
        subprocess.run([*NAMESPACE, "ip link set lo up"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespaces here (unshare)")
    page, shown = machine / "page.sh", machine / "shown.log"
    page.write_text(script)
    env = {
        "HOME": str(machine / "home"),
        "PATH": f"{machine / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(machine / "packages"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the option's opposite
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = f'ip link set lo up; exec bash -e -u "{page}"'
    with shown.open("wb") as out:
        shell = subprocess.Popen(
            [*NAMESPACE, command],
            **{"cwd": folder, "env": env, "stdout": out, "stderr": out, "start_new_session": True},
        )
        try:
            code = shell.wait(timeout=1700)
        finally:
            for each in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(shell.pid, each)
                except ProcessLookupError:
                    break
            shell.wait()
    said = shown.read_text(errors="replace")
    logs = "".join(f"== {log.name}\n{log.read_text()[-1500:]}" for log in folder.glob("*.log"))
    assert code == 0, f"{said[-4000:]}\n{logs}"
    return said


@pytest.fixture
def machine(tmp_path) -> Path:
    """A machine with Python, and with what pip would have to download."""
    for name in ("home", "bin", "packages"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / "python3").symlink_to(getattr(sys, "_base_executable", sys.executable))
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("drop_fl", "__editable__", "distutils-precedence")):
            (tmp_path / "packages" / path.name).symlink_to(path)
    for script in Path(sys.executable).parent.glob("fl*"):  # Flower's, for the Python in use
        own = tmp_path / "bin" / script.name
        own.write_text("#!/usr/bin/env python3\n" + script.read_text().split("\n", 1)[1])
        own.chmod(0o755)
    return tmp_path


def checkout(target: Path) -> Path:
    """Copy what is in the repository."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    names = done.stdout.decode().split("\0") if done.returncode == 0 else []
    if not names:
        skip = shutil.ignore_patterns(".*", "__pycache__", "build", "runs", "*.egg-info")
        return shutil.copytree(ROOT, target, ignore=skip)
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def test_the_deployment_page_ends_in_defended_rounds(machine):
    clone = checkout(machine / "clone")
    script = commands((clone / "docs" / "DEPLOY.md").read_text())
    said = follow(script, clone, machine)
    lines = [json.loads(line) for line in (clone / "state" / "rounds.jsonl").open()]
    assert [line["aggregated"] for line in lines] == [True, True]
    names = lines[0]["names"]
    assert sorted(names.values()) == [f"clinic-{i}" for i in range(3)]
    for line in lines:
        # Who has a new key in round 2 is the client of round 1.
        verdicts = {names[v["client"]]: v for v in line["verdicts"]}
        assert sorted(name for name, v in verdicts.items() if v["accepted"]) == [
            "clinic-1",
            "clinic-2",
        ]
        assert verdicts["clinic-0"]["reason"] == "1 penalty points"  # without the pardon, 2 at last
    assert re.search(r"round 1: node \d+ \(clinic-0\) refused: 1 penalty points", said)
    done = {each["kind"]: each for each in lines[1]["decisions"]}
    assert names[done["pardon"]["client"]] == "clinic-0"
    assert done["pardon"]["forgotten"] == "1 penalty points"
    assert names[done["rekey"]["client"]] == "clinic-2"
    assert "finished: 2 rounds, 2 refusals" in said
    figures = (clone / "metrics" / "drop.prom").read_text()
    assert 'drop_rounds_total{federation="drop",model="new"} 2' in figures
    assert 'drop_refusals_total{federation="drop",reason="penalty points"} 2' in figures
    assert 'drop_running{federation="drop"} 0' in figures


def test_the_readme_of_an_app_ends_in_a_defended_round(machine):
    app = machine / "drill"
    fields = ["--federation.size", "3", "--round_size", "3", "--rounds", "1", "--num_epochs", "1"]
    fields += ["--number_of_malicious_clients", "1", "--DPR", "0.9"]
    assert main(["deploy", "init", str(app), "--config", "mnist5k/droplet", *fields]) == 0
    drop = machine / "bin" / "drop"
    drop.write_text('#!/bin/sh\nexec python3 -m entity.cli "$@"\n')
    drop.chmod(0o755)
    (machine / "bin" / "python").symlink_to(machine / "bin" / "python3")
    (machine / "packages" / "entity").symlink_to(ROOT / "entity")  # as if it were installed
    said = follow(commands((app / "README.md").read_text()), app, machine)
    federation = FollowedFederation(machine / "home" / "drill-state")
    federation.look()
    assert federation.state == "finished"
    (line,) = federation.lines
    assert line["aggregated"]
    assert [v["reason"] for v in line["verdicts"] if not v["accepted"]] == ["1 penalty points"]
    assert "finished: 1 rounds, 1 refusals" in said
