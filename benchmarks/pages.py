"""Tables of measurements, and the pages of docs/ that they go into."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "RESULTS.md"
PERFORMANCE = ROOT / "docs" / "PERFORMANCE.md"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def put_section(page: Path, name: str, text: str) -> None:
    """Replace a marked section of a page, or add it at the end."""
    section = f"<!-- {name} -->\n{text}\n<!-- /{name} -->"
    before = page.read_text()
    marked = re.compile(rf"<!-- {name} -->.*<!-- /{name} -->", re.DOTALL)
    if marked.search(before):
        page.write_text(marked.sub(lambda _: section, before))
    else:
        page.write_text(before.rstrip() + "\n\n" + section + "\n")


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of one JSON object a line; none if there is no file."""
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write such a file, aside and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    aside.write_text("".join(json.dumps(record) + "\n" for record in records))
    aside.replace(path)


def commit() -> str:
    """Return the commit of the code, marked where the package has been changed since."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)

    changed = git("diff", "--quiet", "HEAD", "--", "entity").returncode
    return git("rev-parse", "--short=12", "HEAD").stdout.strip() + ("-changed" if changed else "")


def hardware() -> str:
    """Name the processor, the cores in use, the versions that matter, and how busy the machine is.

    A load far above the number of cores says that others were at work: then trust no seconds.
    """
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        name = found[1] if found else name
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    versions = f"PyTorch {torch.__version__}, Python {platform.python_version()}"
    return f"{name}, {cores} cores, load {os.getloadavg()[1]:.0f}, {versions}"
