"""Run a script in a process of its own and, if it listens on a port, in a network of its own."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pages import ROOT


def answer(words: Sequence[str], **environment: str) -> Any:
    """Run a script with one thread and return its last line, parsed as JSON.

    Raises
    ------
    RuntimeError
        If it fails; with the end of its standard error.
    """
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    done = subprocess.run(
        words,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def can_be_alone() -> bool:
    """Whether this system has the tools for a network namespace."""
    return shutil.which("unshare") is not None and shutil.which("ip") is not None


def answer_alone(words: Sequence[str], **environment: str) -> Any:
    """Run it in a network namespace that has no other machine, if it starts Ray.

    Ray listens on the machine's own address, and whoever reaches it can run code.
    """
    inside = 'ip link set lo up && exec "$@"'
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder) / "token"
        token.write_text(os.urandom(32).hex())
        return answer(
            ["unshare", "--map-root-user", "--net", "sh", "-c", inside, "sh", *words],
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=str(token),
            RAY_USAGE_STATS_ENABLED="0",
            **environment,
        )
