"""A Flower strategy whose process is killed and started again from its state folder."""

import hashlib
import json
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from entity.record.checkpoint import Checkpoints, pack
from robustness.folders import half_written
from robustness.tally import ENOUGH, Case, Tally
from robustness.victims import doom, forked, operations_of

DEFENSES = ("undefended", "droplet", "foolsgold", "crfl", "drop")
"""With and without a state from round to round."""

ROUNDS = 6
HIT = 0.5
"""Kills that must come before the end, for each case."""


class FlowerKills:
    """The figure.

    Parameters
    ----------
    folder
        Where state folders lie; that of a failed case stays.
    """

    in_process = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._undisturbed: dict[str, tuple[dict[str, Any], int, float]] = {}
        self._lock = threading.Lock()

    def case(self, seed: int) -> Case:
        """Kill one federation's server until it has had enough, and let it finish."""
        rng = Random(f"flower kills {seed}")
        name = rng.choice(DEFENSES)
        expected, operations, seconds = self.undisturbed(name)
        place = self.folder / str(seed)
        state = place / "state"
        place.mkdir()
        counts: Counter[str] = Counter()
        ways = [doom(rng, operations, seconds) for _ in range(rng.randrange(1, 4))]
        for way in [*ways, None]:
            end = forked(federate, (name, state), state, way)
            if end.code and not (way and end.stopped):
                return Case(counts, f"{name}, {way}: {end}")
            if broken := half_written(state):
                return Case(counts, f"{name}, {way}: {broken}")
            if way is not None:
                counts[f"{way.number.name} hit" if end.code else "signals came too late"] += 1
            if end.code == 0:
                break
        found = end_of(state)
        parts = [part for part in expected if found[part] != expected[part]]
        if parts:
            return Case(counts, f"{name}: differs from the undisturbed one in {', '.join(parts)}")
        shutil.rmtree(place)
        return Case(counts)

    def undisturbed(self, name: str) -> tuple[dict[str, Any], int, float]:
        """Return the end of a federation that nothing disturbs, its operations and its seconds."""
        with self._lock:
            if name not in self._undisturbed:
                place = self.folder / name
                place.mkdir()
                state, began = place / "state", time.monotonic()
                end = forked(federate, (name, state), state)
                if end.code:
                    raise RuntimeError(f"the undisturbed federation of {name} fails: {end}")
                seconds = time.monotonic() - began
                self._undisturbed[name] = end_of(state), operations_of(state), seconds
            return self._undisturbed[name]

    def shortfall(self, tally: Tally) -> str:
        """Say that too few kills hit."""
        hits = sum(count for name, count in tally.counts.items() if name.endswith(" hit"))
        if tally.cases >= ENOUGH and hits < HIT * tally.cases:
            return f"{hits} kills hit, and at least {HIT * tally.cases:.0f} should"
        return ""


def federate(name: str, state: Path) -> int:
    """Play a federation to its end, from where its state folder stands, and note the model."""
    from loopback import SETTINGS, Federation, Loopback

    from entity.flower import RobustStrategy

    federation = Federation()
    nodes = {node: federation.honest() for node in (2**63 + 11, 17, 5, 2**60, 40)}
    nodes[6] = federation.honest(0.5)
    strategy = RobustStrategy(
        federation.server(name, **SETTINGS.get(name, {})), nodes_per_round=5, state_folder=state
    )
    result = strategy.start(Loopback(nodes), federation.arrays, num_rounds=ROUNDS, timeout=0)
    digest = hashlib.sha256()
    for key, array in result.arrays.items():
        digest.update(key.encode() + array.data)
    (state.parent / "model.txt").write_text(digest.hexdigest())
    return 0


def end_of(state: Path) -> dict[str, Any]:
    """Return what must be the same at the end, without times."""
    lines = [json.loads(line) for line in (state / "rounds.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"], line["time"]
    found = Checkpoints(state, {}, 0).last(len(lines))
    assert found is not None
    tree, tensors = pack({**vars(found.snapshot), "state": found.snapshot.state._asdict()})
    return {
        "rounds": json.dumps(lines),
        "state": json.dumps(tree),
        "tensors": {name: tensor.tolist() for name, tensor in tensors.items()},
        "model": (state.parent / "model.txt").read_text(),
        "half-written files": [path.name for path in state.rglob("*.part")],
    }
