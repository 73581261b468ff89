"""FLDetector: clients whose updates are not those that their last ones let expect are removed.

Zhang, Cao, Jia and Gong, "FLDetector: Defending Federated Learning Against Model Poisoning Attacks
via Detecting Malicious Clients", KDD 2022, arXiv 2207.09209. A client's update is predicted from
its last one by the mean value theorem, delta' = delta + H (w - w'), with H an L-BFGS estimate of
the Hessian from how the global model and the aggregate changed over a window of rounds. The
distances between sent and predicted updates, as shares of the round's sum, are averaged over the
window; where the gap statistic sees more than one group among these scores, the one of two with the
larger mean is removed. The others are aggregated by a robust rule, the coordinate-wise median in
the authors' code.

Where we leave the authors' code, and why:

- it has everybody in every round and detects after the last one. Here a client that was away is
  predicted over all that the model has moved meanwhile, a score is the mean of what there is in
  the window, and everybody is judged anew in every round after `warmup`: the gap statistic of a
  few scores is often wrong, and `for_good`, as in public ports, the honest are used up with time;
- shares are times the number of clients, so that 1 is usual whatever the size of the round;
- updates stand for gradients: a constant factor, sign included, cancels in H and in the shares;
- a score is of the last `window` rounds: who has not come for as long has none, and hides nobody;
- rounds without a step say nothing of H, and its inner matrix may be singular: the code fails.

Kept are the last model of every client, the global one it began from, and those of the window.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from entity.config.schema import Count, Whole
from entity.defenses.median import CoordinateServer, middle
from entity.layout import ModelState
from entity.server.contract import Needs, Resources
from entity.server.foreseen import Foreseen
from entity.server.gap_statistic import higher_group
from entity.server.gate import is_finite
from entity.updates import Aggregation, ClientId, Stopwatch, Updates, rows_by_id, verdicts

_DIGITS = 9  # decimals of a score that count: the rest is rounding


@dataclass(frozen=True)
class FLDetectorArgs:
    """Settings of FLDetector."""

    window: Count = 10
    """Rounds that the Hessian is estimated from, and distances that a score is the mean of."""
    warmup: Whole = 5
    """Rounds without a prediction, at first and after a removal (ours; authors' code: 50 steps)."""
    rule: Literal["median", "mean"] = "median"
    """How the clients that are left are aggregated."""
    removal: Literal["for_the_round", "for_good"] = "for_the_round"
    """Whether who is detected is judged anew in every round, or stays out and all begins anew."""
    restart: bool = False
    """Go back to the first model after a removal, as public ports of the code do."""
    kmax: Count = 7
    """Most groups that the gap statistic considers."""
    references: Count = 10
    """Uniform samples that the gap statistic compares with."""


class FLDetector(CoordinateServer[FLDetectorArgs]):
    """A robust rule without the clients whose updates are unlike the predicted ones."""

    summary = "FLDetector: remove clients whose updates are unlike those predicted from their last"
    paper = "Zhang et al. 2022, arXiv 2207.09209"
    remembers = "distances from what was predicted, and who was removed for good"
    hyperparameters = FLDetectorArgs
    revision = 2

    def __init__(self, args: FLDetectorArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        self.foreseen = Foreseen(args.window)
        self.distances: dict[ClientId, list[tuple[int, float]]] = {}
        """Each client's last rounds and distances in them, as shares times clients."""
        self.removed: set[ClientId] = set()
        self.rounds = 0
        """Rounds since the start or the last removal."""
        self.first: ModelState | None = None
        """The first model, where a removal goes back to it."""

    @classmethod
    def needs(cls, args: FLDetectorArgs) -> Needs:
        """Ask for single updates and whose they are; the median for an honest majority."""
        majority = args.rule == "median"
        return Needs(client_identity=True, individual_updates=True, honest_majority=majority)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Predict and compare, remove who stands out, aggregate the others."""
        watch = Stopwatch()
        if self.args.restart and self.first is None:
            self.first = ModelState(*map(torch.clone, updates.global_state))
        clients, before = updates.client_ids, self.removed
        sent = updates.select([row for row, one in enumerate(clients) if one not in before])
        with watch("predict"):
            self._compare(sent)
            scores = [self._score(client) for client in clients]
        with watch("detect"):
            found = self._detected(updates.round)
        if self.args.removal == "for_good":
            found = self.removed = before | found
        kept = [client not in found for client in clients]
        with watch("aggregate"):
            state, shares = self._aggregated(updates, kept)
        anew = self.removed != before
        if anew:
            self.foreseen.clear()
            self.distances, self.rounds = {}, 0
        elif len(sent) and is_finite(state):
            rate = self.resources.averaging.server_lr
            step = (state.weights - updates.global_weights) / rate
            self.foreseen.book(sent, step if any(kept) else None)
        reasons = dict.fromkeys(range(len(updates)), "updates unlike the predicted ones")
        judged = verdicts(updates, kept, shares, reasons=reasons)
        judged = tuple(replace(one, score=own) for one, own in zip(judged, scores, strict=True))
        numbers = {"detected": float(len(found - before)), "removed": float(len(found))}
        if anew and self.first is not None:
            return Aggregation(*self.first, judged, numbers, watch.seconds, replaced=True)
        return Aggregation(*state, judged, numbers, watch.seconds)

    def _compare(self, sent: Updates) -> None:
        """Note how far updates are from the predicted ones, and let go what is past."""
        self.rounds += 1
        found = self.foreseen.distances(sent) if self.rounds > self.args.warmup else None
        if found is not None:
            known = ~found.isnan()
            mean = float(found[known].mean())
            shares = (found / mean if mean > 0 else torch.ones_like(found)).tolist()
            for row in known.nonzero().flatten().tolist():
                own = self.distances.setdefault(sent.client_ids[row], [])
                own.append((sent.round, shares[row]))
        since = sent.round - self.args.window
        late = {client: [x for x in own if x[0] > since] for client, own in self.distances.items()}
        self.distances = {client: own for client, own in late.items() if own}

    def _score(self, client: ClientId) -> float | None:
        own = [distance for _, distance in self.distances.get(client, [])]
        return round(sum(own) / len(own), _DIGITS) if own else None

    def _detected(self, number: int) -> set[ClientId]:
        """Return the clients, of all with a score, who are in the group of higher ones."""
        clients = list(self.distances)
        clients = [clients[row] for row in rows_by_id(clients)]
        scores = torch.tensor([self._score(client) for client in clients], dtype=torch.float64)
        rng = self.resources.seeds.generator("fldetector", round=number)
        found = higher_group(scores, self.args.kmax, self.args.references, rng).tolist()
        return {client for client, suspect in zip(clients, found, strict=True) if suspect}

    def _aggregated(self, updates: Updates, kept: list[bool]) -> tuple[ModelState, Tensor]:
        """Return the next global model and the clients' shares (n,), NaN of a median."""
        accepted = torch.tensor(kept)
        rows = accepted.nonzero().flatten().tolist()
        if self.args.rule == "mean" or not rows:
            shares = accepted.double() / max(1, len(rows))
            return self.average(updates, shares), shares
        return self.reduce(updates, middle, rows), torch.where(accepted, torch.nan, 0.0)

    def pardon(self, client: ClientId) -> str:
        """Take a client back, and forget its distances and its last update."""
        had = self.foreseen.forget(client) | (self.distances.pop(client, None) is not None)
        was, self.removed = client in self.removed, self.removed - {client}
        return "its removal" if was else "its updates" * had

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the clients and of the model's way."""
        return {
            "foreseen": self.foreseen.state_dict(),
            "clients": [*self.distances],
            "distances": [*self.distances.values()],
            "removed": sorted(self.removed, key=str),
            "rounds": self.rounds,
            "first": None if self.first is None else [*self.first],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.foreseen.load_state_dict(state["foreseen"])
        distances = [[(number, share) for number, share in own] for own in state["distances"]]
        self.distances = dict(zip(state["clients"], distances, strict=True))
        self.removed, self.rounds = set(state["removed"]), state["rounds"]
        self.first = None if state["first"] is None else ModelState(*state["first"])
