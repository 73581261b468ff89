"""One experiment, from a config to a record: the federated loop."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from entity.client import Broadcast
from entity.client.poison import AdaptivePoison
from entity.config.fields import ExperimentConfig
from entity.config.paths import user_path
from entity.engine import Engine, check_engine, cores, open_engine
from entity.engine.local_training import threads
from entity.engine.main_module import refuse_second_start
from entity.federation import select
from entity.layout import ModelState
from entity.record.checkpoint import Snapshot
from entity.record.json_fields import mapping, number
from entity.record.rounds import Round
from entity.server import Stream, admit
from entity.setup.assembly import World, assemble, is_evaluated
from entity.setup.certificate import certificate
from entity.setup.example import example
from entity.setup.identity import default_name
from entity.setup.journal import Journal
from entity.setup.load import load
from entity.setup.resume import continued, finished_run
from entity.trackers import require
from entity.updates import Aggregation, Stopwatch

log = logging.getLogger("entity")

OnRound = Callable[[Mapping[str, Any]], None]
"""Called with the line of every finished round."""


@dataclass(frozen=True, repr=False)
class Result:
    """The outcome of an experiment."""

    config: ExperimentConfig
    folder: Path | None
    rounds: list[dict[str, Any]]
    """Lines of `rounds.jsonl`."""
    summary: dict[str, Any]
    state: ModelState | None
    """The final global model; None for a run that was finished before and has no checkpoint."""

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.summary.get("name") or default_name(self.config))

    def __repr__(self) -> str:
        summary = self.summary
        means = [number(mapping(summary.get(name)), "last10") for name in ("mta", "asr")]
        worst = number(mapping(summary.get("consistency")), "worst_asr")
        mta, asr, worst_asr = ("-" if each is None else f"{each:.1%}" for each in (*means, worst))
        seconds = number(mapping(summary.get("seconds")), "total") or 0.0
        return (
            f"{self.name}: MTA {mta}, ASR {asr}, "
            f"worst ASR {worst_asr}, {summary.get('refusals', 0)} refused, {seconds:.0f} s"
        )


def run(
    config: ExperimentConfig | str | Path,
    folder: Path | str | None = None,
    *,
    on_round: OnRound = lambda line: None,
    overwrite: bool = False,
    resume: bool = False,
) -> Result:
    """Run one experiment.

    Parameters
    ----------
    config
        A checked config, as `load` returns it, or what `load` takes: a file, or the name of a
        shipped configuration.
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
    CannotGoOn
        If the disk is full, or all workers died; the run can go on with `resume`.
    """
    refuse_second_start()
    folder = None if folder is None else user_path(folder)
    config = load(config)
    if resume:
        config = continued(config, folder)
        if (done := finished_run(config, folder)) is not None:
            return Result(config, folder, *done)
    config = settled(config)
    require(config.settings.trackers, folder)
    check_engine(config.settings)
    journal = Journal(folder, overwrite=overwrite, resume=resume)
    with threads(config.settings.num_threads), journal:
        world = assemble(config)
        journal.check()
        with open_engine(world.roster) as engine:  # which may be refused: nothing is written yet
            state = journal.begin(world)
            engine.memory.update(state.clients)
            while state.round < config.federation.rounds:
                state, played = play_round(world, engine, state)
                on_round(journal.keep(state, played))
        _warn_if_nobody_poisoned(world, journal.rounds)
        model = world.model(state.state)
        shown = None if folder is None else example(world, model, state.trigger)
        journal.finish(model.state_dict(), certificate(world, model), shown)
    return Result(config, folder, journal.rounds, journal.summary, state.state)


def _warn_if_nobody_poisoned(world: World, rounds: Sequence[Mapping[str, Any]]) -> None:
    """Warn of a run under attack that had none, as what the attackers learn was never ready."""
    attack, poison = world.config.client.attack, world.roster.poison
    if attack is None or not attack.takes_place or not isinstance(poison, AdaptivePoison):
        return
    if world.roster.malicious and not any(line["n_malicious"] for line in rounds):
        log.warning(
            "client.attack.poison = %s: was good enough in none of %d rounds: nobody poisoned",
            *(attack.poison, len(rounds)),
        )


def play_round(world: World, engine: Engine, before: Snapshot) -> tuple[Snapshot, Round]:
    """Select clients, train them, defend, judge; return the new state and what happened.

    Parameters
    ----------
    world
        Clients, defense and judge.
    engine
        Trains the clients.
    before
        The state after the round before.
    """
    config, roster, number = world.config, world.roster, before.round + 1
    watch = Stopwatch()
    selected = select(config.federation, set(roster.malicious), number, roster.seeds)
    with watch("train"):
        broadcast = Broadcast(number, before.state, before.previous, before.trigger)
        broadcast = roster.adapt(broadcast, roster.colluders(selected, number))
    poisoned = roster.poisoning(selected, number)
    kept = before.colluders
    if config.settings.streaming:
        answer = _stream(world, engine, broadcast, selected, watch)
    else:
        with watch("train"):
            updates = engine.train(broadcast, selected)
            updates, kept = roster.collude(updates, poisoned, broadcast, before.colluders)
        with watch("aggregate"):
            answer = admit(world.server, replace(updates, asked=len(selected)))
    scores: dict[str, float] = {}
    if is_evaluated(config, number):
        with watch("evaluate"):
            scores = world.evaluate(answer.state, broadcast.trigger)
    after = Snapshot(
        number,
        answer.state,
        previous=before.state.weights,
        server=world.server.snapshot(),
        clients=dict(engine.memory),
        trigger=broadcast.trigger,
        colluders=kept,
    )
    return after, Round(number, selected, poisoned, answer, scores, watch.seconds)


def _stream(
    world: World,
    engine: Engine,
    broadcast: Broadcast,
    selected: tuple[int, ...],
    watch: Stopwatch,
) -> Aggregation:
    """Train and aggregate at once, so that only a few models are in memory.

    Adding up an update counts as training; its share of that time is recorded as a phase, too.
    """
    sizes = world.roster.num_samples(selected).tolist()
    stream = Stream(world.server, broadcast.round, broadcast.state)
    with watch("train"):
        engine.stream(
            broadcast,
            selected,
            lambda row, model: stream.accept(selected[row], model, sizes[row]),
        )
    with watch("aggregate"):
        return stream.finish()


def settled(config: ExperimentConfig) -> ExperimentConfig:
    """Fill in what depends on the machine, so that the record says what was really used."""
    settings = replace(config.settings, num_threads=config.settings.num_threads or cores())
    return replace(config, settings=settings, name=config.name or default_name(config))


__all__ = ["Result", "play_round", "run", "settled"]
