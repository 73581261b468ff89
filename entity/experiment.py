"""One experiment, from a config to a record: the federated loop."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from entity import __version__
from entity.client import Broadcast
from entity.client.poison import AdaptivePoison, Memory
from entity.config.fields import ExperimentConfig
from entity.config.schema import ConfigError
from entity.dataset import Split
from entity.engine import Engine, check_engine, cores, open_engine
from entity.federation import select
from entity.layout import ModelState
from entity.metrics import Detection, Judge
from entity.record.checkpoint import Checkpoints, Snapshot
from entity.record.directory import (
    Record,
    locked,
    peak_memory_mb,
    read_summary,
    tail_statistics,
    total_seconds,
    whole_lines,
)
from entity.seeding import Seeds
from entity.server import Server, Stream, admit
from entity.setup.assembly import initial_state, open_judge, open_server, recruit
from entity.setup.resolve import default_name, identity, to_json
from entity.setup.resume import continued, origin, take_up
from entity.setup.roster import Roster
from entity.trackers import Trackers, require
from entity.updates import Aggregation, Stopwatch

log = logging.getLogger("entity")

OnRound = Callable[[Mapping[str, Any]], None]
"""Called with the line of every finished round."""


@dataclass(frozen=True)
class Result:
    """What an experiment came to."""

    config: ExperimentConfig
    folder: Path | None
    rounds: list[dict[str, Any]]
    summary: dict[str, Any]
    state: ModelState | None
    """The final global model; None for a run that was finished before and has no checkpoint."""


def run(
    config: ExperimentConfig,
    folder: Path | None = None,
    *,
    on_round: OnRound = lambda line: None,
    overwrite: bool = False,
    resume: bool = False,
) -> Result:
    """Run one experiment.

    Parameters
    ----------
    config
        A checked config, as `resolve.experiment` returns it.
    folder
        Run directory to write; None keeps the record in memory.
    on_round
        Called after every round, for progress.
    overwrite
        Replace a run that the folder already holds.
    resume
        Go on with the run that the folder holds, from its last checkpoint, and end as if it had
        never been stopped. The config is the run's own (`resume.recorded` reads it), but for
        runtime settings and a larger number of rounds. A finished run is only read.

    Raises
    ------
    ConfigError
        If the data or a tracker's package is missing, or the folder cannot be used; nothing is
        left behind then.
    """
    if resume:
        if folder is None:
            raise ConfigError("resume: needs the folder of the run.")
        config = continued(config, folder)
        if (done := _finished(config, folder)) is not None:
            return done
    require(config.settings.trackers, folder)
    config = settled(config)
    check_engine(config.settings)
    known_as = identity(config)
    seeds = Seeds(config.settings.seed)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.settings.num_threads)
    try:
        split, roster = recruit(config, seeds)
        server = open_server(config, split, roster)
        judge = open_judge(config, split, roster)
        with locked(folder), Trackers(config.settings.trackers, folder) as trackers:
            record, checkpoints, kept = open_record(config, folder, split, overwrite, resume)
            trackers.start()
            detection = Detection() if kept is None else Detection(**kept.detection)
            try:
                if kept is None:
                    kept = Snapshot(0, initial_state(config, roster, server))
                else:
                    server.load_state_dict(kept.server)
                state, previous, trigger = kept.state, kept.previous, kept.trigger
                evaluated = roster.new_model()
                last = config.federation.rounds
                with open_engine(roster) as engine:
                    engine.memory.update(kept.clients)
                    for number in range(kept.round + 1, last + 1):
                        watch = Stopwatch()
                        selected = select(config.federation, set(roster.malicious), number, seeds)
                        poisoned = roster.poisoning(selected, number)
                        with watch("train"):
                            broadcast = Broadcast(number, state, previous, trigger)
                            broadcast = roster.adapt(broadcast, poisoned)
                        trigger = broadcast.trigger
                        if config.settings.streaming:
                            answer = _stream(engine, server, roster, broadcast, selected, watch)
                        else:
                            with watch("train"):
                                updates = engine.train(broadcast, selected)
                                updates = roster.conspire(updates, poisoned)
                            with watch("aggregate"):
                                answer = admit(server, updates)
                        previous, state = state.weights, answer.state
                        scores: dict[str, float] = {"mta": math.nan, "asr": math.nan}
                        if number % config.settings.eval_every == 0 or number == last:
                            with watch("evaluate"):
                                roster.spec.load(evaluated, state)
                                _arm(judge, roster, split, trigger)
                                scores = judge(evaluated)
                        detection.add(answer.verdicts, poisoned)
                        line = _line(number, scores, selected, poisoned, answer, watch)
                        record.append(line, answer.artifacts)
                        checkpoints.take(
                            Snapshot(
                                number,
                                state,
                                previous,
                                server=server.state_dict(),
                                clients=dict(engine.memory),
                                trigger=trigger,
                                detection=asdict(detection),
                            )
                        )
                        record.summarise(_summary(config, known_as, record, detection, "running"))
                        trackers.wake()
                        on_round(record.rounds[-1])
                checkpoints.flush()
                roster.spec.load(evaluated, state)
                record.keep_model(evaluated.state_dict(), known_as)
            except BaseException:
                try:
                    checkpoints.flush()  # of the last finished round
                finally:
                    record.summarise(_summary(config, known_as, record, detection, "interrupted"))
                raise
            summary = _summary(config, known_as, record, detection, "finished")
            record.summarise(summary)
            return Result(config, folder, record.rounds, summary, state)
    finally:
        torch.set_num_threads(threads_before)


def open_record(
    config: ExperimentConfig, folder: Path | None, split: Split, overwrite: bool, resume: bool
) -> tuple[Record, Checkpoints, Snapshot | None]:
    """Begin the record of a run, or take up the one that the folder holds.

    Returns
    -------
    tuple
        The record, its checkpoints, and where the run stands; None is before round 1.
    """
    whence = {} if folder is None else origin(config, split.digest())
    checkpoints = Checkpoints(folder, whence, config.settings.checkpoint_every)
    kept = take_up(checkpoints, folder) if resume and folder is not None else None
    done = 0 if kept is None else kept.round
    record = Record(folder, to_json(config), overwrite=overwrite, keep=done if resume else None)
    return record, checkpoints, kept


def _finished(config: ExperimentConfig, folder: Path) -> Result | None:
    """Return the result of a run that has all its rounds, as its folder holds it."""
    rounds = [json.loads(line) for line in whole_lines(folder)]
    summary = read_summary(folder)
    if summary.get("state") != "finished" or len(rounds) != config.federation.rounds:
        return None
    log.info("%s is finished: it has all of its %d rounds", folder, len(rounds))
    found = Checkpoints(folder, {}, 0).last(len(rounds))
    kept = None if found is None or found.snapshot.round < len(rounds) else found.snapshot.state
    return Result(config, folder, rounds, summary, kept)


def settled(config: ExperimentConfig) -> ExperimentConfig:
    """Fill in what depends on the machine, so that the record says what was really used."""
    settings = replace(config.settings, num_threads=config.settings.num_threads or cores())
    return replace(config, settings=settings, name=config.name or default_name(config))


def _stream(
    engine: Engine,
    server: Server[Any],
    roster: Roster,
    broadcast: Broadcast,
    selected: tuple[int, ...],
    watch: Stopwatch,
) -> Aggregation:
    """Train and aggregate a round at once, holding a few models instead of all of them.

    Adding up an update counts as training, and is also told apart as a phase of its own.
    """
    sizes = roster.num_samples(selected).tolist()
    stream = Stream(server, broadcast.round, broadcast.state)
    with watch("train"):
        engine.stream(
            broadcast,
            selected,
            lambda row, model: stream.accept(selected[row], model, sizes[row]),
        )
    with watch("aggregate"):
        return stream.finish()


def _arm(judge: Judge, roster: Roster, split: Split, trigger: Memory) -> None:
    """Judge an adaptive poison by what the colluders have learnt so far."""
    if isinstance(roster.poison, AdaptivePoison):
        roster.poison.recall(trigger)
        judge.attack_with(roster.poison.test_set(split.test))


def _line(
    number: int,
    scores: Mapping[str, float],
    selected: tuple[int, ...],
    poisoned: frozenset[int],
    answer: Aggregation,
    watch: Stopwatch,
) -> dict[str, Any]:
    """Return a round's line of rounds.jsonl."""
    verdicts = answer.verdicts
    phases = {f"aggregate_{phase}": seconds for phase, seconds in answer.seconds.items()}
    return {
        "round": number,
        "mta": scores["mta"],
        "asr": scores["asr"],
        "metrics": {name: value for name, value in scores.items() if name not in ("mta", "asr")},
        "n_selected": len(selected),
        "n_malicious": len(poisoned),
        "selected": list(selected),
        "malicious": sorted(poisoned),
        "accepted": [verdict.client for verdict in verdicts if verdict.accepted],
        "refused": [verdict.client for verdict in verdicts if not verdict.accepted],
        "reasons": {verdict.client: verdict.reason for verdict in verdicts if verdict.reason},
        "weights": {verdict.client: verdict.weight for verdict in verdicts},
        "scores": {v.client: v.score for v in verdicts if v.score is not None},
        "seconds": {k: round(v, 4) for k, v in {**watch.seconds, **phases}.items()},
        "diagnostics": dict(answer.diagnostics),
    }


