"""What is built and handed out: wheel and sdist, the citation, the changelog, the Dockerfile."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
from pathlib import Path

import dockerfile
import pytest
import yaml

import entity
from entity.attacks import ATTACKS
from entity.defenses import DEFENSES
from entity.poisons import POISONS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version_everywhere():
    version = PROJECT["version"]
    assert entity.__version__ == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"version = {{{version}}}" in (ROOT / "docs" / "citing.md").read_text()
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1] == version


def test_the_citation_has_what_the_format_asks_for():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(found)
    paper = found["preferred-citation"]
    assert paper["url"].endswith("2502.07011")
    bibtex = (ROOT / "docs" / "citing.md").read_text()
    assert all(f"{author['family-names']}, " in bibtex for author in paper["authors"])
    assert bibtex.count("{") == bibtex.count("}")


def test_the_changelog_names_every_method():
    text = re.sub(r"\s+", " ", (ROOT / "CHANGELOG.md").read_text()).lower()
    known = {"undefended": "fedavg", "finetuning": "fine-tuning", "multikrum": "multi-krum"}
    known |= {
        "min_max": "min-max and min-sum",
        "three_dfed": "3dfed",
        "pixel": "pixel",
        "constrain_and_scale": "constrain-",
    }
    for name in [*DEFENSES, *ATTACKS, *POISONS]:
        words = known.get(name, name)
        spelt = {words, words.replace("_", " "), words.replace("_", "-"), words.replace("_", "")}
        assert any(one in text for one in spelt), name


def test_the_dockerfile_is_read_and_copies_what_is_there(tmp_path):
    steps = dockerfile.steps((ROOT / "Dockerfile").read_text())
    assert [word for word, _ in steps][:2] == ["ARG", "FROM"]
    state = dockerfile.Build(tmp_path, {"BASE": "cuda"})
    for word, rest in steps:
        if word in ("ARG", "ENV", "COPY", "WORKDIR"):
            state.do(word, rest)
    assert (tmp_path / "src" / "entity" / "configs" / "mnist5k" / "drop.json").is_file()
    assert (tmp_path / "src" / "pyproject.toml").is_file()
    assert state.variables["BASE"] == "cuda"
    assert state.variables["VIRTUAL_ENV"] == f"{tmp_path}/opt/drop"
    assert state.folder == tmp_path / "work"
    with pytest.raises(ValueError, match="ADD: this instruction"):
        dockerfile.steps("FROM a\nADD b c")
    with pytest.raises(ValueError, match="begins with"):
        dockerfile.steps("RUN a")


def run(*command: str, folder: Path) -> str:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory):
    """This environment's packages without the project: gigabytes that no test fetches anew."""
    folder = tmp_path_factory.mktemp("dependencies")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("drop_fl", "__editable__", "distutils-precedence")):
            (folder / path.name).symlink_to(path)
    return folder


def site_packages(environment: Path) -> Path:
    names = {"base": str(environment), "platbase": str(environment)}
    return Path(sysconfig.get_path("purelib", "venv", names))


@pytest.mark.slow
def test_wheel_and_sdist_are_built_and_work_from_an_empty_folder(tmp_path, dependencies):
    """The wheel is built from the sdist, so that both are whole."""
    pytest.importorskip("build")
    dist = tmp_path / "dist"
    build = [sys.executable, "-m", "build", "--no-isolation"]
    run(*build, "-o", str(dist), str(ROOT), folder=tmp_path)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    with tarfile.open(sdist) as packed:
        inside = {name.split("/", 1)[-1] for name in packed.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "entity/studies/quick.yaml"} <= inside
    fresh, empty = tmp_path / "fresh", tmp_path / "empty"
    empty.mkdir()
    venv.create(fresh, with_pip=False)
    site = site_packages(fresh)
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    python = str(fresh / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    run(*pip, str(wheel), folder=empty)
    where = run(python, "-c", "import entity; print(entity.__file__)", folder=empty)
    assert Path(where.strip()).is_relative_to(site)
    drop = str(fresh / "bin" / "drop")
    listed = json.loads(run(drop, "list", "configs", "--json", folder=empty))
    assert {"mnist5k/DEFENSE", "cifar10/DEFENSE"} <= {row["name"] for row in listed}
    assert "paper/table-3-cifar10" in run(drop, "reproduce", folder=empty)
    shape = ["--rounds", "1", "--num_epochs", "1", "--engine", "inline", "--quiet"]
    run(drop, "run", "--config", "mnist5k/droplet", *shape, "--out", "runs/one", folder=empty)
    run(drop, "report", "runs/one", "--out", "page.html", folder=empty)
    assert (empty / "page.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_dockerfile_s_steps_end_in_a_command_that_works(tmp_path, dependencies, monkeypatch):
    """But for what it downloads: the dependencies are there before pip asks for them."""
    site = site_packages(tmp_path / "opt" / "drop")
    site.mkdir(parents=True)
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip reads it as the option's opposite
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    shown = dockerfile.build(tmp_path, {})
    assert "DROPlet" in shown
    assert (site / "entity" / "configs" / "mnist5k" / "drop.json").is_file()
