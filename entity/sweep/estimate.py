"""How long experiments take, judged by finished ones of the same data set and model."""

from collections.abc import Iterable, Iterator
from statistics import fmean

from entity.config.fields import ExperimentConfig
from entity.record.json_fields import number
from entity.results.store import Run

Kind = tuple[object, ...]
"""Data set, model and more: runs that agree in these take about as long."""


class Pace:
    """Seconds for each epoch of a client, by what is known of runs that are alike.

    Rounds, clients in a round and local epochs are counted; so is the defense where one of its
    runs is finished, since distillation takes several times as long as an average.
    """

    def __init__(self) -> None:
        self.known: dict[Kind, list[float]] = {}

    def add(self, run: Run) -> None:
        """Learn from a run, if it is finished and says how long it took."""
        fields = run.fields
        work = 1.0
        for path in _WORK:
            value = number(fields, path)
            if value is None or value < 1:
                return
            work *= value
        seconds = run.facts["seconds"]
        if not run.finished or not isinstance(seconds, float):
            return
        defense, attack = run.facts["defense"], run.facts["attack"]
        for kind in _kinds(fields.get("dataset"), fields.get("model"), defense, attack):
            self.known.setdefault(kind, []).append(seconds / work)

    def seconds(self, config: ExperimentConfig) -> float | None:
        """Estimate an experiment; None where no run of its data set and model is known."""
        attack = config.client.attacked_by
        federation = config.federation
        work = federation.rounds * federation.round_size * config.client.num_epochs
        for kind in _kinds(config.dataset, config.model, config.server.defense.type, attack):
            if kind in self.known:
                return work * fmean(self.known[kind])
        return None

    def runs_like(self, config: ExperimentConfig) -> int:
        """Return how many finished runs of its data set and model are known."""
        return len(self.known.get((config.dataset, config.model), ()))


_WORK = ("federation.rounds", "federation.round_size", "client.num_epochs")


def _kinds(dataset: object, model: object, defense: object, attack: object) -> Iterator[Kind]:
    """Yield from what is most alike to what is alike enough."""
    yield dataset, model, defense, attack
    yield dataset, model, defense
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
