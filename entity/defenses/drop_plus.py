"""DROP+: the model moves only as far as clean images can see.

Ours, after DROP (arXiv 2502.07011), with what DROP holds already: a few clean, unlabelled images.
DROP asks in each round who is malicious, which few poisoned images and skewed data hide, and
distils to forget whom it admitted, which costs accuracy. DROP+ looks at where an update points.
A trigger's weights lie along inputs that no clean image has. So

1. each client's update is shortened to the median length of the round, and the mean is taken;
2. of the mean's step only the visible part is kept (`server/visible.py`): the least step that
   changes what every layer answers to the clean images in nearly the same way;
3. clients who push together, round after round, are left out of the mean: in the part that is
   dropped, where honest clients have little in common, and in the visible one, if they are
   more alike than honest clients ever are (`server/coalition.py`, `server/judge.py`).

The first two judge nobody and need no majority. `docs/DROP_PLUS.md` says why this should work,
where it holds and where it does not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Annotated, Any

import torch
from torch import Tensor

from entity.config.schema import ConfigError, NonNegative, Positive, Range
from entity.defenses.norm_clipping import clip_factors
from entity.server.coalition import Coalition
from entity.server.contract import Needs, Resources, Server, Setting
from entity.server.judge import Judge
from entity.server.sketches import Described, descriptions
from entity.server.visible import viewed, views, visible_update
from entity.updates import Aggregation, ClientId, Stopwatch, Updates, verdicts

IMAGES = 300
"""Clean images that are looked at by default."""

VIEWED = 0.9
"""Share of a model's parameters of which less should not be looked at."""

REASONS = {
    "hidden": "pushes with others where no clean image looks",
    "shown": "pushes with others, all more alike than the rest",
}


@dataclass(frozen=True)
class DropPlusArgs:
    """Settings of DROP+ (ours)."""

    strength: Positive = 0.01
    """How much a layer's inputs must vary along a direction for the model to follow it: with this
    share of the mean square of an entry half of the step is kept."""
    num_seed: Annotated[int, Range(2)] | None = None
    """Clean images that are looked at; null takes 300, as DROP, or all where there are fewer."""
    clip: bool = True
    """Shorten every update to the median length of the round's updates that are not zero."""
    visible: bool = True
    """Keep the visible part of the mean's step alone; false leaves it to coalitions."""
    coalition: Annotated[float, Range(0, 2)] | None = 0.2
    """Contrast in the invisible part from which on clients who push together are left out; null
    never looks for them."""
    effect: Positive | None = 2.5
    """Contrast over the spread of the cosines (Cohen's d) from which on half of `coalition` is
    enough, in either part; null looks at the invisible part and its contrast alone."""
    patience: Annotated[int, Range(1)] = 4
    """Rounds of a client before it is compared with others, and rounds that are looked at together
    for which of two groups it is."""
    clearly: NonNegative = 1.3
    """How many times as much the smaller of two groups must have in common in the invisible part to
    be left out; 0 always leaves it out, for a federation in which attackers are surely fewer."""
    memory: Annotated[float, Range(0, 1)] = 0.95
    """What a client's round still counts one round of its own later."""


