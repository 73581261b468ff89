"""The process of one tracker: it reads new rounds whenever it is woken through stdin.

When stdin ends, the run has ended, for whatever reason, SIGKILL included.
"""

import importlib
import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from entity.reading import parse_json, read_bytes
from entity.record.atomic import write_atomically
from entity.record.follow import Tail
from entity.trackers.contract import Session, Tracker


def main(job: Mapping[str, Any]) -> int:
    """Follow the run and return an exit code; an exception is one line, and the last, on stderr."""
    try:
        folder = Path(job["folder"])
        mark = folder / "trackers" / f"{job['name']}.rounds"
        session = _session(folder, _logged(mark))
        tracker = adapter(job["adapter"])(session)
        tail = Tail(folder)
        tail.round = session.logged
        calls = SimpleQueue[bool]()
        threading.Thread(target=_listen, args=(calls, job["patience"]), daemon=True).start()
        going_on = True
        while going_on:
            going_on = calls.get()
            for line in tail:
                tracker.log(line["round"], numbers_of(line))
                write_atomically(mark, str(line["round"]).encode())
        path = folder / "summary.json"  # missing only if the run was killed in its first round
        summary = parse_json(read_bytes(path)) if path.exists() else {"state": "running"}
        tracker.finish(str(summary.get("state")), dict(_numbers(summary)))
    except BaseException as error:
        traceback.print_exc()
        said = " ".join(str(error).split())
        print(f"{type(error).__name__}: {said}" if said else type(error).__name__, file=sys.stderr)
        return 1
    return 0


def _listen(calls: SimpleQueue[bool], patience: float) -> None:
    """Pass on each call, and the end; then make sure that this process ends, too."""
    while os.read(0, 4096):
        calls.put(True)
    calls.put(False)
    time.sleep(patience + 5)  # the run itself is killed, or it would have lost patience by now
    os._exit(1)


def _logged(mark: Path) -> int:
    """Return the last round that was logged; 0 where an earlier version left half a mark."""
    said = mark.read_text() if mark.exists() else ""
    return int(said) if said.isdigit() else 0


def _session(folder: Path, logged: int) -> Session:
    config = parse_json(read_bytes(folder / "config.json"))
    return Session(
        folder,
        (folder / "trackers" / "id").read_text(),
        str(config.get("name") or folder.resolve().name),
        str(config["dataset"]),
        dict(_leaves(config)),
        logged,
    )


def adapter(path: str) -> Callable[[Session], Tracker]:
    """Import `module:class`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def numbers_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers to plot of a line of rounds.jsonl.

    Examples
    --------
    >>> numbers_of({"mta": 0.9, "asr": None, "metrics": {}, "n_selected": 5, "n_malicious": 2,
    ...             "refused": [3, 4], "malicious": [4, 5], "seconds": {"train": 1.5},
    ...             "diagnostics": {"gap": 2.0}})
    ... # doctest: +NORMALIZE_WHITESPACE
    {'mta': 0.9, 'selected': 5.0, 'malicious': 2.0, 'refused': 2.0, 'refused_malicious': 1.0,
     'seconds/train': 1.5, 'diagnostics/gap': 2.0}
    """
    refused, malicious = line["refused"], line["malicious"]
    values = {
        "mta": line["mta"],
        "asr": line["asr"],
        "metrics": line["metrics"],
        "selected": line["n_selected"],
        "malicious": line["n_malicious"],
        "refused": len(refused),
        "refused_malicious": len(set(refused) & set(malicious)),
        "seconds": line["seconds"],
        "diagnostics": line["diagnostics"],
    }
    return dict(_numbers(values))


def _numbers(data: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the finite numbers of nested tables as (path/with/slashes, value)."""
    for path, value in _leaves(data, "/"):
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield path, float(value)


def _leaves(data: Mapping[str, Any], mark: str = ".", where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, mark, f"{where}{key}{mark}")
        else:
            yield f"{where}{key}", value


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
