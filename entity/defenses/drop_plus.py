"""DROP+: the model moves only as far as clean images can see.

Ours, after DROP (arXiv 2502.07011), with what DROP holds already: a few clean, unlabelled images.
DROP asks in each round who is malicious, which few poisoned images and skewed data hide, and
distils to forget whom it admitted, which costs accuracy. DROP+ looks at where an update points.
A trigger's weights lie along inputs that no clean image has. So

1. each client's update is shortened to the median length of the round, and the mean is taken;
2. of the mean's step only the visible part is kept (`server/visible.py`): the least step that
   changes what every layer answers to the clean images in nearly the same way;
3. clients who push together, round after round, are left out of the mean: in the part that is
   dropped, in the visible one, or in both together, if they are more alike than honest clients
   ever are (`server/coalition_search.py`, `server/mixes.py`).

The second judges nobody and needs no majority. docs/DROP_PLUS.md says why this should work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from entity.config.schema import ConfigError, NonNegative, Positive, Range
from entity.defenses.norm_clipping import clip_factors
from entity.layout import ModelState
from entity.server import visible
from entity.server.coalition_search import searching
from entity.server.contract import Needs, Resources, Setting
from entity.server.mixes import class_gradients
from entity.server.sketches import Described, descriptions
from entity.server.streaming import StreamingServer
from entity.updates import Aggregation, ClientId, Stopwatch, Updates, verdicts

IMAGES = 300
"""Clean images that are looked at by default."""


@dataclass(frozen=True)
class DropPlusArgs:
    """Settings of DROP+ (ours)."""

    strength: Annotated[float, Range(1e-9)] = 0.01
    """How much a layer's inputs must vary along a direction for the model to follow it: with this
    share of the mean square of an entry half of the step is kept."""
    num_seed: Annotated[int, Range(2)] | None = None
    """Clean images that are looked at; null takes 300, as DROP, or all where there are fewer."""
    clip: bool = True
    """Shorten every update to the median length of the round's updates that are not zero."""
    visible: bool = True
    """Keep the visible part of the mean's step alone; false leaves it to coalitions."""
    coalition: Annotated[float, Range(0, 2)] | None = 0.2
    """Contrast of which half is needed for clients who push together to be left out, in either
    part; null never looks for them."""
    effect: Positive | None = 2.5
    """Contrast over the spread of the cosines (Cohen's d) that is needed, too; null looks at the
    invisible part alone, and at its contrast, all of `coalition`."""
    effect_both: Positive | None = 2.0
    """The same for the mean of the cosines of both parts; null does not look at them together."""
    classes: bool = False
    """Compare clients in the visible part without the gradients of clean images, by the class that
    the model gives them: what any mix of classes makes of an update is no push."""
    amounts: bool = True
    """What clients have in common as their registered amounts of data are alike is no agreement;
    false where attackers may register what they like."""
    patience: Annotated[int, Range(1)] = 4
    """Rounds of a client before it is compared with others, and rounds that are looked at together
    for which of two groups it is."""
    clearly: NonNegative = 1.3
    """How many times as much the smaller of two groups must have in common in the invisible part to
    be left out; 0 always leaves it out, for a federation in which attackers are surely fewer."""
    memory: Annotated[float, Range(0, 1)] = 0.95
    """What a client's round still counts one round of its own later."""


