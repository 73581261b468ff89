"""What the engines share whose workers are other processes: a schedule for each round."""

from abc import abstractmethod
from collections.abc import Callable

from entity.client import Broadcast
from entity.engine.contract import Engine, NoWorkers
from entity.engine.schedule import Schedule, largest_first
from entity.setup.roster import Roster


class WorkerEngine(Engine):
    """Workers that train clients; two models for each are held at once where they are streamed."""

    def __init__(self, roster: Roster, workers: int) -> None:
        super().__init__(roster, window=2 * workers)

    def run(
        self, broadcast: Broadcast, client_ids: tuple[int, ...], deliver: Callable[[int], None]
    ) -> None:
        """Share the clients out to the workers, the largest data sets first.

        Where the matrix has fewer rows than the round, clients begin in the order of their rows.

        Raises
        ------
        NoWorkers
            If the worker of every client died, twice.
        """
        fits = len(client_ids) <= self.rows
        sizes = self.roster.num_samples(client_ids)
        order = largest_first(sizes) if fits else range(len(client_ids))
        schedule = Schedule(client_ids, order, self.memory, deliver, self.rows)
        self.carry_out(broadcast, schedule)
        if schedule.all_lost:
            raise NoWorkers(
                f"round {broadcast.round}: the workers of all {len(client_ids)} clients died, "
                "twice each; where memory is short, fewer workers (settings.workers) or "
                "settings.engine = inline need less."
            )

    @abstractmethod
    def carry_out(self, broadcast: Broadcast, schedule: Schedule) -> None:
        """Let the workers train until the schedule is done."""
