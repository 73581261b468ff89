"""The process of one cell: a job comes in on stdin, a line for each round goes out on stdout.

A fresh interpreter, so that a cell's peak memory is its own and nothing of another run is left in
it. Whatever else is printed goes to stderr. The process ends with the sweep that started it, even
if that is killed: its end of stdin closes then.
"""

import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import IO, Any

from entity import experiment
from entity.config.paths import user_path
from entity.config.schema import CannotGoOn, ConfigError
from entity.engine.allocator import keep_pages
from entity.record.json_files import write_json
from entity.record.lock import InUse
from entity.setup import resolve
from entity.setup.plugin_files import refusal

FAILED, REFUSED, TAKEN, STOPPED = 1, 2, 75, 130
"""Exit codes: an exception, a ConfigError (which another try would not change), another process at
work on the run, a signal."""


def main() -> int:
    """Run the job and return an exit code."""
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, _stop)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_pages()
    reason = Path(job["error"])
    try:
        _run(job, Path(job["folder"]), events)
    except KeyboardInterrupt:
        return STOPPED
    except InUse:
        return TAKEN
    except ConfigError as error:
        _note(reason, f"{error}\n")
        return REFUSED
    except CannotGoOn as error:
        _note(reason, f"{error}\n")
        return FAILED
    except (Exception, SystemExit) as error:
        said = refusal(error)  # of a plugin, whose error may not come again
        _note(reason, traceback.format_exc() + ("" if said is None else f"{said}\n"))
        return FAILED
    return 0


def _run(job: Mapping[str, Any], folder: Path, events: IO[str]) -> None:
    if user_path(job["config"]["settings"]["datasets_path"]).exists():
        os.environ.pop("DROP_DATA", None)  # told already, in the sweep; it is for other machines
    config = resolve.experiment(job["config"])
    if job["resume"]:
        # The run keeps the name that it was begun under.
        config = replace(config, name=None)
    elif not (folder / "config.json").exists():
        # Also of a run that fails before its first round, the store can say what it was.
        write_json(folder / "config.json", resolve.to_json(config))

    def tell(line: Mapping[str, Any]) -> None:
        events.write(f"{line['round']}\n")

    experiment.run(config, folder, on_round=tell, overwrite=not job["resume"], resume=job["resume"])


def _note(reason: Path, text: str) -> None:
    """Write why the cell failed; where that cannot be written it goes into the output."""
    try:
        reason.write_text(text, encoding="utf-8")
    except OSError:  # a full disk
        sys.stderr.write(text)


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock would be missed at the end
        pass
    os._exit(STOPPED)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
