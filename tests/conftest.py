"""A federation that runs in a second (four clients, 350 digits), and a place for Ray."""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from plugin_registry import forget

from entity.config.fields import ExperimentConfig
from entity.setup import plugins, resolve

pytest_plugins = ["attackers", "updates_by_hand"]

for name in ("DROP_DATA", "DROP_PLUGINS"):  # what is tested is not what the developer works with
    os.environ.pop(name, None)

Tables = Callable[..., dict[str, Any]]
MakeExperiment = Callable[..., ExperimentConfig]


def tiny_tables(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a configuration's tables; `changes` maps dotted paths to values."""
    tables: dict[str, Any] = {
        "dataset": "mnist5k",
        "model": "cnn",
        "client": {
            "num_epochs": 1,
            "lr": 0.05,
            "batch_size": 32,
            "ADR": 0.1,
            "transform": False,
            "attack": {"type": "badnets", "DPR": 1.0, "victim_class": 0, "target_class": 7},
        },
        "server": {"held_out": 50, "defense": None},
        "federation": {
            "size": 4,
            "number_of_malicious_clients": 1,
            "round_size": 3,
            "rounds": 2,
        },
        "settings": {"seed": 1, "cuda": -1, "engine": "inline", "num_threads": 1},
    }
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        table = tables
        for parent in parents:
            table = table[parent]
        table[last] = value
    return tables


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Make models that a test builds without a seed the same in every order of the tests."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def tables() -> Tables:
    """`tiny_tables`."""
    return tiny_tables


@pytest.fixture(scope="session")
def experiment() -> MakeExperiment:
    """The checked experiment of `tiny_tables`."""
    return lambda changes=None: resolve.experiment(tiny_tables(changes))


MAY_BE_MISSING = ("wandb", "mlflow", "no real ")
"""What a test may be skipped for anywhere: optional packages, and data beside the project."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Refuse a skipped test where all tools must be there."""
    return _unless_it_must_run((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Refuse a skipped file likewise, and anywhere a file of tests that cannot be imported.

    `--doctest-ignore-import-errors`, meant for modules of the package, skips that one, too.
    """
    report = _unless_it_must_run((yield))
    broken = report.skipped and "unable to import module" in str(report.longrepr)
    if broken and collector.path.name.startswith("test_"):
        report.outcome = "failed"
    return report


def _unless_it_must_run(report: Any) -> Any:
    """Make a failure of a skip where `REQUIRE_TOOLS` is set, as in CI."""
    excused = any(name in str(report.longrepr) for name in MAY_BE_MISSING)
    if report.skipped and os.environ.get("REQUIRE_TOOLS") and not excused:
        report.outcome = "failed"
    return report


def pytest_configure() -> None:
    """Let processes that tests start end on Ctrl-C, also where the tests are in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


NAMESPACE = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
PATIENCE = 400
"""Seconds that scenes may take."""


class Apart:
    """A network namespace where processes may start Ray, which listens on the machine's address.

    Parameters
    ----------
    folder
        Ray's; its path is short, as it must be.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        token = Path(folder, "token")
        token.write_text(secrets.token_hex(32))
        self.env = {
            **os.environ,
            "RAY_TMPDIR": folder,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        }

    def start(self, *module: object) -> subprocess.Popen[str]:
        """Start a module with its arguments, as the leader of a process group."""
        return subprocess.Popen(
            [*NAMESPACE, sys.executable, "-m", *map(str, module)],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def play(self, *scenes: Path) -> None:
        """Run files of tests, which must pass and leave no process."""
        played = self.start("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *scenes)
        try:
            said = "".join(played.communicate(timeout=PATIENCE))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(played.pid, signal.SIGKILL)  # the Ray that it started, too
        assert played.returncode == 0, said[-8000:]
        assert not self.left_behind()

    def left_behind(self) -> list[str]:
        """Return command lines of processes that know Ray's folder, once they had time to end."""
        deadline = time.monotonic() + 10
        while True:
            mine = [line for line in _command_lines() if self.folder in line]
            if not mine or time.monotonic() > deadline:
                return mine
            time.sleep(0.1)


@pytest.fixture
def apart() -> Iterator[Apart]:
    """A place for Ray; skips the test where there is none."""
    if importlib.util.find_spec("ray") is None or not _possible():
        pytest.skip("needs Ray, and the right to make a network namespace")
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        yield Apart(folder)


def _possible() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0


def _command_lines() -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


@pytest.fixture
def forget_plugins(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Leave the registries of methods as they were found."""
    monkeypatch.delenv(plugins.VARIABLE, raising=False)
    yield
    forget()
    plugins._load_installed.cache_clear()  # pyright: ignore[reportPrivateUsage]
