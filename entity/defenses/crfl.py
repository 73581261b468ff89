"""CRFL: clipped and noised global models, and a certificate for what they predict.

Xie et al., "CRFL: Certifiably Robust Federated Learning against Backdoor Attacks", ICML 2021,
arXiv 2106.08283. In training the parameters of every aggregate are clipped to a norm rho_t and
noised with N(0, sigma^2), those of the last round's, which is released, clipped alone. For
prediction, many noised copies of the released model vote; from the shares of the votes follows how
large a backdoor in the attackers' data may be without changing the prediction.

Where we leave the paper and its code, and why:

- norm and noise are of trainable parameters only, and frozen ones stay; the code's noise is on
  BatchNorm statistics, too. With `bn_policy = recalibrate` these are estimated anew for the clipped
  and noised model;
- every round's model is judged as it is sent, noised but in the last round; the code tests each
  before its noise, so its curves are smoother;
- rho_t of the paper is for networks of 10,000 parameters. `rho_start = "auto"` starts from 1.5
  times the norm of the first global model instead;
- a radius is given per unit of the Lipschitz constant of the loss's gradient, which is known for
  the paper's logistic regression only, and as if the last round were attacked, after which
  nothing contracts.

The certificate assumes what the theorem does: one attacked round, full participation, plain SGD
with a Lipschitz gradient, and everybody's aggregation weight known. The record of a run says
which of these it breaks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor, nn

from entity.config.schema import Count, NonNegative, Positive, Whole
from entity.layout import ModelState
from entity.server.certificate import (
    Certified,
    CertifyingServer,
    Threat,
    certified_radius,
    smoothed_votes,
    vote_bounds,
)
from entity.server.contract import Resources
from entity.server.streaming import StreamingServer
from entity.updates import Aggregation, Stopwatch, Updates, verdicts

_ROOM = 1.5
"""rho_start = auto: norm of the first global model times this."""


@dataclass(frozen=True)
class CrflArgs:
    """Settings of CRFL; defaults are the paper's for MNIST unless said."""

    sigma: NonNegative = 0.01
    """Standard deviation of the noise on every parameter."""
    rho_start: Positive | Literal["auto"] = "auto"
    """Norm that the parameters are clipped to, at round 0 (paper: 2 MNIST, 4 EMNIST); auto is
    1.5 times the norm of the first global model (ours)."""
    rho_growth: NonNegative = 0.1
    """What it grows by in every round (paper: 0.1 MNIST, 0.25 EMNIST)."""
    rho_max: Positive | None = None
    """Where it stops growing (paper's code: 15 MNIST, 100 EMNIST); null never."""
    final_round: Count | None = None
    """Round whose model is released, and so clipped but not noised; null is the last one."""
    certified_images: Whole = 100
    """Test images that are certified after the last round; 0 certifies none (ours)."""
    certified_votes: Count = 100
    """Noised copies of the final model that vote on each of them (paper: 1000)."""


class Crfl(StreamingServer[CrflArgs], CertifyingServer[CrflArgs]):
    """FedAvg with clipped and noised parameters."""

    summary = "CRFL: clip and noise the global parameters; certifiable by smoothed votes"
    paper = "Xie et al. 2021, arXiv 2106.08283"
    hyperparameters = CrflArgs

    def __init__(self, args: CrflArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        self.start = None if args.rho_start == "auto" else args.rho_start
        """rho at round 0, once it is known."""
        self.noise = 0.0
        """Standard deviation of the noise that the last model was given."""
        self._noise_before = 0.0

    @classmethod
    def looks_ahead(cls, args: CrflArgs) -> bool:
        """Return whether the last round's model is the one that is not noised."""
        return args.final_round is None and args.sigma > 0

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average everybody, then clip and noise the parameters, with an optimiser later."""
        watch = Stopwatch()
        self._noise_before = self.noise
        if self.start is None:
            moving = updates.spec.trained(updates.global_weights)
            self.start = _ROOM * float(moving.double().norm())
        shares = self.shares(updates, torch.ones(len(updates), dtype=torch.bool))
        with watch("average"):
            state = self.average(updates, shares)
        judged = verdicts(updates, [True] * len(updates), shares)
        answer = Aggregation(*state, judged, seconds=watch.seconds)
        return answer if self.optimiser is not None else self.complete(answer, updates.round)

    def complete(self, answer: Aggregation, round: int) -> Aggregation:
        """Clip and noise the parameters of the model that is to be released."""
        watch = Stopwatch()
        bound = self.bound(round)
        released = round == (self.args.final_round or self.resources.rounds)
        sigma = self.noise = 0.0 if released else self.args.sigma
        with watch("smooth"):
            spec = self.resources.spec
            moving = spec.trained(answer.weights)
            before = float(moving.double().norm())
            weights = clip_to_norm(moving, bound)
            rng = self.resources.seeds.generator("crfl noise", round=round)
            weights = weights + sigma * torch.randn(len(weights), generator=rng)
            weights = spec.with_frozen(weights, answer.weights)
            state = self.finish(ModelState(weights, answer.buffers))
        numbers = {"model_norm": before, "rho": bound, "noise_std": sigma}
        return answer.completed(state, numbers, watch.seconds)

    def withdrawn(self) -> None:
        """Remember the noise of the model that stays."""
        self.noise = self._noise_before

    def bound(self, round: int) -> float:
        """Return rho_t = min(rho_max, rho_start + rho_growth t)."""
        assert self.start is not None, "set by the first round"
        return min(self.args.rho_max or inf, self.start + self.args.rho_growth * round)

    @property
    def certified_images(self) -> int:
        """As the settings say; none without noise."""
        return self.args.certified_images if self.args.sigma > 0 else 0

    @property
    def departures(self) -> tuple[str, ...]:
        """Say that the model is noised, as where the last round had no sound update."""
        said = f"the final model has noise of {self.noise:g} (theorem: the last one has none)"
        return (said,) if self.noise > 0 else ()

    def certify(self, model: nn.Module, x: Tensor, threat: Threat) -> Certified:
        """Let noised copies of the model vote; radii are per unit of the Lipschitz constant.

        Parameters
        ----------
        model
            Holds the final global model, clipped.
        x
            (N, C, H, W) images in [-1, 1], on the model's device.
        threat
            The attacker to be certified against.
        """
        args, rng = self.args, self.resources.seeds.generator("crfl votes")
        classes = self.resources.classes
        votes = smoothed_votes(model, x, classes, args.sigma, args.certified_votes, rng)
        radii = [
            certified_radius(p_a, p_b, sigma=args.sigma, lipschitz=1.0, attackers=[threat])
            for p_a, p_b in zip(*(bound.tolist() for bound in vote_bounds(votes)), strict=True)
        ]
        return Certified(votes.argmax(1), torch.tensor(radii, dtype=torch.float64))

    def state_dict(self) -> dict[str, Any]:
        """Return where rho started, and the noise of the last model."""
        return {"start": self.start, "noise": self.noise}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.start = state["start"]
        self.noise = state.get("noise", 0.0)  # which checkpoints of earlier versions have not


def clip_to_norm(weights: Tensor, bound: float) -> Tensor:
    """Return weights (P,) scaled down to a Euclidean norm of at most `bound`.

    Examples
    --------
    >>> clip_to_norm(torch.tensor([3.0, 4.0]), 1.0)
    tensor([0.6000, 0.8000])
    """
    wide = weights.double()  # float32 has no room for the factor of a huge model
    size = float(wide.norm())
    return (wide * (bound / size)).float() if size > bound else weights
