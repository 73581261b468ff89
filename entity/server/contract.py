"""What a defense is: the contract that every file of `defenses/` keeps.

A server sees tensors and what its threat model grants it, never test data and never who is
malicious. So the same object serves a real federation.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from entity.config.schema import ConfigError
from entity.layout import ModelState, ParamSpec
from entity.moved import names_of
from entity.seeding import Seeds
from entity.server.averaging import (
    Averaging,
    averaged,
    averaged_buffers,
    averaged_scaled,
    convex_shares,
)
from entity.server.buffers import recalibrate, without_negative_variances
from entity.server.optimiser import OptimiserArgs, ServerOptimiser
from entity.server.votes import Electorate
from entity.training import CPU, Recipe
from entity.updates import Aggregation, ClientId, Updates

log = logging.getLogger("entity")

_OPTIMISER = "server optimiser"
"""Key of the optimiser's state beside the defense's own."""


@dataclass(frozen=True)
class Needs:
    """What a defense must be granted. `drop list` shows it; the experiment hands over only this."""

    clean_data: bool = False
    """Clean images that are in no client's data."""
    clean_labels: bool = False
    """Their labels, too."""
    images: bool = False
    """Clients' samples that are square images, as it makes up images or triggers itself."""
    client_identity: bool = False
    """Who sent an update, across rounds."""
    individual_updates: bool = False
    """Each client's update; rules out secure aggregation."""
    honest_majority: bool = False
    """More honest than malicious clients in every round."""
    malicious_bound: bool = False
    """A bound f on the malicious clients in a round; an estimate, or given in the config."""
    client_votes: bool = False
    """Votes of the round's clients on one another's models, each taken on its own data; in the
    simulator alone."""
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
class Resources:
    """What the operator of a federation gives to a server."""

    spec: ParamSpec
    """Layout of the model."""
    build: Callable[[torch.Generator], nn.Module]
    """Makes a freshly initialised classifier."""
    seeds: Seeds
    """Source of the server's randomness."""
    image: tuple[int, int]
    """Channels and size of an image; the first and the last number of another sample's shape."""
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
    rounds: int | None = None
    """T, rounds of the experiment, where it is known how many there will be."""
    optimiser: OptimiserArgs | None = None
    """What steps by the defense's answer, at the averaging's rate; None takes that answer."""
    electorate: Electorate | None = None
    """The clients as voters, where the defense's needs grant it."""
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
    """Channels and size; the first and the last number of another sample's shape."""
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
    trains_on: ClassVar[tuple[str, ...]] = ()
    """Settings that are how many samples a batch of its own training has."""
    robust: ClassVar[bool] = True
    """Whether it claims that a few clients cannot do with the model as they like; says what
    becomes of BatchNorm statistics under `bn_policy = auto`."""
    by_majority: ClassVar[bool] = True
    """Whether that holds only as long as most of a round are honest. If not, a median of BatchNorm
    statistics is by the clients' shares."""
    remembers: ClassVar[str] = ""
    """What it holds against single clients from round to round, which `pardon` forgets; "" where
    it judges every round by itself."""
    least_clients: ClassVar[int] = 1
    """Clients in a round that the rule needs, whatever its settings."""
    revision: ClassVar[int] = 1
    """To be raised when the same settings give other numbers than in an earlier version: a part of
    the identities of its runs, which go on with the revision that they were begun with."""

    def __init__(self, args: Args, resources: Resources) -> None:
        self.args = args
        _refuse_without_clean_data(type(self).__name__, self.needs(args), resources)
        averaging = resources.averaging.settled(robust=self.robust, majority=self.by_majority)
        self.optimiser: ServerOptimiser | None = None
        """Steps by what this defense answers, which then answers at the rate 1."""
        if resources.optimiser is not None:
            self.optimiser = ServerOptimiser(resources.optimiser, averaging.server_lr)
            averaging = replace(averaging, server_lr=1.0)
        self.resources = replace(resources, averaging=averaging)
        self._warned: set[str] = set()

    @classmethod
    def needs(cls, args: Args) -> Needs:
        """Say what the threat model of this defense grants it, with these settings."""
        return Needs()

    @classmethod
    def check(cls, args: Args, setting: Setting) -> None:
        """Refuse settings that cannot work.

        Raises
        ------
        ConfigError
            If they cannot; the message says what to change.
        """

    def too_few(self, came: int, asked: int) -> str:
        """Say why a round cannot be decided, which then keeps the global model; "" if it can.

        Every bound of a rule is held against the clients whose updates are there, which after
        dropouts and refusals are fewer than `check` was told of.

        Parameters
        ----------
        came
            Clients with an update that passed the gate.
        asked
            Clients that were sent the model: as many of them may be malicious as was expected,
            and all of these may have come.
        """
        if came >= self.least_clients:
            return ""
        return f"{came} of {asked} clients are left and {self.least_clients} are needed"

    def warn_once(self, kind: str, message: str) -> None:
        """Warn of something that may hold in every round, in the first of them."""
        if kind not in self._warned:
            self._warned.add(kind)
            log.warning("%s: %s", type(self).__name__, message)

    @abstractmethod
    def aggregate(self, updates: Updates) -> Aggregation:
        """Reduce a round's updates, all of them finite and of enough clients (`too_few`).

        The matrix behind `updates` is reused after the round: keep copies, not views.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what lives across rounds: tensors, numbers, texts, and lists or tables of them.

        It is called after every round: return no copies, but tensors that are never changed in
        place.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""

    def snapshot(self) -> dict[str, Any]:
        """Return the state of the defense and of its optimiser, for a checkpoint."""
        state = self.state_dict()
        if self.optimiser is None:
            return state
        return {**state, _OPTIMISER: self.optimiser.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `snapshot` returned."""
        self.load_state_dict({key: each for key, each in state.items() if key != _OPTIMISER})
        if self.optimiser is not None:
            self.optimiser.load_state_dict(state.get(_OPTIMISER, {}))

    @classmethod
    def looks_ahead(cls, args: Args) -> bool:
        """Whether a round depends on how many the run has, so that it cannot go on with more.

        Parameters
        ----------
        args
            The defense's settings.
        """
        return False

    def withdrawn(self) -> None:
        """Take back what the last answer said of the model, which was not released.

        It was not finite, and the global model stays. For a defense that remembers what it did to
        the model; what it learned of the clients stays.
        """

    def complete(self, answer: Aggregation, round: int) -> Aggregation:
        """Return the answer as it is released, after an optimiser's step; by default as it is.

        For a defense that changes the model itself, whatever the step that led there. Without an
        optimiser `aggregate` does so, and this is not called.

        Parameters
        ----------
        answer
            With the stepped model.
        round
            Number of the round.
        """
        return answer

    def pardon(self, client: ClientId) -> str:
        """Forget what is held against a client, and say what that was; "" if it was nothing.

        The client is a new one after that: nobody vouches for its next update.
        """
        return ""

    def shares(self, updates: Updates, accepted: Tensor) -> Tensor:
        """Return convex weights (n,) of the clients where `accepted` (n,) is true."""
        return convex_shares(updates, accepted, self.resources.averaging)

    def average(self, updates: Updates, shares: Tensor) -> ModelState:
        """Move the global model towards the clients' mean.

        Parameters
        ----------
        updates
            The round.
        shares
            (n,) convex weights; where they sum to zero the global model stays.
        """
        _refuse_unless_convex(type(self).__name__, shares)
        if shares.sum() == 0:
            return updates.global_state
        return self.finish(averaged(updates, shares, self.resources.averaging))

    def average_scaled(self, updates: Updates, shares: Tensor, factors: Tensor) -> ModelState:
        """Move the global model by the clients' scaled updates.

        Parameters
        ----------
        updates
            The round.
        shares
            (n,) convex weights; where they sum to zero the global model stays.
        factors
            (n,) what each update is multiplied with, such as a clip.
        """
        _refuse_unless_convex(type(self).__name__, shares)
        if shares.sum() == 0:
            return updates.global_state
        return self.finish(averaged_scaled(updates, shares, factors, self.resources.averaging))

    def combine_buffers(self, updates: Updates, shares: Tensor) -> Tensor:
        """Return the next buffers (B,), for a rule that combines the weights in its own way."""
        return averaged_buffers(updates, shares, self.resources.averaging)

    def finish(self, state: ModelState) -> ModelState:
        """Complete a new global model: no negative variance; statistics re-estimated if asked."""
        resources = self.resources
        state = without_negative_variances(state, resources.spec)
        if resources.averaging.bn_policy != "recalibrate":
            return state
        assert resources.clean is not None, "setup grants clean data to bn_policy recalibrate"
        model = resources.module(state)
        x = resources.clean.x.to(resources.device)
        recalibrate(model, x, resources.seeds.generator("recalibrate"))
        return state._replace(buffers=resources.spec.flatten(model).buffers)


def _refuse_unless_convex(name: str, shares: Tensor) -> None:
    """Refuse weights of clients by which a mean would be none.

    Raises
    ------
    ConfigError
        If one is negative or no number, or they sum to more than 1.
    """
    total = float(shares.sum())
    if not bool((shares >= 0).all()) or total > 1 + 1e-4:
        raise ConfigError(
            f"{name} averages with shares from {float(shares.min()):g} to "
            f"{float(shares.max()):g} that sum to {total:g}; they must be from 0 and sum to 1, or "
            "to 0 for nobody."
        )


def _refuse_without_clean_data(name: str, needs: Needs, resources: Resources) -> None:
    """Refuse resources that a server of one's own was made with; the simulator grants what is due.

    Raises
    ------
    ConfigError
        If there are no clean data, and somebody looks at them.
    """
    if resources.clean is not None:
        return
    if needs.clean_data:
        raise ConfigError(f"clean = None: {name} looks at clean data, with these settings.")
    if resources.averaging.bn_policy == "recalibrate":
        raise ConfigError(
            "clean = None: bn_policy = recalibrate estimates BatchNorm statistics on clean data."
        )


if not TYPE_CHECKING:
    __getattr__ = names_of(__name__)