class DropPlus(StreamingServer[DropPlusArgs]):
    """The visible part of the mean of updates of bounded length, without a coalition."""

    remembers = "where it pushes, and that it was found in a coalition"
    summary = "DROP+: only what a few clean images can see of the mean's step is taken"
    paper = "ours, after DROP, 2025, arXiv 2502.07011"
    hyperparameters = DropPlusArgs
    revision = 12
    streams_with = "with coalition null and clip false"

    def __init__(self, args: DropPlusArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        clean = resources.clean
        assert clean is not None, "needs() asks for clean data"
        drawn = torch.randperm(len(clean.x), generator=resources.seeds.generator("visible images"))
        self.images = clean.x[drawn[: args.num_seed or IMAGES]]
        effects = args.effect, args.effect_both
        self.search = searching(
            args.coalition, effects, args.patience, args.memory, args.clearly, args.amounts
        )
        self._begun: tuple[Tensor, list[visible.View]] | None = None

    @classmethod
    def needs(cls, args: DropPlusArgs) -> Needs:
        """Ask for clean images without labels, and for what clipping and the history look at."""
        looks = args.coalition is not None
        return Needs(
            clean_data=True,
            client_identity=looks,
            individual_updates=looks or args.clip,
            honest_majority=looks or args.clip,
        )

    @classmethod
    def streams(cls, args: DropPlusArgs) -> bool:
        """Where no single update is looked at."""
        return args.coalition is None and not args.clip

    @classmethod
    def check(cls, args: DropPlusArgs, setting: Setting) -> None:
        """Refuse to look at more images than the server holds."""
        needed = args.num_seed or 2
        if setting.clean_samples < needed:
            raise ConfigError(
                f"server.defense.defense_args.num_seed = {args.num_seed or 'null'}: needs "
                f"{needed} clean samples and the server holds {setting.clean_samples}; "
                "lower it, or raise server.held_out."
            )

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average those outside of a coalition, and take the visible part of the step."""
        args, watch = self.args, Stopwatch()
        with watch("look"):
            model = self.resources.module(updates.global_state)
            patches = self.resources.seeds.generator("visible patches", round=updates.round)
            of = list(visible.views(model, updates.spec, self.images, args.strength, patches))
            for kind, said in visible.shortcomings(of, updates.spec, len(self.images)).items():
                self.warn_once(kind, said)
            if args.visible and self.optimiser and self.optimiser.args.name != "fedavgm":
                self._begun = updates.global_weights, of  # views are large: kept for `complete`
        reasons, numbers = dict[ClientId, str](), dict[str, float]()
        clips = torch.ones(len(updates), dtype=torch.float64)
        if args.clip or args.coalition is not None:  # lengths need all updates at once
            moving = updates.norms[updates.norms > 0]
            bound = float(moving.quantile(0.5)) if len(moving) else 0.0
            clips = clip_factors(updates.norms, bound)
            if args.clip:
                numbers |= {"clip": bound, "clipped": float((clips < 1).sum())}
        if args.coalition is not None:
            with watch("coalition"):
                bounded = (updates.deltas * clips[:, None].float()).nan_to_num_(0.0, 0.0, 0.0)
                described, samples = self.describe(bounded, model, of), updates.num_samples
                reasons, measured = self.search.look(updates.client_ids, described, samples)
                numbers |= measured
        accepted = [client not in reasons for client in updates.client_ids]
        shares = self.shares(updates, torch.tensor(accepted))
        factors = clips if args.clip else torch.ones_like(clips)
        with watch("average"):
            mean = self.average_scaled(updates, shares, factors)
        with watch("visible"):
            step = mean.weights - updates.global_weights
            seen = visible.visible_update(step, of)
            if args.clip or args.coalition is not None:  # each update may be looked at
                rates = self.resources.averaging.server_lr * factors
                whose = [row for row, each in enumerate(accepted) if each]
                visible.add_agreed_words(seen, updates, whose, rates, of)
            numbers["visible"] = visible.share_kept(seen, step)
            seen = seen if args.visible else step
            state = self.finish(mean._replace(weights=updates.global_weights + seen))
        by_row = {row: reasons[c] for row, c in enumerate(updates.client_ids) if c in reasons}
        judged = verdicts(updates, accepted, shares * factors, reasons=by_row)
        return Aggregation(*state, judged, numbers, watch.seconds)

    def describe(self, updates: Tensor, model: nn.Module, of: Sequence[visible.View]) -> Described:
        """Return what updates (n, P) of a model are like, by which clients are compared."""
        given = self.resources
        taken = class_gradients(model, given.spec, self.images) if self.args.classes else None
        return descriptions(updates, of, given.seeds, taken)

    def complete(self, answer: Aggregation, round: int) -> Aggregation:
        """Take the visible part of an adaptive optimiser's step, which it has turned away from it.

        What FedAvgM makes of visible steps is a sum of them.
        """
        if self._begun is None:
            return answer
        watch, (start, of), self._begun = Stopwatch(), self._begun, None
        with watch("visible"):
            seen = visible.turned_back(step := answer.weights - start, of)
            state = self.finish(ModelState(start + seen, answer.buffers))
        numbers = {"visible_step": visible.share_kept(seen, step)}
        return answer.completed(state, numbers, watch.seconds)

    def pardon(self, client: ClientId) -> str:
        """Forget where a client has pushed, until it has come `patience` times again."""
        return self.search.pardon(client)

    def state_dict(self) -> dict[str, Any]:
        """Return the histories of who pushed where, and what was found of them."""
        return self.search.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.search.load_state_dict(state)
