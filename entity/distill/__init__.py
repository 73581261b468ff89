"""Knowledge distillation from an ensemble of models, without their data."""

from entity.distill import dfme
from entity.distill.agreement import PROBES, agreement
from entity.distill.ensemble import Ensemble
from entity.distill.held_out import Labelled
from entity.distill.maze import Distillation, MazeArgs, distill

__all__ = [
    "PROBES",
    "Distillation",
    "Ensemble",
    "Labelled",
    "MazeArgs",
    "agreement",
    "dfme",
    "distill",
]
