"""FedAvg without a defense.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, arXiv 1602.05629. Every client is accepted, and the mean of their models is the next
global model.

Where we leave the paper, and why: clients weigh alike by default, as in the DROP experiments, since
an attacker may lie about its number of samples; `server.weighting = samples` gives the paper's
n_i / sum(n_j).
"""

from dataclasses import dataclass

import torch

from entity.server.streaming import StreamingServer
from entity.updates import Aggregation, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class UndefendedArgs:
    """FedAvg has no settings of its own."""


class Undefended(StreamingServer[UndefendedArgs]):
    """The mean of the clients' models."""

    summary = "FedAvg: the mean of all models, no defense"
    paper = "McMahan et al. 2017, arXiv 1602.05629"
    hyperparameters = UndefendedArgs
    robust = False

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average everybody."""
        watch = Stopwatch()
        with watch("average"):
            shares = self.shares(updates, torch.ones(len(updates), dtype=torch.bool))
            state = self.average(updates, shares)
        return Aggregation(
            *state, verdicts(updates, [True] * len(updates), shares), seconds=watch.seconds
        )
