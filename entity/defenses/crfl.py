"""CRFL: clipped and noised global models, and a certificate for what they predict.

Xie et al., "CRFL: Certifiably Robust Federated Learning against Backdoor Attacks", ICML 2021,
arXiv 2106.08283. In training the parameters of every aggregate are clipped to a norm rho_t and
noised with N(0, sigma^2). For prediction, many noised copies of the final model vote; from the
shares of the votes follows how large a backdoor in the attackers' data may be without changing
the prediction.

Where we leave the paper and its code, and why:

- the noise is on trainable parameters only; the code's is on BatchNorm statistics, too. With
  `bn_policy = recalibrate` these are estimated anew for the clipped and noised model;
- rho_t of the paper is for networks of 10,000 parameters. `rho_start = "auto"` starts from 1.5
  times the norm of the first global model instead;
- the shares of votes are bounded by Clopper-Pearson intervals that hold for all classes at once;
  the code's two Hoeffding bounds ignore that the two leading classes are read off the same votes.

The certificate assumes what the theorem does: one attacked round, full participation, plain SGD
with a Lipschitz gradient, and everybody's aggregation weight known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log, prod, sqrt
from typing import Any, Literal, NamedTuple

import torch
from scipy.special import betaincinv, ndtr
from torch import Tensor, nn

from entity.config.schema import Count, NonNegative, Positive
from entity.layout import ModelState
from entity.server.contract import Resources
from entity.server.streaming import StreamingServer
from entity.training import logits
from entity.updates import Aggregation, Stopwatch, Updates, verdicts

_ROOM = 1.5
"""rho_start = auto: norm of the first global model times this."""


@dataclass(frozen=True)
class CrflArgs:
    """Settings of CRFL's training; defaults are the paper's for MNIST unless said."""

    sigma: NonNegative = 0.01
    """Standard deviation of the noise on every parameter."""
    rho_start: Positive | Literal["auto"] = "auto"
    """Norm that the parameters are clipped to, at round 0 (paper: 2 MNIST, 4 EMNIST); auto is
    1.5 times the norm of the first global model (ours)."""
    rho_growth: NonNegative = 0.1
    """What it grows by in every round (paper: 0.1 MNIST, 0.25 EMNIST)."""
    rho_max: Positive | None = None
    """Where it stops growing (paper's code: 15); null never."""
    final_round: Count | None = None
    """Round whose model is released, and so clipped but not noised: federation.rounds."""


class Crfl(StreamingServer[CrflArgs]):
    """FedAvg with clipped and noised parameters."""

    summary = "CRFL: clip and noise the global parameters; certifiable by smoothed votes"
    paper = "Xie et al. 2021, arXiv 2106.08283"
    hyperparameters = CrflArgs

    def __init__(self, args: CrflArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        self.start = None if args.rho_start == "auto" else args.rho_start
        """rho at round 0, once it is known."""

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average everybody, then clip and noise the parameters."""
        watch = Stopwatch()
        if self.start is None:
            self.start = _ROOM * float(updates.global_weights.double().norm())
        shares = self.shares(updates, torch.ones(len(updates), dtype=torch.bool))
        with watch("average"):
            state = self.average(updates, shares)
        bound = self.bound(updates.round)
        sigma = 0.0 if updates.round == self.args.final_round else self.args.sigma
        with watch("smooth"):
            before = float(state.weights.double().norm())
            weights = clip_to_norm(state.weights, bound)
            rng = self.resources.seeds.generator("crfl noise", round=updates.round)
            weights = weights + sigma * torch.randn(len(weights), generator=rng)
            state = self.finish(ModelState(weights, state.buffers))
        return Aggregation(
            *state,
            verdicts(updates, [True] * len(updates), shares),
            {"model_norm": before, "rho": bound, "noise_std": sigma},
            watch.seconds,
        )

    def bound(self, round: int) -> float:
        """Return rho_t = min(rho_max, rho_start + rho_growth t)."""
        assert self.start is not None, "set by the first round"
        return min(self.args.rho_max or inf, self.start + self.args.rho_growth * round)

    def state_dict(self) -> dict[str, Any]:
        """Return where rho started."""
        return {"start": self.start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.start = state["start"]


def clip_to_norm(weights: Tensor, bound: float) -> Tensor:
    """Return weights (P,) scaled down to a Euclidean norm of at most `bound`.

    Examples
    --------
    >>> clip_to_norm(torch.tensor([3.0, 4.0]), 1.0)
    tensor([0.6000, 0.8000])
    """
    size = float(weights.double().norm())
    return weights * (bound / size) if size > bound else weights


def smoothed_votes(
    model: nn.Module, x: Tensor, classes: int, sigma: float, copies: int, rng: torch.Generator
) -> Tensor:
    """Let noised copies of a model vote.

    Parameters
    ----------
    model
        The clipped model; as it was when this returns.
    x
        (N, C, H, W) images in [-1, 1], on the model's device.
    classes
        K.
    sigma
        Standard deviation of the noise on its parameters; buffers are left alone.
    copies
        M, copies that vote (paper: 1000).
    rng
        Source of the noise.

    Returns
    -------
    Tensor
        (N, K) votes, M in a row. The prediction is the row's argmax.
    """
    parameters = list(model.parameters())
    originals = [parameter.detach().clone() for parameter in parameters]
    votes = torch.zeros(len(x), classes, dtype=torch.long)
    rows = torch.arange(len(x))
    try:
        for _ in range(copies):
            with torch.no_grad():
                for parameter, original in zip(parameters, originals, strict=True):
                    noise = torch.randn(original.shape, generator=rng).to(original.device)
                    parameter.copy_(original + sigma * noise)
            votes[rows, logits(model, x).argmax(1).cpu()] += 1
    finally:
        with torch.no_grad():
            for parameter, original in zip(parameters, originals, strict=True):
                parameter.copy_(original)
    return votes


def vote_bounds(votes: Tensor, alpha: float = 0.001) -> tuple[Tensor, Tensor]:
    """Bound the probabilities of the two leading classes, with confidence 1 - alpha.

    Parameters
    ----------
    votes
        (N, K), as `smoothed_votes` returns them.
    alpha
        Probability that any bound of a row is wrong; split over its 2 K bounds.

    Returns
    -------
    tuple
        Lower bounds p_A (N,) of the leading class and upper bounds p_B (N,) of all others, at
        most 1 - p_A.
    """
    counts = votes.double().sort(1, descending=True).values.numpy()
    copies, classes = counts.sum(1), counts.shape[1]
    each = alpha / (2 * classes)
    first, second = counts[:, 0], counts[:, 1]
    lower = torch.from_numpy(betaincinv(first, copies - first + 1, each))
    upper = torch.from_numpy(betaincinv(second + 1, copies - second, 1 - each)).nan_to_num(1.0)
    return lower, torch.minimum(upper, 1 - lower)


class Attacker(NamedTuple):
    """What the certificate supposes of one attacker in the attacked round."""

    share: float
    """p_i, weight in the aggregate."""
    scale: float
    """gamma_i, factor its update is scaled with."""
    steps: int
    """tau_i, local steps."""
    lr: float
    """eta_i, local learning rate."""
    poisoned: float
    """q_i / n_i, poisoned share of a batch."""


def certified_radius(
    p_a: float,
    p_b: float,
    *,
    sigma: float,
    lipschitz: float,
    attackers: Sequence[Attacker],
    later: Sequence[tuple[float, float]] = (),
) -> float:
    """Return the largest backdoor norm that provably does not change a smoothed prediction.

    With R attackers and L the Lipschitz constant,

        RAD^2 = -ln(1 - (sqrt p_A - sqrt p_B)^2) sigma^2 / (2 R L^2 S C),
        S = sum_i (p_i gamma_i tau_i eta_i q_i / n_i)^2,
        C = product over later rounds of 2 Phi(rho_t / sigma_t) - 1.

    Parameters
    ----------
    p_a, p_b
        Bounds as `vote_bounds` gives them; no certificate, 0, unless p_a is above p_b.
    sigma
        Noise of the attacked round.
    lipschitz
        L_Z, of the gradient with respect to the data.
    attackers
        Who attacked; infinity if nobody did.
    later
        (rho_t, sigma_t) of every later round, the last one with the noise of the votes.

    Examples
    --------
    >>> one = Attacker(share=0.1, scale=10, steps=1, lr=1, poisoned=1)
    >>> radius = certified_radius(0.9, 0.1, sigma=1, lipschitz=1, attackers=[one])
    >>> round(radius**2, 6)  # -ln(1 - (3 - 1)^2 / 10) / 2
    0.255413
    """
    if p_a <= p_b:
        return 0.0
    gap = min(1.0, (sqrt(p_a) - sqrt(p_b)) ** 2)
    spread = sum((a.share * a.scale * a.steps * a.lr * a.poisoned) ** 2 for a in attackers)
    contraction = prod(2 * float(ndtr(rho / noise)) - 1 for rho, noise in later)
    reach = 2 * len(attackers) * lipschitz**2 * spread * contraction
    if gap == 1 or reach == 0:
        return inf
    return sqrt(-log(1 - gap) * sigma**2 / reach)
