"""IPM: inner product manipulation.

Xie et al., "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI
2019, arXiv 1903.03936. All attackers send -ε times the mean of the honest updates. With a small ε
this is close to the honest updates and passes robust rules; the aggregate's inner product with
the honest mean turns negative once ε exceeds the ratio of honest to malicious clients.
"""

from dataclasses import dataclass

from entity.client.untargeted import Knowledge, Untargeted, known_deltas, known_rows, send
from entity.config.schema import Positive
from entity.seeding import Seeds
from entity.updates import Updates


@dataclass(frozen=True)
class IpmArgs:
    """Hyper-parameters of IPM."""

    ipm_epsilon: Positive = 0.5
    """ε; 0.1 and 0.5 are stealthy, above 1 is strong."""
    knowledge: Knowledge = "omniscient"
    """Whose mean: that of all benign clients (the paper), or of the attackers' own honest
    updates."""


class Ipm(Untargeted):
    """Pulls the aggregate against the honest mean."""

    summary = "IPM: all attackers send -epsilon times the honest mean"
    paper = "Xie et al. 2019, arXiv 1903.03936"
    hyperparameters = IpmArgs

    @classmethod
    def collude(cls, args: IpmArgs, updates: Updates, malicious: list[int], seeds: Seeds) -> None:
        """Send the reversed mean; `knowledge` says of which clients."""
        rows = known_rows(updates, malicious, args.knowledge)
        for columns, deltas in known_deltas(updates, rows):
            send(updates, malicious, columns, -args.ipm_epsilon * deltas.mean(0))
