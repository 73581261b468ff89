"""Run a study and write its table into docs/RESULTS.md.

    python benchmarks/run_study.py main --jobs 2

Every run is a process of one thread, `--jobs` of them side by side. What a run came to is a line of
docs/results/STUDY.jsonl; runs that have one are not run again (`--again` forgets them), so a study
that was stopped goes on where it was, on any machine. `--seeds 1 2` runs these seeds alone; the
table is of the seeds that are whole, and says which are missing. `--check 12` runs twelve random
ones of the finished runs anew, and shows what comes out beside what did.
"""

import argparse
import os
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from pages import RESULTS, ROOT, commit, markdown, put_section, read_records, write_records
from studies import STUDIES, Cell, Study

from entity import experiment
from entity.api.progress import percent
from entity.config.fields import ExperimentConfig
from entity.engine.allocator import keep_pages
from entity.record.consistency import SHARE
from entity.record.window import LAST, Window, remark, span
from entity.results.floor import Judged, floors
from entity.setup import resolve
from entity.setup.identity import revisions

ROUGH = 10
"""Rounds at the beginning that the worst ASR leaves out."""

OPTIONAL = {
    "asr_worst": "worst ASR %",
    "floor": "floor %",
    "victim_accuracy": "on victims %",
    "dpr_of_all": "poisoned of all %",
}
"""What older lines lack; a matrix of it is made where any line has it."""

SLOWEST = ("drop", "flip")
"""Defenses whose runs come last."""

Key = tuple[tuple[str, ...], int]
"""A cell's label and a seed."""


def read_lines(path: Path) -> dict[Key, dict[str, Any]]:
    """Return the finished runs of a study."""
    return {(tuple(line["label"]), line["seed"]): line for line in read_records(path)}


def config_of(cell: Cell, seed: int) -> ExperimentConfig:
    """Return the experiment of one cell and seed."""
    fixed = [("seed", str(seed)), ("engine", "inline"), ("num_threads", "1")]
    tables = resolve.read(cell.path)
    config, _ = resolve.without_idle(tables, [*cell.overrides, *fixed])
    return config


LATER = {"effect_both": 2.0}
"""Settings that DROP+ got after some lines of its variants were written, with what they are by
default: what that changed, the revision says. (Of a plugin's settings every one counts, as nobody
else knows its defaults.)"""


def experiment_of(config: ExperimentConfig) -> str:
    """Return the identity of an experiment but for the code of its methods."""
    tables = resolve.to_json(config)
    args = tables["server"]["defense"]["defense_args"]
    for name, default in LATER.items():
        if args.get(name) == default:
            del args[name]
    return resolve.fingerprint(tables, code=False)


def run_one(cell: Cell, seed: int, folder: Path) -> dict[str, Any]:
    """Run one experiment and return its line."""
    config = config_of(cell, seed)
    result = experiment.run(config, folder, overwrite=True)
    summary = result.summary
    late = [line["asr"] for line in result.rounds if line["round"] > ROUGH and line.get("asr")]
    return {
        "label": list(cell.label),
        "seed": seed,
        "config_hash": summary["config_hash"],
        "commit": commit(),
        "revision": revisions(resolve.to_json(config))["revision"],
        "experiment": experiment_of(experiment.settled(config)),
        "rounds": summary["rounds"],
        "window": summary["window"],
        "mta": summary["mta"]["last10"],
        "asr": summary["asr"]["last10"],
        "asr_max": summary["asr_max_last10"],
        "asr_late_max": max(late, default=0.0) if summary["asr"]["last10"] is not None else None,
        "asr_worst": summary["consistency"]["worst_asr"],
        "tpr": finite(summary["detection"]["tpr"]),
        "fpr": finite(summary["detection"]["fpr"]),
        "fpr_most": most_refused(result.rounds),
        "victim_accuracy": summary["victim_accuracy"]["last10"],
        "dpr_of_all": summary["dpr"]["of_all"],
        "seconds": summary["seconds"]["total"],
        "seconds_aggregate": summary["seconds"]["aggregate"],
    }


