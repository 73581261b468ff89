"""Write FIRST_HOUR.md: the commands of README and the start page on a fresh clone, as they went.

    python docs/make_first_hour.py --folder /tmp/first-hour

The commands are read from the pages, in their order, and typed one after the other into one shell
in a fresh clone of the last commit: each with its seconds and what it printed. Python's blocks are
given to `python -`. Long outputs are cut in the middle, and it is said by how many lines; the clone
is called DROP and the home folder ~. `--skip COMMAND=WHY` leaves one out, and says why;
`--limit SECONDS` stops those that take longer, and says so. It takes a good half hour on two quiet
cores; what was done before is taken up again with the same `--folder`.
"""

import argparse
import json
import os
import platform
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PAGES = ("README.md", "docs/start.md")
HEAD, TAIL = 14, 18
"""Lines of an output that are kept at its beginning and its end."""
WIDTH = 80
_MARK = "first-hour-mark"
_BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOISE = re.compile(r"Looking in (?:indexes|links)|Location '|\[notice\]|file:///")
"""Lines of pip that tell of this machine's package index."""


class Command(NamedTuple):
    """What a page asks its reader to type."""

    page: str
    kind: str
    """`sh` or `python`."""
    text: str


class Done(NamedTuple):
    """How a command went."""

    seconds: float
    code: int
    """-1 where it was stopped."""
    output: str


def commands(pages: tuple[str, ...] = PAGES, root: Path = ROOT) -> list[Command]:
    """Return the commands of some pages, in order; comments at the end of a line are no part."""
    found = []
    for page in pages:
        for kind, block in _BLOCK.findall((root / page).read_text()):
            if kind == "python":
                found.append(Command(page, "python", block.strip()))
            elif kind in ("", "sh"):
                lines = re.sub(r"\\\n\s*", "", block).splitlines()
                texts = [re.sub(r"\s{2,}#.*$", "", line).strip() for line in lines]
                found += [Command(page, "sh", text) for text in texts if text]
    return found


