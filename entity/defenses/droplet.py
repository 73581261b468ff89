"""DROPlet: DROP's clustering and activity tracking, without the distillation.

"DROP: Poison Dilution via Knowledge Distillation for Federated Learning", arXiv 2502.07011.
Each round the updates are split into two groups by Ward's method; the smaller group is taken for
malicious and gets penalty points, the larger one works its points off, and the clients that are
in the larger group and free of points are averaged.

Where we leave the original code, and why:

- a tie between the groups goes to the one with fewer points on average, then to the tighter one,
  then to the one with the lowest id; the original takes whichever scikit-learn numbered second;
- two clients are no majority: both are kept unless they are further apart than twice the median
  distance seen so far;
- a blacklisted client is really refused; the original only lists it;
- `min_separation` (off by default) accepts everybody where the tree shows no two groups, because
  a forced split penalises benign clients in every round without an attack.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

import torch

from entity.config.schema import ConfigError, NonNegative, Positive
from entity.layout import ModelState
from entity.server.activity import Activity
from entity.server.contract import Needs, Resources, Server, Setting
from entity.server.reference import add_reference
from entity.server.ward import Split, ward_split, within_variance
from entity.updates import Aggregation, ClientId, Stopwatch, Updates, rows_by_id, verdicts


@dataclass(frozen=True)
class DropletArgs:
    """Settings of DROPlet; defaults are the original's."""

    client_cluster_filtering: bool = True
    """Cluster and track activity at all; false accepts everybody."""
    penalty: Positive = 1.0
    """Points for being in the smaller group."""
    reward: Positive | None = None
    """Points worked off by being in the larger group; null is as many as the penalty."""
    blacklist_threshold: Positive | None = None
    """Points at which a client is refused for ever; null never does."""
    reference_model: bool = False
    """Add a model trained on the server's clean data to the clustering; its group is benign."""
    min_separation: NonNegative | None = None
    """Accept everybody where the last merge is less than this times as high as the one before."""


A = TypeVar("A", bound=DropletArgs)


class ActivityServer(Server[A]):
    """Ward clustering and activity tracking, shared by DROPlet and DROP."""

    remembers = "penalty points and the blacklist"

    def __init__(self, args: A, resources: Resources) -> None:
        super().__init__(args, resources)
        self.activity = Activity(args.penalty, args.reward, args.blacklist_threshold)
        self.typical: list[float] = []
        """Median pairwise distance of each round so far."""

    @classmethod
    def needs(cls, args: A) -> Needs:
        """Identity across rounds and single updates; clean labelled data for a reference model."""
        return Needs(
            clean_data=args.reference_model,
            clean_labels=args.reference_model,
            client_identity=True,
            individual_updates=True,
            honest_majority=not args.reference_model,
        )

    @classmethod
    def check(cls, args: A, setting: Setting) -> None:
        """Refuse rounds too small for a majority."""
        if args.client_cluster_filtering and setting.round_size < 3:
            raise ConfigError(
                f"federation.round_size = {setting.round_size}: clustering needs at least 3 "
                "clients in a round; raise it, or set client_cluster_filtering to false."
            )
        if args.reference_model and not setting.clean_samples:
            raise ConfigError(
                "server.defense.defense_args.reference_model = true: it trains on the server's "
                "clean data; raise server.held_out above 0."
            )

    def admit(self, updates: Updates, watch: Stopwatch) -> tuple[list[bool], Split | None]:
        """Split the round, book penalties, and say who is admitted."""
        if not self.args.client_cluster_filtering:
            return [True] * len(updates), None
        with watch("cluster"):
            split, benign = self._benign_group(updates)
        majority = [updates.client_ids[row] for row in benign]
        minority = [c for row, c in enumerate(updates.client_ids) if row not in set(benign)]
        self.activity.observe(majority, minority)
        kept = set(majority)
        return [c in kept and self.activity.admits(c) for c in updates.client_ids], split

    def _benign_group(self, updates: Updates) -> tuple[Split, list[int]]:
        everybody = list(range(len(updates)))
        order = rows_by_id(updates.client_ids)
        if self.args.reference_model:
            with_reference, reference = add_reference(updates, self.resources), len(updates)
            if not with_reference.weights[reference].isfinite().all():  # its training diverged
                return ward_split(updates.distances, order), everybody
            split = ward_split(with_reference.distances, [*order, reference])
            group = next(group for group in split.groups if reference in group)
            # A reference that stands alone vouches for nobody.
            return split, [row for row in group if row != reference] or everybody
        distances = updates.distances
        split = ward_split(distances, order)
        if len(updates) > 1:
            upper = torch.triu_indices(len(updates), len(updates), 1)
            spread = float(distances[upper[0], upper[1]].median())
            if len(updates) == 2 and (not self.typical or spread <= 2 * median(self.typical)):
                return split, everybody
            self.typical.append(spread)
        if self.args.min_separation is not None and split.separation < self.args.min_separation:
            return split, everybody
        first, second = split.groups

        def rank(group: list[int]) -> tuple[float, float, float, int]:
            clients = [updates.client_ids[row] for row in group]
            points = sum(map(self.activity.points, clients)) / max(1, len(clients))
            variance = within_variance(distances, group) if group else 0.0
            return (-len(group), points, variance, min(map(order.index, group), default=0))

        return split, min(first, second, key=rank)

    def answer(
        self,
        updates: Updates,
        accepted: list[bool],
        split: Split | None,
        watch: Stopwatch,
        state: ModelState,
        diagnostics: Mapping[str, float],
        artifacts: Mapping[str, torch.Tensor],
    ) -> Aggregation:
        """Put a round's decisions and the next model together."""
        points = [self.activity.points(client) for client in updates.client_ids]
        reasons = {
            row: "blacklisted"
            if client in self.activity.blacklist
            else f"{points[row]:g} penalty points"
            for row, client in enumerate(updates.client_ids)
        }
        found: dict[str, torch.Tensor] = dict(artifacts)
        scalars = dict(diagnostics)
        if split is not None:
            scalars["separation"] = split.separation
            if len(split.linkage) == len(updates) - 1:
                found["linkage"] = torch.from_numpy(split.linkage)
        return Aggregation(
            *state,
            verdicts(
                updates,
                accepted,
                self.shares(updates, torch.tensor(accepted)),
                scores=points,
                reasons=reasons,
            ),
            scalars,
            watch.seconds,
            found,
        )

    def pardon(self, client: ClientId) -> str:
        """Forget a client's points, and take it off the blacklist."""
        return self.activity.pardon(client)

    def state_dict(self) -> dict[str, Any]:
        """Return points, blacklist and the distances seen."""
        return {"activity": self.activity.state_dict(), "typical": list(self.typical)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.activity.load_state_dict(state["activity"])
        self.typical = [float(spread) for spread in state["typical"]]


class Droplet(ActivityServer[DropletArgs]):
    """Clustering and activity tracking alone."""

    summary = "DROPlet: Ward clustering and penalty points across rounds"
    paper = "DROP, 2025, arXiv 2502.07011"
    hyperparameters = DropletArgs

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average the clients that are admitted; without any the global model stays."""
        watch = Stopwatch()
        accepted, split = self.admit(updates, watch)
        with watch("average"):
            state = self.average(updates, self.shares(updates, torch.tensor(accepted)))
        return self.answer(updates, accepted, split, watch, state, {}, {})
