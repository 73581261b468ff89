"""What a graphics card makes of this project, unattended and in under nine minutes.

    python benchmarks/gpu.py --data cifar10-folder.tar.gz --out runs/gpu
    python benchmarks/gpu.py --out runs/gpu --parts cells --cells drop --seconds 560
    python benchmarks/gpu.py --out runs/gpu --page
    python benchmarks/gpu.py --tiny --out /tmp/gpu

In order: what machine it is; whether the engines, bfloat16 and channels_last compute what a CPU
does, and whether anything waits for the card inside local training; samples a second of ResNet-18
beside a bare loop's and the card's limit; seconds a round of `cifar10/undefended.json`; seconds of
one distillation at the paper's budget; then rounds of the paper's table III (C4, DPR 1.25 %) for as
long as there is time. A part has a share of the seconds and is cut off when it is over. Findings
are lines of OUT/ledger.jsonl as soon as they are known; the cells are runs that a later call with
the same OUT goes on with. `--page` writes what the ledger holds into docs/PERFORMANCE.md.

The data is CIFAR-10 as an image folder (train/<class>/*, test/<class>/*; valid is trained on, too)
or a tar archive of one. Without it a random stand-in shows what rounds and distillations cost, and
there are no cells. Nothing is fetched. `--tiny` tries all of it on a CPU.
"""

import argparse
import io
import os
import platform
import re
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from card.budget import Budget, TimeUp
from card.cells import PAPER as CELLS
from card.cells import play
from card.checks import CHECKS
from card.data import use_cifar10
from card.distillation import distillations
from card.ledger import Ledger
from card.page import NOT_REACHED, section, undistilled
from card.rounds import rounds
from card.scene import PAPER, TINY, Scale
from card.speed import line_of, speeds
from pages import PERFORMANCE, commit, put_section
from random_images import register_random_images

from entity.config.schema import ConfigError
from entity.dataset import DATASETS
from entity.dataset.cifar10 import CIFAR10

SHARES = {"checks": 90, "speed": 90, "round": 80, "distillation": 100, "cells": 1e9}
"""Seconds of each part, in order; the last one takes what is left."""


@dataclass(frozen=True)
class Call:
    """What one call has to do, and with what."""

    options: argparse.Namespace
    device: torch.device
    scale: Scale
    budget: Budget
    ledger: Ledger
    data: str
    """What `cifar10` is, in words; empty for a random stand-in."""


def environment(call: Call) -> None:
    """Write down the machine."""
    device = call.device
    properties = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    version = Path("/proc/driver/nvidia/version")
    driver = re.search(r"\d+\.\d+[.\d]*", version.read_text() if version.exists() else "")
    cudnn = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    call.ledger.add(
        "environment",
        card=properties.name if properties else "no card, a CPU",
        memory=(properties.total_memory if properties else 0) / 2**30,
        driver=driver[0] if driver else "unknown",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=cudnn,
        python=platform.python_version(),
        commit=commit() if shutil.which("git") else "unknown",
        date=datetime.now(UTC).date().isoformat(),
        data=call.data or "random images in place of CIFAR-10",
    )


def checks(call: Call) -> None:
    """Look whether the card computes what a CPU does."""
    for check in CHECKS:
        try:
            for found in check(call.device):
                call.ledger.add("checks", **asdict(found), passed=found.passed)
                print(f"  {found}")
        except Exception as error:  # one that cannot be made is a finding, too
            traceback.print_exc()
            call.ledger.add(
                "checks",
                check=check.__name__.replace("_", " "),
                value=float("inf"),
                most=0.0,
                unit="",
                remark=f"{type(error).__name__}: {error}".splitlines()[0][:200],
                passed=False,
            )


def speed(call: Call) -> None:
    """Measure samples a second."""
    for found in speeds(call.device, call.scale):
        call.ledger.add("speed", **line_of(found))
        print(f"  batch {found.batch}, {found.precision}: {found.ours:,.0f} a second, "
              f"{found.share:.0%} of the bare loop")  # fmt: skip


def a_round(call: Call) -> None:
    """Measure seconds a round."""
    for found in rounds(call.device, call.budget, call.options.tiny):
        call.ledger.add("round", **found)
        print(f"  {found['way']}: {found['seconds']:.2f} s a round")


def distillation(call: Call) -> None:
    """Measure seconds of a distillation."""
    for found in distillations(call.device, call.scale, call.budget, call.options.tiny):
        call.ledger.add("distillation", **found)
        print(f"  {found['way']}: {found['whole']:.0f} s for all of its {found['of']} iterations")


