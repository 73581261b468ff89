"""Tables of measurements, and the pages of docs/ that they go into."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
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


def commit() -> str:
    """Return the commit of the code, marked where the package has been changed since."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)

    changed = git("diff", "--quiet", "HEAD", "--", "entity").returncode
    return git("rev-parse", "--short=12", "HEAD").stdout.strip() + ("-changed" if changed else "")


def hardware() -> str:
    """Name the processor, the cores this process may use, and the versions that matter."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        name = found[1] if found else name
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return f"{name}, {cores} cores, PyTorch {torch.__version__}, Python {platform.python_version()}"