def most_refused(rounds: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the share of its rounds in which the honest client was refused that was most often.

    None if nobody was honest. Who attacks in some rounds counts in the others.
    """
    came, refused = Counter[int](), Counter[int]()
    for each in rounds:
        honest = set(each["selected"]) - set(each["malicious"])
        came.update(honest)
        refused.update(honest & set(each["refused"]))
    return max((refused[client] / times for client, times in came.items()), default=None)


def finite(value: float) -> float | None:
    """Return None for NaN, which JSON does not have."""
    return None if value != value else value


def spread(values: list[float | None], unit: float = 100.0) -> str:
    """Return mean ± standard deviation over seeds, in percent; of one seed the value alone."""
    known = [unit * value for value in values if value is not None]
    if not known:
        return "-"
    return f"{fmean(known):.1f} ± {stdev(known):.1f}" if len(known) > 1 else f"{known[0]:.1f}"


def held(worst: list[float | None]) -> str:
    """Say in how many runs no ASR after round 10 was above 5 %, where that was recorded."""
    known = [value for value in worst if value is not None]
    return f"{sum(value <= 0.05 for value in known)} of {len(known)}" if known else "-"


def highest(found: list[dict[str, Any]], name: str) -> str:
    """Return the highest of a metric over the seeds, where a line has it."""
    known = [line[name] for line in found if line.get(name) is not None]
    return f"{100 * max(known):.0f}" if known else "-"


def optional(found: list[dict[str, Any]], name: str) -> str:
    """Return a metric that older lines lack, over the seeds of a matrix's cell."""
    if name in ("asr_worst", "floor"):
        return highest(found, name)
    return spread([line.get(name) for line in found])


def with_floors(study: Study, lines: dict[Key, dict[str, Any]]) -> dict[Key, dict[str, Any]]:
    """Return the lines with the ASR of their attack-free twins, where the study has those.

    A twin is judged by a trigger that nobody poisons with (`participation_strategy: never`).
    """
    keys = [
        (cell, seed, (cell.label, seed))
        for cell in study.cells
        for seed in study.seeds
        if (cell.label, seed) in lines
    ]
    found = floors(
        [
            Judged(resolve.to_json(config_of(cell, seed)), lines[key]["asr"])
            for cell, seed, key in keys
        ]
    )
    known = {key: floor for (*_, key), floor in zip(keys, found, strict=True)}
    return {key: {**line, "floor": known.get(key)} for key, line in lines.items()}


def columns(found: list[dict[str, Any]]) -> list[str]:
    """Return the figures of one cell over its seeds; "-" for what its lines do not have."""
    return [
        spread([line["mta"] for line in found]),
        spread([line["asr"] for line in found]),
        highest(found, "asr_max"),
        highest(found, "asr_worst"),
        spread([line.get("floor") for line in found]),
        spread([line.get("victim_accuracy") for line in found]),
        spread([line.get("dpr_of_all") for line in found]),
        held([line.get("asr_late_max") for line in found]),
        spread([line["tpr"] for line in found]),
        spread([line["fpr"] for line in found]),
        spread([line["seconds"] for line in found], unit=1.0),
    ]


def row_table(study: Study, lines: dict[Key, dict[str, Any]]) -> str:
    """Return a study as a table of one row a cell."""
    heads = [*study.columns, "MTA %", "ASR %", "ASR max %", "worst ASR %", "floor %"]
    heads += ["on victims %", "poisoned of all %"]
    heads += ["runs at most 5 %"]
    heads += ["attackers refused %", "honest refused %", "seconds"]
    rows = [
        [*cell.label, *columns([lines[cell.label, seed] for seed in study.seeds])]
        for cell in study.cells
    ]
    return markdown(heads, rows)


def matrix_table(study: Study, lines: dict[Key, dict[str, Any]]) -> str:
    """Return a study of (row, column) labels as matrices: MTA, ASR, and what its lines have."""
    across = list(dict.fromkeys(cell.label[1] for cell in study.cells))
    down = list(dict.fromkeys(cell.label[0] for cell in study.cells))
    parts: list[str] = []
    for metric in ("mta", "asr"):
        rows = [
            [
                row,
                *(spread([lines[(row, c), seed][metric] for seed in study.seeds]) for c in across),
            ]
            for row in down
        ]
        parts.append(markdown([f"{metric.upper()} %", *across], rows))
    for name, title in OPTIONAL.items():
        if not any(line.get(name) is not None for line in lines.values()):
            continue
        rows = [
            [row, *(optional([lines[(row, c), s] for s in study.seeds], name) for c in across)]
            for row in down
        ]
        parts.append(markdown([title, *across], rows))
    return "\n\n".join(parts)


def publish(
    name: str,
    study: Study,
    text: str,
    found: Sequence[dict[str, Any]],
    missing: Sequence[int] = (),
) -> None:
    """Put a study's table of these runs into docs/RESULTS.md.

    Parameters
    ----------
    name, study
        The study.
    text
        Its table.
    found
        The lines of its runs. Those of earlier versions do not say which curves rise.
    missing
        Seeds that are planned and not in the table.
    """
    left = f" (to come: {', '.join(map(str, missing))})" if missing else ""
    commits = sorted({line["commit"] for line in found})
    windows = [
        Window.read(line) or Window(min(LAST, line["rounds"]), line["rounds"], line["rounds"])
        for line in found
    ]
    names = [f"{', '.join(filter(None, line['label']))} (seed {line['seed']})" for line in found]
    rising = remark(zip(names, windows, strict=True))
    put_section(
        RESULTS,
        name,
        f"## {study.title}\n\n{study.about}{text}\n\n"
        f"Mean ± standard deviation over seeds {', '.join(map(str, study.seeds))}{left}; MTA "
        f"and ASR are means of the {span(windows)}, ASR max the highest of those rounds in any "
        f"seed, worst ASR the highest of all rounds whose MTA is at least {100 * SHARE:g} % of the "
        "run's last; the floor is the ASR of the same run without attack, on victims the accuracy "
        "on clean images of the victim class, and poisoned of all what share of a malicious "
        "client's samples is poisoned. Runs at most 5 %: those in which no round after the tenth "
        "was above that. "
        f"{rising}{' ' if rising else ''}"
        f"`python benchmarks/run_study.py {name}` at commit {', '.join(commits)}; every run as a "
        f"line in `docs/results/{name}.jsonl`." + f"\n\n{study.found}" * bool(study.found),
    )


def main() -> int:
    """Run the study named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "studies")
    parser.add_argument("--again", action="store_true", help="forget the finished runs")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="only these seeds")
    parser.add_argument("--only", metavar="LABEL", help="only cells with this label, as drop_plus")
    parser.add_argument("--check", type=int, metavar="N", help="run N finished ones anew, compare")
    parser.add_argument("--dry-run", action="store_true", help="only say what there is to do")
    options = parser.parse_args()
    name, study = options.study, STUDIES[options.study]
    seeds = options.seeds or study.seeds
    if unknown := sorted(set(seeds) - set(study.seeds)):
        parser.error(f"--seeds {unknown[0]}: {name} has {', '.join(map(str, study.seeds))}")
    store = RESULTS.parent / "results" / f"{name}.jsonl"
    if options.again:
        store.unlink(missing_ok=True)
    lines = read_lines(store)
    if options.check is not None:
        return check(study, lines, options.check, options.jobs)
    missing = unfinished(study, lines)
    todo = [
        (cell, seed)
        for cell, seed in missing
        if seed in seeds and (options.only is None or options.only in cell.label)
    ]
    todo.sort(key=lambda job: job[0].label[0] in SLOWEST)  # a partial study has most cells
    print(f"{len(todo)} of {len(study.cells) * len(seeds)} runs to do", flush=True)
    if options.dry_run:
        return 0
    failed = 0
    with ProcessPoolExecutor(options.jobs, initializer=keep_pages) as pool:
        futures = {
            pool.submit(run_one, cell, seed, options.out / name / folder_name(cell, seed)): (
                cell.label,
                seed,
            )
            for cell, seed in todo
        }
        for done, future in enumerate(as_completed(futures), 1):
            label, seed = futures[future]
            error = future.exception()
            failed += error is not None
            if error is None:
                lines[label, seed] = future.result()
                write_lines(store, study, lines)
            said = f"FAILED {error!r}" if error else columns([lines[label, seed]])
            print(f"{done}/{len(todo)} {' '.join(label)} seed {seed}: {said}", flush=True)
    if failed:
        return 1
    behind = {seed for _, seed in unfinished(study, lines)}
    whole = replace(study, seeds=tuple(seed for seed in study.seeds if seed not in behind))
    if not whole.seeds:
        print(f"No seed is whole yet: docs/RESULTS.md stays as it is. The runs are in {store}.")
        return 0
    shown = {key: line for key, line in lines.items() if key[1] in whole.seeds}
    text = (matrix_table if study.matrix else row_table)(whole, with_floors(whole, shown))
    publish(name, whole, text, list(shown.values()), sorted(behind))
    print(text)
    return 0


def unfinished(study: Study, lines: dict[Key, dict[str, Any]]) -> list[tuple[Cell, int]]:
    """Return the runs of a study that have no line, or one of another configuration."""
    return [
        (cell, seed)
        for seed in study.seeds
        for cell in study.cells
        if lines.get((cell.label, seed), {}).get("config_hash")
        != resolve.identity(experiment.settled(config_of(cell, seed)))
    ]


def check(study: Study, lines: dict[Key, dict[str, Any]], number: int, jobs: int) -> int:
    """Run some finished experiments anew and print old and new figures side by side."""
    all_of_them = product(study.cells, study.seeds)
    known = [(cell, seed) for cell, seed in all_of_them if (cell.label, seed) in lines]
    chosen = random.Random(number).sample(known, min(number, len(known)))
    with (
        ProcessPoolExecutor(jobs, initializer=keep_pages) as pool,
        tempfile.TemporaryDirectory() as at,
    ):
        futures = {
            pool.submit(run_one, cell, seed, Path(at, folder_name(cell, seed))): (cell, seed)
            for cell, seed in chosen
        }
        for future in as_completed(futures):
            cell, seed = futures[future]
            new, old = future.result(), lines[cell.label, seed]
            pairs = (
                f"{metric.upper()} {percent(old[metric])} -> {percent(new[metric])}"
                for metric in ("mta", "asr")
            )
            print(f"{' x '.join(cell.label)}, seed {seed}: {', '.join(pairs)}", flush=True)
    return 0


def folder_name(cell: Cell, seed: int) -> str:
    """Return the name of a run directory."""
    return re.sub(r"[^a-z0-9]+", "-", f"{' '.join(cell.label)} seed{seed}".lower()).strip("-")


def write_lines(path: Path, study: Study, lines: dict[Key, dict[str, Any]]) -> None:
    """Write the finished runs in the order of the study."""
    keys = [(cell.label, seed) for cell in study.cells for seed in study.seeds]
    write_records(path, [lines[key] for key in keys if key in lines])


if __name__ == "__main__":
    sys.exit(main())
