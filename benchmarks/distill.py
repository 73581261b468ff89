"""Distillation: the specification's plain loop against ours, on the same teachers and budget.

    python benchmarks/distill.py [--quick] [--data_root data]

Every situation is a real federation stopped where a distillation is due (`situations.py`); CIFAR-10
must lie in the data folder as an image folder and is left out otherwise. On each, and for several
seeds, `plain_maze.py` and `entity.distill` distil in turn, with one thread. Seconds are those of
the processor, so that other work on the machine counts little. The tables go into
docs/PERFORMANCE.md, one section for each situation.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

import plain_maze
import torch
from pages import PERFORMANCE, commit, hardware, markdown, put_section
from situations import FEDERATIONS, Situation, prepare
from torch import nn

from entity.distill import Ensemble, Labelled, MazeArgs, Networks, agreement, distill
from entity.engine.allocator import keep_pages
from entity.models import CRITICS, GENERATORS, Critic, Generator
from entity.seeding import Seeds, global_stream

NUM_SEED = 300
BATCH = 64

SAME = MazeArgs(loss_type="l1", batch_size=BATCH, num_seed=NUM_SEED)
"""The plain loop's own settings: ours with the same work to do."""
NARROW = replace(SAME, gen_width=16, dis_width=8)
"""The settings of the shipped mnist5k configuration."""
FAST = replace(NARROW, channels_last=True, iter_clone=1, cycles=10, plateau=0.02)
GENTLE = 0.02
"""Learning rate of the fast student that starts from the global model: 0.1 unlearns in the first
iterations what the student brought along, and needs the rest of the budget to mend that."""

OURS = {"same work": SAME, "narrow": NARROW, "fast": FAST}


@dataclass(frozen=True)
class Outcome:
    """One distillation."""

    seconds: float
    phases: Mapping[str, float]
    iterations: int
    mta: float
    asr: float
    agreement: float


def fresh(
    situation: Situation, seed: int, clone: bool, args: MazeArgs
) -> tuple[nn.Module, Generator, Critic]:
    """Return student, generator and critic; the same student whatever the settings."""
    seeds = Seeds(seed)
    roster = situation.roster
    student = (
        situation.module(situation.start)
        if clone
        else roster.fresh_model(seeds.generator("benchmark, student"))
    )
    channels, size = situation.clean.x.shape[1:3]
    with global_stream(seeds.generator("benchmark, generator")):
        generator = GENERATORS["conv3_gen"](
            channels, size, args.latent_dim, args.gen_width, roster.classes
        )
        critic = CRITICS["conv3_dis"](channels, size, args.dis_width)
    return student, generator, critic


def run(name: str, situation: Situation, seed: int, clone: bool, iterations: int) -> Outcome:
    """Distil once, by the plain loop or by one of ours."""
    args = replace(OURS.get(name, SAME), distill_iters=iterations)
    if name == "fast" and clone:
        args = replace(args, lr_clone=GENTLE)
    student, generator, critic = fresh(situation, seed, clone, args)
    teachers = [situation.module(state) for state in situation.teachers]
    clean, labels = situation.clean
    rng = Seeds(seed).generator("benchmark, distillation")
    ensemble = Ensemble(teachers)
    seeds, done = clean[:NUM_SEED], iterations
    began = time.process_time()
    if name == "plain":
        settings = plain_maze.Plain(iterations, BATCH)
        phases = plain_maze.distill(teachers, student, generator, critic, seeds, settings, rng)
    else:
        rest = Labelled(clean[NUM_SEED:], labels[NUM_SEED:])
        networks = Networks(ensemble, student, generator, critic)
        report = distill(networks, seeds, args, rng, holdout=rest)
        phases, done = report.seconds, report.iterations
    seconds = time.process_time() - began
    found = situation.judge(student)
    alike = agreement(student, ensemble, clean[NUM_SEED:])
    return Outcome(seconds, phases, done, found["mta"], found["asr"], alike)


