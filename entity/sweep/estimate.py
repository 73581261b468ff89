"""How long experiments take, judged by finished ones of the same data set and model."""

from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Any

from entity.config import schema
from entity.config.fields import ExperimentConfig
from entity.config.schema import ConfigError
from entity.defenses import DEFENSES
from entity.distill.settings import StudentArgs
from entity.record.json_fields import mapping, number
from entity.results.store import Run

Kind = tuple[object, ...]
"""Data set, model and more: runs that agree in these take about as long."""


class Pace:
    """Seconds for an epoch on all data and for each distillation, by runs that are alike.

    Rounds, clients in a round, their data and epochs are counted, and apart from them distillations
    of a run, by their budget: how often and how long a defense distils differs from cell to cell,
    and takes several times as long as an average. A run of another defense tells how long training
    and evaluation take, which they share; FLIP's clients train in a way of their own.
    """

    def __init__(self) -> None:
        self.known: dict[Kind, list[float]] = {}
        self.distilling: dict[Kind, list[float]] = {}
        """Seconds for each nominal query of a distillation."""

    def add(self, run: Run) -> None:
        """Learn from a run, if it is finished and says how long it took."""
        fields = run.fields
        work = 1.0
        for path in _WORK:
            value = number(fields, path)
            if value is None or value < 1:
                return
            work *= value
        size, share = number(fields, _SIZE), number(fields, _SHARE)
        if not size or not share:
            return
        work *= share / size
        seconds = run.facts["seconds"]
        if not run.finished or not isinstance(seconds, float):
            return
        distilled = sum(run.seconds[each] for each in run.seconds if each.startswith(_DISTILLED))
        shared = seconds - max(distilled, run.seconds.get("aggregate", 0.0))
        dataset, model = fields.get("dataset"), fields.get("model")
        kinds = _kinds(dataset, model, run.facts["defense"], run.facts["attack"])
        for kind in kinds:
            spent = shared if kind == (dataset, model) else seconds - distilled
            self.known.setdefault(kind, []).append(max(0.0, spent) / work)
        args = _args_of(run)
        queries = _queries(args, int(number(fields, "federation.rounds") or 0))
        if distilled and queries:
            kind = (dataset, model, getattr(args, "stealing_method", None))
            self.distilling.setdefault(kind, []).append(distilled / queries)

    def seconds(self, config: ExperimentConfig) -> float | None:
        """Estimate an experiment; None where no run tells how long it trains or distils."""
        args, federation = config.server.defense.defense_args, config.federation
        work = federation.rounds * federation.round_size * config.client.num_epochs
        work *= config.client.ADR / federation.size
        for kind in _kinds_of(config):
            if kind in self.known:
                training = work * fmean(self.known[kind])
                break
        else:
            return None
        if not (queries := _queries(args, federation.rounds)):
            return training
        rates = self.distilling.get((config.dataset, config.model, args.stealing_method))
        return training + queries * fmean(rates) if rates else None

    def runs_like(self, config: ExperimentConfig) -> int:
        """Return how many finished runs are known by which it can be judged."""
        return len(self.known.get(widest(config), ()))


OWN_TRAINING = ("flip",)
"""Defenses whose clients train in a way of their own, which takes many times as long."""

_WORK = ("federation.rounds", "federation.round_size", "client.num_epochs")
_SIZE, _SHARE = "federation.size", "client.ADR"
"""Each client has as much data as a share of all, by the number of clients."""
_DISTILLED = "aggregate_distill"
"""What the phases of a distillation begin with in a record."""


def _args_of(run: Run) -> Any:
    """Return the settings of a recorded run's defense; None where they cannot be read."""
    defense = mapping(mapping(run.config.get("server")).get("defense"))
    server = DEFENSES.get(str(defense.get("type")))
    try:
        return server and schema.load(server.hyperparameters, defense.get("defense_args") or {})
    except ConfigError:  # of another version
        return None


def _queries(args: Any, rounds: int) -> float:
    """Return the nominal queries of all distillations of a run; 0 where it does not distil."""
    if not isinstance(args, StudentArgs):
        return 0.0
    return float(args.times(rounds) * args.iterations * args.queries_per_iteration)


def widest(config: ExperimentConfig) -> Kind:
    """Return what all runs share by which an experiment can be judged."""
    return list(_kinds_of(config))[-1]


def _kinds_of(config: ExperimentConfig) -> Iterator[Kind]:
    defense, attack = config.server.defense.type, config.client.attacked_by
    return _kinds(config.dataset, config.model, defense, attack)


def _kinds(dataset: object, model: object, defense: object, attack: object) -> Iterator[Kind]:
    """Yield from what is most alike to what is alike enough."""
    yield dataset, model, defense, attack
    yield dataset, model, defense
    if defense not in OWN_TRAINING:
        yield dataset, model


def makespan(seconds: Iterable[float], jobs: int) -> float:
    """Return how long jobs take side by side: an even share, and no less than the longest.

    Examples
    --------
    >>> makespan([10, 10, 10, 10], jobs=2), makespan([100, 10], jobs=2)
    (20.0, 100.0)
    """
    seconds = list(seconds)
    return float(max([sum(seconds) / jobs, *seconds], default=0.0))
