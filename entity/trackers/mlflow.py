"""MLflow, in `mlflow.db` (sqlite) beside the run directories unless MLFLOW_TRACKING_URI is set.

`mlflow ui --backend-store-uri sqlite:///runs/mlflow.db` shows it. All runs of a data set are one
experiment.
"""

import fcntl
import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from entity.trackers.contract import Session

mlflow: Any = import_module("mlflow")
"""Imported by name: to a type checker, the bare import in a file of this name is the file."""

_ID = "drop_id"
_STATUS = {"finished": "FINISHED", "interrupted": "KILLED"}


class MLflow:
    """One MLflow run, found again by its tag after a resume.

    Parameters
    ----------
    session
        The run.
    """

    def __init__(self, session: Session) -> None:
        beside = session.folder.resolve().parent
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{beside / 'mlflow.db'}"
        with _alone(beside):  # two that make the same database at once are in each other's way
            self.client = mlflow.MlflowClient(uri)
            experiment = self._experiment(f"drop-{session.project}", beside)
        found = self.client.search_runs([experiment], f"tags.{_ID} = '{session.id}'", max_results=1)
        if found:
            self.run = found[0].info.run_id
            self.client.set_terminated(self.run, "RUNNING")
            return
        tags = {_ID: session.id}
        self.run = self.client.create_run(experiment, tags=tags, run_name=session.name).info.run_id
        params = [
            mlflow.entities.Param(key, str(value)[:500]) for key, value in session.config.items()
        ]
        for start in range(0, len(params), 100):  # MLflow takes no more at once
            self.client.log_batch(self.run, params=params[start : start + 100])

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """Log a round as step of its number."""
        self._metrics(values, number)

    def finish(self, state: str, summary: Mapping[str, float]) -> None:
        """Log the summary and end the run."""
        self._metrics({f"summary/{name}": value for name, value in summary.items()}, 0)
        self.client.set_terminated(self.run, _STATUS.get(state, "FAILED"))

    def _metrics(self, values: Mapping[str, float], step: int) -> None:
        metrics = [
            mlflow.entities.Metric(name, value, _now(), step) for name, value in values.items()
        ]
        self.client.log_batch(self.run, metrics=metrics)

    def _experiment(self, name: str, beside: Path) -> str:
        known = self.client.get_experiment_by_name(name)
        if known is not None:
            return known.experiment_id
        return self.client.create_experiment(name, artifact_location=str(beside / "mlartifacts"))


def _now() -> int:
    """Return MLflow's timestamp, in milliseconds."""
    return int(time.time() * 1000)


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    with (folder / ".mlflow.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
