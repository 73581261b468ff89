"""A certificate: how large a backdoor may be without changing what a smoothed model predicts.

Xie et al., "CRFL: Certifiably Robust Federated Learning against Backdoor Attacks", ICML 2021,
arXiv 2106.08283. Noised copies of the final model vote on every image. From the shares of the two
leading classes follows a radius: a backdoor of a smaller norm, over the features and the label of
a poisoned sample, leaves the prediction as it is.

Where we leave the paper's code, and why: the shares of votes are bounded by Clopper-Pearson
intervals that hold for all classes at once; the code's two Hoeffding bounds ignore that the two
leading classes are read off the same votes.
"""

from abc import abstractmethod
from collections.abc import Sequence
from math import inf, log, prod, sqrt
from typing import NamedTuple

import torch
from scipy.special import betaincinv, ndtr
from torch import Tensor, nn

from entity.server.contract import Args, Server
from entity.training import logits


class Threat(NamedTuple):
    """One attacker in the attacked round, as a certificate supposes it to be."""

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


class Certified(NamedTuple):
    """Predictions of a final model, and how far each is certified."""

    predicted: Tensor
    """(N,) classes."""
    radii: Tensor
    """(N,) norms of a backdoor below which the prediction holds; 0 is no certificate."""


class CertifyingServer(Server[Args]):
    """A defense whose final model predicts with a certificate."""

    @property
    @abstractmethod
    def certified_images(self) -> int:
        """Number of test images to certify after the last round; 0 certifies nothing."""

    @property
    def departures(self) -> tuple[str, ...]:
        """What the rounds did to the final model that the theorem does not have."""
        return ()

    @abstractmethod
    def certify(self, model: nn.Module, x: Tensor, threat: Threat) -> Certified:
        """Predict images as the defense would in use, each with its radius.

        Parameters
        ----------
        model
            Holds the final global model; as it was when this returns.
        x
            (N, C, H, W) images in [-1, 1], on the model's device. There are no labels.
        threat
            The attacker to be certified against.
        """


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
        Standard deviation of the noise on its parameters; frozen ones and buffers are left alone.
    copies
        M, copies that vote (paper: 1000).
    rng
        Source of the noise.

    Returns
    -------
    Tensor
        (N, K) votes, M in a row. The prediction is the row's argmax.
    """
    parameters = [each for each in model.parameters() if each.requires_grad]
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


def certified_radius(
    p_a: float,
    p_b: float,
    *,
    sigma: float,
    lipschitz: float,
    attackers: Sequence[Threat],
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
        All attackers of the round; infinity if there is none.
    later
        (rho_t, sigma_t) of every later round, the last one with the noise of the votes.

    Examples
    --------
    >>> threat = Threat(share=0.1, scale=10, steps=1, lr=1, poisoned=1)
    >>> radius = certified_radius(0.9, 0.1, sigma=1, lipschitz=1, attackers=[threat])
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