def _summary(
    config: ExperimentConfig, known_as: str, record: Record, detection: Detection, state: str
) -> dict[str, Any]:
    rounds = record.rounds
    seconds = total_seconds(rounds)
    main = ("train", "aggregate", "evaluate")
    return {
        "name": config.name,
        "state": state,
        "dataset": config.dataset,
        "model": config.model,
        "attack": config.client.attack.type if config.client.attack else None,
        "defense": config.server.defense.type,
        "seed": config.settings.seed,
        "config_hash": known_as,
        "version": __version__,
        "rounds": len(rounds),
        "mta": tail_statistics(rounds, "mta"),
        "asr": tail_statistics(rounds, "asr"),
        "asr_max_last10": tail_statistics(rounds, "asr")["max_last10"],
        "detection": {
            "tpr": detection.tpr,
            "fpr": detection.fpr,
            "precision": detection.precision,
            "f1": detection.f1,
        },
        "refusals": detection.caught + detection.wronged,
        "seconds": {**seconds, "total": round(sum(seconds.get(name, 0.0) for name in main), 3)},
        "peak_memory_mb": max(peak_memory_mb(), record.before.get("peak_memory_mb", 0)),
        "worker_peak_memory_mb": max(
            peak_memory_mb(of_workers=True), record.before.get("worker_peak_memory_mb", 0)
        ),
    }


__all__ = ["Result", "run", "settled"]
