"""Tiny federations that take a second, and their runs that nothing disturbs."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from same_bits import DISTILLS

from entity.cli import main
from entity.config.shipped import shipped
from robustness.victims import forked, operations_of

TINY = {
    "ADR": 0.1,
    "federation.size": 4,
    "number_of_malicious_clients": 1,
    "round_size": 3,
    "rounds": 4,
    "num_epochs": 1,
    "eval_every": 2,
    "held_out": 50,
    "engine": "inline",
    "num_threads": 1,
    "cuda": -1,
}
VARIANTS: dict[str, dict[str, object]] = {
    "undefended": {},
    "norm_clipping": {"streaming": "true", "c": 1.0},
    "droplet": {"attack.type": "neurotoxin"},
    "foolsgold": {"eval_every": 3},
    "crfl": {"attack.poison": "dba"},
    "drop": DISTILLS | {"K": 1, "distill_iters": 2, "num_seed": 20},
}
"""Defenses and attacks with and without a state from round to round, by the defense's name."""


class Variant(NamedTuple):
    """One tiny federation."""

    defense: str
    checkpoint_every: int
    seed: int = 1

    def words(self, folder: Path, **changes: object) -> list[str]:
        """Return the words of `drop` that begin its run in a folder."""
        fields: Mapping[str, object] = (
            TINY
            | VARIANTS[self.defense]
            | {"checkpoint_every": self.checkpoint_every, "seed": self.seed}
            | changes
        )
        words = ["run", "--config", str(shipped(f"mnist5k/{self.defense}")), "--out", str(folder)]
        for name, value in fields.items():
            words += [f"--{name}", str(value)]
        return [*words, "--overwrite", "--quiet"]

    def resume(self, folder: Path, **changes: object) -> list[str]:
        """Return the words that go on in a folder, or begin where nothing was begun."""
        if not (folder / "config.json").exists():
            return self.words(folder, **changes)
        return ["run", "--resume", str(folder), "--quiet"]


@dataclass(frozen=True)
class Undisturbed:
    """A run that was let to finish."""

    folder: Path
    operations: int
    """Operations on files that it took."""
    seconds: float


def drawn(figure: str, seed: int, below: Path) -> tuple[Random, Variant, Path]:
    """Return a case's random numbers, its run and the folder for it, whose parent is made.

    Parameters
    ----------
    figure
        Name of what is counted.
    seed
        Number of the case.
    below
        Where cases lie.
    """
    rng = Random(f"{figure} {seed}")
    variant = Variant(rng.choice([*VARIANTS]), rng.choice([1, 2]))
    folder = below / f"{figure.replace(' ', '-')}-{seed}" / "run"
    folder.parent.mkdir()
    return rng, variant, folder


class Undisturbeds:
    """Undisturbed runs below a folder, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[Variant, Undisturbed] = {}
        self._lock = threading.Lock()

    def of(self, variant: Variant) -> Undisturbed:
        """Return the run of a variant.

        Raises
        ------
        RuntimeError
            If it fails, without anything having been done to it.
        """
        with self._lock:
            if variant not in self._made:
                self._made[variant] = self._make(variant)
            return self._made[variant]

    def _make(self, variant: Variant) -> Undisturbed:
        folder = self.folder / "-".join(map(str, variant))
        began = time.monotonic()
        end = forked(main, [variant.words(folder)], folder)
        if end.code:
            raise RuntimeError(f"the undisturbed run of {variant} fails: {end}")
        return Undisturbed(folder, operations_of(folder), time.monotonic() - began)
