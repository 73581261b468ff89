"""`drop demo`: one attacked federation three times, without a defense, with DROPlet, with DROP."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from entity.config.shipped import shipped
from entity.experiment import Result
from entity.report import write_page
from entity.setup import resolve

DEFENSES = ("undefended", "droplet", "drop")
CALM = (("client.lr", "0.05"), ("seed", "2"))
"""Half the shipped learning rate. At that rate a processor whose sums differ in their last bits may
come to another outcome of the same seed."""

FAST = (
    ("defense_args.channels_last", "true"),
    ("iter_clone", "1"),
    ("cycles", "10"),
    ("plateau", "0.02"),
    ("lr_clone", "0.02"),
)
"""DROP's fast distillation, for a student that starts from the global model."""
GUARD = ("min_agreement", "0.5")
"""Keeps the average where a student has collapsed."""

Watch = Callable[[str, int], Callable[[Mapping[str, Any]], None]]
"""(title, rounds) -> what is called with every finished round."""


def run_demo(out: Path, one: Callable[[str, Any, Path], Result]) -> tuple[list[Result], Path]:
    """Run the three experiments and write their report.

    Parameters
    ----------
    out
        Folder for the three run directories and `report.html`.
    one
        Runs a (defense, config, folder); the command line shows progress around it.

    Returns
    -------
    tuple
        The three results, and the path of the report.
    """
    results: list[Result] = []
    for defense in DEFENSES:
        changes = [*CALM, *((*FAST, GUARD) if defense == "drop" else ())]
        config = resolve.experiment(resolve.read(shipped(f"mnist5k/{defense}")), changes)
        results.append(one(defense, replace(config, name=defense), out / defense))
    page = write_page(
        [out / defense for defense in DEFENSES], out / "report.html", title="DROP demo"
    )
    return results, page


__all__ = ["DEFENSES", "FAST", "run_demo"]
