"""Trackers: TensorBoard, Weights & Biases and MLflow, fed from a run's record while it is written.

A tracker is a process of its own that reads `config.json`, `rounds.jsonl` and `summary.json`. If it
fails, by an exception, a crash or a service that does not answer, there is one warning; the run
does not wait for it, shares no memory with it, and goes on.
"""

from entity.trackers.contract import Session, Tracker
from entity.trackers.handle import TRACKERS, Trackers, require

__all__ = ["TRACKERS", "Session", "Tracker", "Trackers", "require"]
