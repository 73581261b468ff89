"""Weights & Biases, offline unless the environment variable WANDB_MODE says otherwise.

An offline run lies in `trackers/wandb` of the run directory, and `wandb sync` sends it. Project
and entity are those of WANDB_PROJECT and WANDB_ENTITY; without the former the project is `drop-`
and the data set.
"""

import os
import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from entity.trackers.contract import Session

wandb: Any = import_module("wandb")
"""Imported by name: to a type checker, the bare import in a file of this name is the file."""


class WeightsAndBiases:
    """One W&B run, which goes on under the same id after a resume.

    Parameters
    ----------
    session
        The run.
    """

    def __init__(self, session: Session) -> None:
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT")
            or re.sub(r"[^\w.-]+", "-", f"drop-{session.project}"),
            id=session.id,
            name=session.name,
            resume="allow",
            config=dict(session.config),
            dir=str(session.own),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(console="off", disable_git=True, save_code=False),
        )
        # W&B's own step must grow, and rejects rounds that it takes for past ones.
        self.run.define_metric("round")
        self.run.define_metric("*", step_metric="round")

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """Log a round."""
        self.run.log({"round": number, **values})

    def finish(self, state: str, summary: Mapping[str, float]) -> None:
        """Fill in the run's summary and end it, as failed unless it is finished."""
        self.run.summary.update({"state": state, **summary})
        self.run.finish(exit_code=0 if state == "finished" else 1)
