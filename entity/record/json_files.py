"""JSON files: written for any parser to read, and read even if another process damaged them."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entity.reading import parse_json, read_bytes
from entity.record.atomic import write_atomically
from entity.record.json_fields import mapping


def finite(value: Any) -> Any:
    """Return a value as JSON can hold it: None for NaN and infinities, text for all keys.

    Examples
    --------
    >>> finite({"weights": {3: float("nan")}, "scores": (0.5, float("inf"))})
    {'weights': {'3': None}, 'scores': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically; NaN becomes null."""
    write_atomically(path, (json.dumps(finite(value), indent=2) + "\n").encode())


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where the file is missing, damaged or holds something else."""
    try:
        return mapping(parse_json(read_bytes(path)))
    except (OSError, ValueError):
        return {}