class DropPlus(Server[DropPlusArgs]):
    """The visible part of the mean of updates of bounded length, without a coalition."""

    remembers = "where it pushes that no clean image shows"
    summary = "DROP+: only what a few clean images can see of the mean's step is taken"
    paper = "ours, after DROP, 2025, arXiv 2502.07011"
    hyperparameters = DropPlusArgs
    revision = 5

    def __init__(self, args: DropPlusArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        clean = resources.clean
        assert clean is not None, "needs() asks for clean data"
        drawn = torch.randperm(len(clean.x), generator=resources.seeds.generator("visible images"))
        self.images = clean.x[drawn[: args.num_seed or IMAGES]]
        self.histories = dict(_histories(args))
        self.judge = Judge(args.patience, args.clearly)

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
            seeds = self.resources.seeds
            model = self.resources.module(updates.global_state)
            patches = seeds.generator("visible patches", round=updates.round)
            of = list(views(model, updates.spec, self.images, args.strength, patches))
            self._warn_of_what_is_not_viewed(viewed(of) / updates.spec.num_parameters)
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
                bounded = updates.deltas * clips[:, None].float()
                reasons, found = self._coalitions(updates, descriptions(bounded, of, seeds))
                numbers |= found
        accepted = [client not in reasons for client in updates.client_ids]
        shares = self.shares(updates, torch.tensor(accepted))
        factors = clips if args.clip else torch.ones_like(clips)
        with watch("average"):
            mean = self.average_scaled(updates, shares, factors)
        with watch("visible"):
            step = mean.weights - updates.global_weights
            seen = visible_update(step, of)
            numbers["visible"] = _ratio(seen, step)
            seen = seen if args.visible else step
            state = self.finish(mean._replace(weights=updates.global_weights + seen))
        by_row = {
            row: reasons[client]
            for row, client in enumerate(updates.client_ids)
            if client in reasons
        }
        judged = verdicts(updates, accepted, shares * factors, reasons=by_row)
        return Aggregation(*state, judged, numbers, watch.seconds)

    def _warn_of_what_is_not_viewed(self, share: float) -> None:
        if share < VIEWED:
            self.warn_once(
                "views",
                f"only {100 * share:.0f} % of the model's parameters are of linear layers, "
                "convolutions and embeddings as PyTorch has them; what the others learn is not "
                "looked at, and passes as it is.",
            )

    def _coalitions(
        self, updates: Updates, described: Described
    ) -> tuple[dict[ClientId, str], dict[str, float]]:
        """Add a round to the histories; return why clients are left out, and what was measured."""
        numbers = dict[str, float]()
        self.judge.observe(updates.client_ids, described)
        for part, history in self.histories.items():
            history.observe(updates.client_ids, getattr(described, part))
            groups = history.groups()
            measured = {"contrast": groups.contrast, "effect": groups.effect}
            numbers |= {f"{part}_{name}": x for name, x in measured.items() if isfinite(x)}
        reasons, times = dict[ClientId, str](), 1
        while more := self._coalition(reasons, times):  # one may have been the bait for another
            reasons, times = reasons | more, times + 1
        return reasons, numbers

    def _coalition(self, known: Mapping[ClientId, str], times: int) -> dict[ClientId, str]:
        """Return a coalition among all clients but those known to be in one, and why it is one.

        Who differs since others are left out is no coalition yet: with every one that is known
        two groups must be further apart.
        """
        for part, history in self.histories.items():
            groups = history.groups(without=known.keys())
            enough = 1 if self.judge.standing(groups) else times
            if history.clear(groups, enough) and (found := self.judge.coalition(groups)):
                return dict.fromkeys(found, REASONS[part])
        return {}

    def pardon(self, client: ClientId) -> str:
        """Forget where a client has pushed; for `patience` rounds it is in no coalition then."""
        self.judge.pardon(client)
        said = [history.pardon(client) for history in self.histories.values()]
        return said[0] if said else ""

    def state_dict(self) -> dict[str, Any]:
        """Return the histories of who pushed where, and what was found of them."""
        histories = {part: history.state_dict() for part, history in self.histories.items()}
        return {"histories": histories, "judge": self.judge.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        for part, history in self.histories.items():
            history.load_state_dict(state["histories"][part])
        self.judge.load_state_dict(state["judge"])


def _histories(args: DropPlusArgs) -> Iterator[tuple[str, Coalition]]:
    """Yield what is remembered of each part: nothing, where coalitions are not looked for."""
    if args.coalition is None:
        return
    least, effect = args.coalition / 2, inf if args.effect is None else args.effect
    yield "hidden", Coalition(args.coalition, args.patience, args.memory, least, effect)
    if args.effect is not None:
        yield "shown", Coalition(inf, args.patience, args.memory, least, effect)


def _ratio(part: Tensor, whole: Tensor) -> float:
    """Return the norm of a part over that of the whole; 1 for a step of zero."""
    length = float(whole.norm())
    return float(part.norm()) / length if length > 0 else 1.0