def shares(outcomes: list[Outcome]) -> str:
    """Name the phases by their share of the time, the longest first."""
    total = sum(sum(one.phases.values()) for one in outcomes)
    names = dict.fromkeys(name for one in outcomes for name in one.phases)
    parts = {name: sum(one.phases.get(name, 0) for one in outcomes) / total for name in names}
    ranked = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in ranked if share >= 0.03)


def row(name: str, outcomes: list[Outcome], plain: list[Outcome]) -> list[str]:
    """Return a line of the table."""
    ratios = [mine.seconds / theirs.seconds for mine, theirs in zip(outcomes, plain, strict=True)]
    return [
        name,
        f"{median(one.seconds for one in outcomes):.1f}",
        f"{median(ratios):.2f}",
        f"{fmean(one.iterations for one in outcomes):.0f}",
        *(f"{100 * fmean(getattr(one, what) for one in outcomes):.1f}" for what in ("mta", "asr")),
        f"{100 * min(one.mta for one in outcomes):.1f}",
        f"{100 * max(one.asr for one in outcomes):.1f}",
        f"{100 * fmean(one.agreement for one in outcomes):.1f}",
        shares(outcomes),
    ]


HEADS = ["loop", "CPU s", "x plain", "iterations", "MTA %", "ASR %", "worst MTA", "worst ASR"]
HEADS += ["agreement %", "where the time goes"]


def compare(
    name: str, loops: list[str], seeds: int, iterations: int, data_root: Path
) -> tuple[str, str]:
    """Return title and table of one situation."""
    federation = FEDERATIONS[name]
    outcomes: dict[str, list[Outcome]] = {loop: [] for loop in loops}
    for seed in range(1, seeds + 1):
        situation = prepare(federation, seed, data_root)
        for loop in loops:
            one = run(loop, situation, seed, federation.clone, iterations)
            outcomes[loop].append(one)
            print(name, "seed", seed, loop, one, flush=True)
    rows = [row(loop, found, outcomes["plain"]) for loop, found in outcomes.items()]
    return federation.title, markdown(HEADS, rows)


def introduction() -> str:
    """Say what the tables compare."""
    return (
        "## Distillation: the specification's plain loop against ours\n\n"
        f"At most as many iterations of {BATCH} images as each table says, one thread; seconds are "
        "the median of the processor's, the ratio the median of ratios within a seed, MTA, ASR and "
        "agreement means over the seeds. All loops start from the same student and teachers. "
        "*Plain* is `benchmarks/plain_maze.py`: networks of the published width, teachers asked "
        "anew for every use. *Same work* is ours with the same settings; *narrow* has "
        f"{changed(SAME, NARROW)}; *fast* has besides {changed(NARROW, FAST)}, and "
        f"`lr_clone` {GENTLE} where the student starts from the global model. They were chosen by "
        "held-out data of the server, on other seeds than those of the tables."
    )


def changed(base: MazeArgs, other: MazeArgs) -> str:
    """Name the settings in which one loop differs from another."""
    before, after = vars(base), vars(other)
    return ", ".join(f"`{name}` {after[name]}" for name in after if after[name] != before[name])


def main() -> int:
    """Compare in every situation and publish the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_root", type=Path, default=Path("data"))
    parser.add_argument("--situations", nargs="+", choices=FEDERATIONS, default=list(FEDERATIONS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--quick", action="store_true", help="1 seed, 10 iterations, no page")
    options = parser.parse_args()
    keep_pages()
    torch.set_num_threads(1)
    seeds, iterations = (1, 10) if options.quick else (options.seeds, options.iterations)
    loops = ["plain", *OURS]
    if not options.quick:
        put_section(PERFORMANCE, "distill", introduction())
    for name in options.situations:
        if name == "images" and not (options.data_root / "cifar10-folder").exists():
            print(f"images: left out, {options.data_root} holds no cifar10-folder", flush=True)
            continue
        title, table = compare(name, loops, seeds, iterations, options.data_root)
        print(table, flush=True)
        if not options.quick:
            how = f"`python benchmarks/distill.py --situations {name} --seeds {seeds}`"
            put_section(
                PERFORMANCE,
                f"distill-{name}",
                f"### {title}\n\n{table}\n\n{how}, {iterations} iterations, at commit "
                f"{commit()}; {hardware()}.",
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
