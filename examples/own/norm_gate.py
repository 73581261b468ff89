"""An own defense: refuse updates far longer than the round's median, average the rest.

drop run --config mnist5k/undefended --plugins norm_gate.py --defense.type norm_gate --factor 1.5
"""

from dataclasses import dataclass

from entity.config.schema import Positive
from entity.server import Needs, Server
from entity.updates import Aggregation, Updates, verdicts


@dataclass(frozen=True)
class NormGateArgs:
    """Settings of the gate."""

    factor: Positive = 2.0
    """Updates longer than this many median norms are refused."""


class NormGate(Server[NormGateArgs]):
    """The mean of the updates that are not far longer than the median."""

    summary = "example: refuse updates far longer than the round's median, average the rest"
    hyperparameters = NormGateArgs

    @classmethod
    def needs(cls, args: NormGateArgs) -> Needs:
        """Ask for single updates, most of them honest."""
        return Needs(individual_updates=True, honest_majority=True)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Judge by the norm alone."""
        accepted = updates.norms <= self.args.factor * updates.norms.median()
        shares = self.shares(updates, accepted)
        judged = verdicts(updates, accepted.tolist(), shares, scores=updates.norms.tolist())
        return Aggregation(*self.average(updates, shares), judged)


DEFENSES = {"norm_gate": NormGate}
