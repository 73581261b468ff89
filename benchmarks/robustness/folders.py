"""Run directories held against what they should be: whole at any time, and the same at the end."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from same_bits import facts

from entity.record.checkpoint import Checkpoints
from entity.record.directory import whole_lines


def half_written(folder: Path) -> str:
    """Name a file of one or several runs that is not whole under its final name, or return ""."""
    for path in sorted(folder.rglob("*")):
        try:
            _read(path)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            return f"{path.relative_to(folder)} is not whole: {error}"
    return ""


def _read(path: Path) -> None:
    if path.suffix == ".safetensors":
        load_file(path)
    elif path.name == "rounds.jsonl":
        ended = path.read_bytes().count(b"\n")  # only what comes after may be half a line
        whole = len(whole_lines(path.parent))
        if whole < ended:
            raise ValueError(f"{ended} lines, of which {whole} are whole")
    elif path.parent.name == "checkpoint" and path.suffix == ".json":
        number = int(path.stem.removeprefix("round_"))
        found = Checkpoints(path.parents[1], {}, 0).last(number)
        if found is None or found.snapshot.round != number:
            raise ValueError("it is passed over as damaged")
    elif path.suffix == ".json":
        json.loads(path.read_bytes())


def difference(folder: Path, undisturbed: Path) -> str:
    """Say in what two finished runs differ that should not; "" if in nothing."""
    try:
        one, other = facts(folder), facts(undisturbed)
    except OSError as error:
        return f"cannot be compared: {error}"
    parts = [name for name in one | other if one.get(name) != other.get(name)]
    parts += [path.name for path in folder.rglob("*.part")]
    if one["state"] != "finished":
        parts.append(f"state is {one['state']}")
    return f"differs from the undisturbed run in {', '.join(parts)}" if parts else ""


def finished_rounds(folder: Path) -> int:
    """Return how many rounds all runs below a folder have finished."""
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("rounds.jsonl"))