def cells(call: Call) -> None:
    """Go on with the cells of table III, in equal shares of the time."""
    options = call.options
    if not call.data and not options.tiny:
        print("  left out: there is no data (--data)")
        return
    for number, name in enumerate(options.cells):
        half = options.bf16
        with call.budget.share(call.budget.left / (len(options.cells) - number)):
            found = play(
                name,
                call.device,
                options.out / "cells" / (name + ("-bfloat16" if half else "")),
                call.budget,
                half=half,
                tiny=options.tiny,
                distillation=expected(call.ledger, half),
            )
            call.ledger.add("cells", **found)
            gap = NOT_REACHED if undistilled(found) else ""
            print(f"  {name}: {found['rounds']} of {found['of']} rounds ({found['stopped']}){gap}")


def expected(ledger: Ledger, half: bool) -> float:
    """Return the seconds that a distillation was last found to take; 0 if nobody has looked.

    Parameters
    ----------
    ledger
        The findings.
    half
        In bfloat16, but in the usual layout: longer than what was measured with both.
    """
    ways = [line for line in ledger.lines("distillation") if ("bfloat16" in line["way"]) == half]
    return max((line["whole"] for line in ways[-2:]), default=0.0)


PARTS: dict[str, Callable[[Call], None]] = {
    "checks": checks,
    "speed": speed,
    "round": a_round,
    "distillation": distillation,
    "cells": cells,
}


def carry_out(call: Call) -> bool:
    """Do the parts in their order, each within its share; return whether all of them ran."""
    well = True
    environment(call)
    for name, part in PARTS.items():
        if name not in call.options.parts:
            continue
        seconds = call.budget.left if call.options.tiny else SHARES[name]
        print(f"{name}: {min(seconds, call.budget.left):.0f} s", flush=True)
        how = "cut off when its time was over"
        try:
            with call.budget.share(seconds):
                part(call)
                how = "done"
        except TimeUp:
            pass
        except Exception as error:
            traceback.print_exc()
            how = f"failed ({type(error).__name__}: {error})".splitlines()[0][:300]
            well = False
        call.ledger.add("ended", name=name, how=how)
        if call.budget.left <= 0:
            break
    (call.options.out / "page.md").write_text(section(call.ledger) + "\n")
    return well


def device_of(options: argparse.Namespace) -> torch.device | None:
    """Return the device; None where a card is wanted and there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", options.cuda)
    return torch.device("cpu") if options.tiny else None


def prepare(options: argparse.Namespace) -> str:
    """Make `cifar10` mean the given images, or random ones; return what they are, in words."""
    if options.data is not None:
        return use_cifar10(options.data, options.out)
    if (options.out / "data").is_dir():  # of an earlier call
        return use_cifar10(options.out / "data", options.out)
    size = 1_000 if options.tiny else 50_000
    test = 100 if options.tiny else 10_000
    stand_in = DATASETS[register_random_images(3, CIFAR10.size, size, test)]
    DATASETS["cifar10"] = replace(CIFAR10, read=stand_in.read, files=None, counts=None)
    return ""


def main() -> int:
    """Read the command line, and do what it says."""
    summary, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="ledger, runs, unpacked data")
    parser.add_argument("--data", type=Path, help="CIFAR-10 as an image folder or archive")
    parser.add_argument("--seconds", type=float, default=520, help="of the whole call")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--bf16", action="store_true", help="cells in bfloat16, as runs apart")
    parser.add_argument("--cuda", type=int, default=0, help="number of the card")
    parser.add_argument("--tiny", action="store_true", help="small sizes, and a CPU will do")
    parser.add_argument("--page", action="store_true", help="only write docs/PERFORMANCE.md")
    options = parser.parse_args()
    ledger = Ledger(options.out / "ledger.jsonl")
    if options.page:
        if not any(line["memory"] for line in ledger.lines("environment")):
            parser.error(f"{ledger.path}: holds nothing that was found on a card")
        put_section(PERFORMANCE, "gpu", section(ledger))
        return 0
    budget = Budget(options.seconds)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # nobody may be there to see it killed
    device = device_of(options)
    if device is None:
        parser.error("there is no CUDA card here; --tiny tries the script on a CPU")
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        data = prepare(options)
    except ConfigError as error:
        parser.error(str(error))
    scale = TINY if options.tiny else PAPER
    return int(not carry_out(Call(options, device, scale, budget, ledger, data)))


if __name__ == "__main__":
    sys.exit(main())
