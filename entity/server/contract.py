"""What a defense is: the contract that every file of this package keeps.

A server sees tensors and what its threat model grants it, never test data and never who is
malicious. That is also what lets the same object serve a real federation.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from entity.config.schema import ConfigError
from entity.layout import ModelState, ParamSpec, blocks
from entity.seeding import Seeds, global_stream
from entity.training import CPU, Recipe
from entity.updates import Aggregation, ClientId, Updates, Verdict

log = logging.getLogger("entity")


@dataclass(frozen=True)
class Needs:
    """What a defense must be granted. `drop list` shows it; the experiment hands over only this."""

    clean_data: bool = False
    """Clean images that are in no client's data."""
    clean_labels: bool = False
    """Their labels, too."""
    client_identity: bool = False
    """Who sent an update, across rounds."""
    individual_updates: bool = False
    """Each client's update; rules out secure aggregation."""
    honest_majority: bool = False
    """More honest than malicious clients in every round."""
    malicious_bound: bool = False
    """A bound f on the malicious clients in a round; an estimate, or given in the config."""
    true_malicious_count: bool = False
    """The true number of malicious clients, which only an oracle knows; asked for by name."""

    def __str__(self) -> str:
        granted = [name.replace("_", " ") for name, value in vars(self).items() if value]
        return ", ".join(granted) or "nothing"


class CleanData(NamedTuple):
    """Images (S, C, H, W) float in [-1, 1] that the server holds, and their labels (S,)."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Averaging:
    """How accepted clients are combined, whatever the rule that accepted them."""

    server_lr: float = 1.0
    weighting: Literal["uniform", "samples"] = "uniform"
    bn_policy: Literal["weighted", "keep", "recalibrate", "original"] = "weighted"


@dataclass(frozen=True)
class Resources:
    """What the operator of a federation gives to a server."""

    spec: ParamSpec
    """Layout of the model."""
    build: Callable[[torch.Generator], nn.Module]
    """Makes a freshly initialised classifier."""
    seeds: Seeds
    """Source of the server's randomness."""
    image: tuple[int, int]
    """Channels and size of an image."""
    classes: int
    averaging: Averaging
    recipe: Recipe
    """How the clients train; for defenses that train beside them."""
    clean: CleanData | None = None
    """Clean data, where the defense's needs grant it."""
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    """The data set's augmentation, for images in [-1, 1]."""
    malicious_count: int | None = None
    """Malicious clients in the federation, where the config asks for this oracle."""
    federation_size: int = 0
    """N, where the server knows it."""
    device: torch.device = CPU

    def module(self, state: ModelState) -> nn.Module:
        """Return a classifier that holds a given state, on the server's device."""
        model = self.build(self.seeds.generator("scratch"))
        self.spec.load(model, state)
        return model.to(self.device)


class Setting(NamedTuple):
    """What is known before the first round, for `Server.check`."""

    round_size: int
    """n, clients in a round."""
    clean_samples: int
    """Clean samples that the server holds."""
    image: tuple[int, int]
    """Channels and size."""
    malicious_clients: int = 0
    """Their true number in the federation; only for oracles that the config asks for."""
    federation_size: int = 0
    """N."""


Args = TypeVar("Args")


