"""Knowledge distillation from an ensemble of models, without their data."""

from entity.distill import dfme
from entity.distill.agreement import PROBES, agreement
from entity.distill.ensemble import Ensemble
from entity.distill.held_out import Labelled
from entity.distill.maze import distill
from entity.distill.settings import MazeArgs
from entity.distill.training import Distillation, Networks

__all__ = [
    "PROBES",
    "Distillation",
    "Ensemble",
    "Labelled",
    "MazeArgs",
    "Networks",
    "agreement",
    "dfme",
    "distill",
]
