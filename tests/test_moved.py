"""Scripts and Flower apps that were written for an earlier version still find what they import."""

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import entity
from entity.moved import MODULES, PACKAGES

OLD_README = """
from pathlib import Path
from entity import experiment, resolve
config = resolve.experiment(resolve.read(Path("mnist5k/drop.json")), [("DPR", "0.25")])
print(config.client.attack.DPR, resolve.identity(config), callable(experiment.run))
"""
OLD_DEPLOY = """
from entity.loops import Recipe
from entity.params import ParamSpec, Updates, Verdict, Aggregation, Stopwatch, ModelState
from entity.seeding import Seeds
from entity.server import SERVERS, Averaging, Droplet, DropletArgs, Resources
from entity.client import ATTACKS, Roster
from entity.config import ExperimentConfig
from entity.dataset import POISONS, BackdoorableCINIC10
from entity.record import whole_lines, read_summary, locked
from entity.schema import ConfigError
from entity.server.contract import Server, convex, step, verdicts
print(sorted([SERVERS["droplet"] is Droplet, entity_updates is Updates]))
"""


def said(program: str, cwd) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_program_of_an_earlier_readme_runs(monkeypatch):
    configs = entity.__path__[0] + "/configs"
    assert said(OLD_README, configs).startswith("0.25 ")


@pytest.mark.slow
def test_names_of_earlier_versions_are_the_same_objects(tmp_path):
    program = "from entity.updates import Updates as entity_updates" + OLD_DEPLOY
    assert said(program, tmp_path) == "[True, True]\n"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_is_gone_has_every_public_name_of_its_successors(name):
    old = importlib.import_module(name)
    for home in MODULES[name]:
        new = importlib.import_module(home)
        public = [
            key
            for key, value in vars(new).items()
            if not key.startswith("_") and not isinstance(value, ModuleType)
        ]
        assert public
        # Of two successors that have a name, the last one's is taken.
        last = importlib.import_module(MODULES[name][-1])
        for key in public:
            assert getattr(old, key) is getattr(last, key, getattr(new, key))


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_still_refuses_names_that_it_never_had(name):
    assert not hasattr(importlib.import_module(name), "no_such_name")
    for home in PACKAGES[name]:
        importlib.import_module(home)


def test_the_public_face_is_there_without_importing_pytorch(tmp_path):
    program = "import entity, sys; print('torch' in sys.modules, *sorted(entity.__all__))"
    assert said(program, tmp_path) == (
        "False CannotGoOn ConfigError Result Runs Sweep __version__ load open_run results run"
        " sweep\n"
    )
    for name in entity.__all__:
        assert getattr(entity, name)
    assert not hasattr(entity, "no_such_name")