class Server(ABC, Generic[Args]):
    """A defense: reduces a round's updates to the next global model and judges every client."""

    summary: ClassVar[str]
    """One line for `drop list`."""
    paper: ClassVar[str] = ""
    """Author, year and arXiv id."""
    hyperparameters: ClassVar[type[Any]]
    """The dataclass of the defense's own settings."""
    streaming: ClassVar[str] = "no"
    """Whether it can stream (`streams`), or with which settings; for `drop list`."""

    def __init__(self, args: Args, resources: Resources) -> None:
        self.args = args
        self.resources = resources

    @classmethod
    def needs(cls, args: Args) -> Needs:
        """Say what the threat model of this defense grants it, with these settings."""
        return Needs()

    @classmethod
    def check(cls, args: Args, setting: Setting) -> None:
        """Refuse settings that cannot work; ConfigError with the mend in its text."""

    @classmethod
    def streams(cls, args: Args) -> bool:
        """Whether it sees no more of a round than the mean of its updates, each scaled by itself.

        Such a server can take the updates as they come (`streaming.Stream`).
        """
        return False

    @property
    def scale(self) -> Callable[[float], float] | None:
        """What multiplies an update of a given norm, for a server that streams; null leaves all."""
        return None

    @abstractmethod
    def aggregate(self, updates: Updates) -> Aggregation:
        """Reduce a round's updates, all of them finite and of at least one client.

        The matrix behind `updates` is reused after the round: keep copies, not views.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what lives across rounds: tensors, numbers, texts, and lists or tables of them.

        It is asked for after every round: no copies, but tensors that are never changed in place.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""

    def average(self, updates: Updates, shares: Tensor) -> ModelState:
        """Move the global model towards the clients' mean.

        Parameters
        ----------
        updates
            The round.
        shares
            (n,) convex weights; where they sum to zero the global model stays.
        """
        if shares.sum() == 0:
            return updates.global_state
        policy = self.resources.averaging
        mean = convex(updates.weights, shares)
        weights = step(updates.global_weights, mean, policy.server_lr)
        buffers = self.combine_buffers(updates, shares)
        return self.finish(ModelState(weights, buffers))

    def combine_buffers(self, updates: Updates, shares: Tensor) -> Tensor:
        """Return the next buffers (B,), by the policy, for convex shares (n,) of the clients."""
        policy = self.resources.averaging
        if policy.bn_policy == "keep" or updates.buffers.shape[1] == 0:
            return updates.global_buffers
        mean = convex(updates.buffers, shares)
        counters = self.resources.spec.counters
        if policy.bn_policy == "original":
            return torch.where(counters, mean.trunc(), mean)
        if policy.server_lr <= 1:  # beyond 1 the step could make a variance negative
            mean = step(updates.global_buffers, mean, policy.server_lr)
        highest = updates.buffers[shares > 0].amax(0)
        return torch.where(counters, highest, mean)

    def average_scaled(self, updates: Updates, shares: Tensor, factors: Tensor) -> ModelState:
        """Move the global model by the clients' scaled updates.

        The step is `sum_i shares_i * factors_i * delta_i`; buffers move by the same factors as
        far as those are at most 1 (more could make a variance negative).

        Parameters
        ----------
        updates
            The round.
        shares
            (n,) convex weights; where they sum to zero the global model stays.
        factors
            (n,) what each update is multiplied with, such as a clip.
        """
        if shares.sum() == 0:
            return updates.global_state
        pulled = shares.double() * factors.double()
        scaled = combine(updates.weights, pulled, updates.global_weights)
        weights = step(updates.global_weights, scaled, self.resources.averaging.server_lr)
        if updates.buffers.shape[1] == 0:
            return ModelState(weights, updates.global_buffers)
        gentle = factors.clamp(0, 1).float()[:, None]
        buffers = updates.global_buffers + gentle * (updates.buffers - updates.global_buffers)
        counters = self.resources.spec.counters
        moved = replace(updates, buffers=torch.where(counters, updates.buffers, buffers))
        return self.finish(ModelState(weights, self.combine_buffers(moved, shares)))

    def finish(self, state: ModelState) -> ModelState:
        """Complete a new global model: no negative variance; statistics re-estimated if asked."""
        # One client with a negative variance would otherwise make every answer of the model NaN.
        negative = self.resources.spec.variances & (state.buffers < 0)
        if negative.any():
            log.warning("%d negative BatchNorm variances set to 0", int(negative.sum()))
            state = state._replace(buffers=state.buffers.masked_fill(negative, 0))
        recalibrates = self.resources.averaging.bn_policy == "recalibrate"
        return self._recalibrate(state) if recalibrates else state

    def _recalibrate(self, state: ModelState) -> ModelState:
        clean = self.resources.clean
        assert clean is not None, "resolve grants clean data to bn_policy recalibrate"
        model = self.resources.module(state)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
                module.reset_running_stats()
                module.momentum = None  # a cumulative average over the batches
        model.train()
        stream = self.resources.seeds.generator("recalibrate")
        with torch.no_grad(), global_stream(stream):  # dropout draws from it
            for batch in clean.x.to(self.resources.device).split(256):
                if len(batch) > 1:
                    model(batch)
        return ModelState(state.weights, self.resources.spec.flatten(model).buffers)

    def shares(self, updates: Updates, accepted: Tensor) -> Tensor:
        """Return convex weights (n,) of the accepted clients: equal, or by samples."""
        raw = accepted.double()
        if self.resources.averaging.weighting == "samples":
            raw = raw * updates.num_samples.double()
        total = raw.sum()
        return raw / total if total > 0 else torch.zeros_like(raw)


def convex(rows: Tensor, shares: Tensor) -> Tensor:
    """Return the convex combination (P,) of rows (n, P), summed in float64.

    In float64 the mean of identical rows is that row to the bit.
    """
    used = shares.nonzero().flatten()
    chosen = shares[used].double()
    every = len(used) == len(rows)  # then a block is read where it lies, in half the time
    out = torch.empty(rows.shape[1])
    for columns in blocks(rows.shape[1]):
        block = rows[:, columns] if every else rows[used, columns]
        out[columns] = (chosen @ block.double()).float()
    return out


def combine(rows: Tensor, factors: Tensor, origin: Tensor) -> Tensor:
    """Return `origin + sum_i factors_i * (rows_i - origin)` (P,), summed in float64."""
    out = torch.empty(rows.shape[1])
    for columns in blocks(rows.shape[1]):
        start = origin[columns].double()
        away = rows[:, columns].to(torch.float64, copy=True).sub_(start)
        out[columns] = (start + factors.double() @ away).float()
    return out


def step(start: Tensor, end: Tensor, rate: float) -> Tensor:
    """Return `start + rate * (end - start)`, exactly `end` for rate 1."""
    return end if rate == 1 else start + rate * (end - start)


def verdicts(
    updates: Updates,
    accepted: Sequence[bool],
    shares: Tensor,
    *,
    scores: Sequence[float] | None = None,
    reasons: Mapping[int, str] | None = None,
) -> tuple[Verdict, ...]:
    """Pair every client of the round with what was decided; `reasons` by row."""
    return tuple(
        Verdict(
            client,
            bool(accepted[row]),
            float(shares[row]),
            None if scores is None else float(scores[row]),
            "" if accepted[row] else (reasons or {}).get(row, "refused"),
        )
        for row, client in enumerate(updates.client_ids)
    )


def rows_by_id(client_ids: Sequence[ClientId]) -> list[int]:
    """Return the rows in the order of their clients' ids, numbers before texts.

    What depends on an order (ties, the seeding of k-means) goes by this one, never by the order
    in which updates arrived.

    Examples
    --------
    >>> rows_by_id([7, "b", 3, "a"])
    [2, 0, 3, 1]
    """

    def key(row: int) -> tuple[int, int, str]:
        client = client_ids[row]
        return (1, 0, client) if isinstance(client, str) else (0, client, "")

    return sorted(range(len(client_ids)), key=key)


def require_clusterable(name: str, setting: Setting, least: int = 4) -> None:
    """Refuse rounds of fewer than `least` clients.

    Raises
    ------
    ConfigError
        If the round is smaller.
    """
    if setting.round_size < least:
        raise ConfigError(
            f"federation.round_size = {setting.round_size}: {name} needs at least {least} clients "
            "in a round to tell a majority; raise it."
        )
