"""What becomes of a round, for the operator: verdicts, numbers, seconds, names and decisions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import MetricRecord

from entity.updates import Verdict

OnRound = Callable[["RoundReport"], None]


@dataclass(frozen=True)
class RoundReport:
    """The outcome of a round."""

    round: int
    verdicts: tuple[Verdict, ...]
    """One for each node that was sent the model, by its node id as text."""
    aggregated: bool
    """Whether there is a new global model.

    The old one stays without enough sound replies, and where the defense's bounds are not met, it
    accepts nobody, or what it makes is not finite.
    """
    diagnostics: Mapping[str, float] = field(default_factory=dict[str, float])
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names under which the operator registered nodes, by node id."""
    decisions: tuple[Mapping[str, str], ...] = ()
    """Pardons and replaced keys that were carried out before the round."""
    time: float = 0.0
    """When the round ended, in seconds since 1970."""

    @property
    def refused(self) -> dict[str, str]:
        """Reasons of the refused nodes, by node id."""
        return {
            str(v.client): v.reason for v in self.verdicts if not v.accepted and not v.undecided
        }

    @property
    def undecided(self) -> int:
        """Return how many sound replies nobody judged, as the global model stays."""
        return sum(verdict.undecided for verdict in self.verdicts)

    def metrics(self) -> MetricRecord:
        """Return the report as numbers; Flower carries no text, so reasons are in the names."""
        accepted = [verdict for verdict in self.verdicts if verdict.accepted]
        record = MetricRecord(
            {
                "asked": len(self.verdicts),
                "accepted": len(accepted),
                "refused": len(self.refused),
                "undecided": self.undecided,
                "aggregated": int(self.aggregated),
            }
        )
        for node, reason in self.refused.items():
            record[f"refused {node}: {reason}"] = 1
        for name, value in self.diagnostics.items():
            record[f"server {name}"] = float(value)
        for name, value in self.seconds.items():
            record[f"seconds {name}"] = float(value)
        return record


def in_order(
    asked: Sequence[int], verdicts: Sequence[Verdict], refusals: Mapping[str, str]
) -> tuple[Verdict, ...]:
    """Return a verdict on every node that was asked, then on those that answered unasked."""
    by_node = {verdict.client: verdict for verdict in verdicts}
    nodes = list(dict.fromkeys([*map(str, asked), *refusals]))
    return tuple(
        by_node.get(node) or Verdict(node, accepted=False, reason=refusals[node]) for node in nodes
    )