class Shell:
    """One shell that stays, so that an environment that a command activates is there for the next.

    Parameters
    ----------
    folder
        Where it begins.
    limit
        Most seconds of a command.
    """

    def __init__(self, folder: Path, limit: float) -> None:
        self.limit = limit
        path = f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        hidden = ("VIRTUAL_ENV", "PYTHONPATH", "OMP_NUM_THREADS")
        env = {name: value for name, value in os.environ.items() if name not in hidden}
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=env | {"PATH": path, "TERM": "dumb", "COLUMNS": str(WIDTH), "LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def type(self, command: Command) -> Done:
        """Type a command, and wait until it is done."""
        assert self.process.stdin is not None
        text = command.text
        if command.kind == "python":
            text = f"python - << 'END-OF-PYTHON'\n{text}\nEND-OF-PYTHON"
        began = time.monotonic()
        self.process.stdin.write(f"{text}\nprintf '\\n{_MARK} %s\\n' $?\n".encode())
        self.process.stdin.flush()
        output, stopped = b"", False
        for part in self._parts():
            output += part
            if found := re.search(rb"\n" + _MARK.encode() + rb" (\d+)\n$", output):
                code = -1 if stopped else int(found[1])
                said = output[: found.start()].decode(errors="replace").removesuffix("\n")
                return Done(time.monotonic() - began, code, said)
            if not stopped and time.monotonic() - began > self.limit:
                stopped = True
                for child in children(self.process.pid):
                    os.kill(child, signal.SIGINT)
        raise RuntimeError(f"the shell ended at: {command.text}")

    def _parts(self) -> Iterator[bytes]:
        """Yield what comes, and nothing at least every second."""
        out = self.process.stdout
        assert out is not None
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while True:
                if not selector.select(1.0):
                    yield b""
                elif part := os.read(out.fileno(), 1 << 16):
                    yield part
                else:
                    return

    def close(self) -> None:
        """End the shell."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def children(parent: int) -> list[int]:
    """Return the processes that a process has started."""
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True)
    return [int(pid) for pid in done.stdout.split()]


def shown(output: str, names: dict[str, str]) -> str:
    """Return an output as the page has it: without this machine, and cut in the middle.

    Parameters
    ----------
    output
        What a command printed.
    names
        Texts that stand for paths of this machine.
    """
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    kept = [line for line in lines if line and not _NOISE.search(line)]
    for path, name in names.items():
        kept = [line.replace(path, name) for line in kept]
    if len(kept) > HEAD + TAIL + 1:
        cut = len(kept) - HEAD - TAIL
        kept = [*kept[:HEAD], f"[... {cut} lines ...]", *kept[-TAIL:]]
    return "\n".join(kept)


def took(seconds: float) -> str:
    """Return a time as the page has it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"


def page(told: list[tuple[Command, Done | str]], names: dict[str, str], facts: str) -> str:
    """Return the transcript.

    Parameters
    ----------
    told
        Commands, with how they went or why they were left out.
    names
        See `shown`.
    facts
        Of the machine and the commit.
    """
    parts = [
        "# The first hour",
        "What the commands of [README](../README.md) and of [Start in five minutes](start.md) "
        "print, one after the other on a fresh clone. Made by `python docs/make_first_hour.py`, "
        "which cuts long outputs in the middle; nothing else was edited.",
        facts,
    ]
    before = ""
    for command, done in told:
        if command.page != before:
            before = command.page
            parts.append(f"## {before}")
        typed = command.text if command.kind == "python" else f"$ {command.text}"
        if isinstance(done, str):
            parts.append(f"```\n{typed}\n```\n\nNot run here: {done}.")
            continue
        said = shown(done.output, names)
        end = "" if done.code == 0 else f", exit code {done.code}"
        if done.code == -1:
            end = ", and was stopped then"
        if command.kind == "python":
            text = f"```python\n{typed}\n```" + (f"\n\n```\n{said}\n```" if said else "")
        else:
            text = f"```\n{typed}\n{said}".rstrip() + "\n```"
        parts.append(f"{text}\n\n*{took(done.seconds)}{end}*")
    return "\n\n".join(parts) + "\n"


def facts_of(clone: Path) -> str:
    """Return what the machine and the commit are."""
    commit = _git(clone, "log", "-1", "--format=%h of %cd", "--date=short")
    return (
        f"Commit {commit}; Python {platform.python_version()} on {platform.system()}, "
        f"{os.cpu_count()} cores, {datetime.now(UTC):%Y-%m-%d}. The load average was {load()} when "
        "it began"
    )


def load() -> str:
    """Return the load average of the last 1, 5 and 15 minutes."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> int:
    """Make the clone, type the commands, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for the clone; kept")
    parser.add_argument("--limit", type=float, default=3600.0, help="most seconds of a command")
    parser.add_argument("--skip", action="append", default=[], metavar="COMMAND=WHY")
    parser.add_argument("--out", type=Path, default=DOCS / "FIRST_HOUR.md")
    options = parser.parse_args()
    skipped = dict(text.rsplit("=", 1) for text in options.skip)
    folder: Path = options.folder.resolve()
    clone, journal = folder / "DROP", folder / "journal.jsonl"
    if not clone.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        (folder / "facts").write_text(facts_of(clone))
    known = [json.loads(line) for line in journal.open()] if journal.exists() else []
    shell, told = Shell(clone, options.limit), list[tuple[Command, Done | str]]()
    for place, command in enumerate(commands(root=clone)):
        if command.text in skipped:
            told.append((command, skipped[command.text]))
            known.insert(place, None)
            continue
        if place < len(known):
            done = Done(*known[place])
            if "activate" in command.text:
                shell.type(command)  # what holds for the shell holds for no other one
        else:
            print(f"$ {command.text.splitlines()[0]}", flush=True)
            done = shell.type(command)
            print(f"  {took(done.seconds)}, exit code {done.code}", flush=True)
            known.append(list(done))
            with journal.open("a") as file:
                file.write(json.dumps(done) + "\n")
        told.append((command, done))
    shell.close()
    names = {str(clone): "DROP", str(folder): "..", str(Path.home()): "~"}
    facts = f"{(folder / 'facts').read_text()}, and {load()} when it ended: on a busy machine "
    text = page(told, names, facts + "everything takes longer.")
    if left := [word for word in (str(folder), str(ROOT), platform.node()) if word in text]:
        print(f"The page would tell of this machine: {', '.join(left)}", file=sys.stderr)
        return 1
    options.out.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
