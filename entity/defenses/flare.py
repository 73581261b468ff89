"""FLARE: trust by the distance between penultimate activations.

Wang et al., "FLARE: Defending Federated Learning against Model Poisoning Attacks via Latent Space
Representations", AsiaCCS 2022, doi 10.1145/3488932.3517395. Every model maps the server's clean
images to the activations before its output layer; the maximum mean discrepancy (MMD) compares two
models' activations; every client votes for the half of the clients that are nearest to it, and
the aggregate weighs clients by softmax(votes / temperature).

Where we leave the paper and the original DROP code, and why:

- the Gaussian kernel's width is the median distance between activations; with the code's 1 it is
  zero between any two activations of a wide layer, and every distance is a tie;
- the MMD is unbiased: the diagonals are left out of its means, and of its divisors;
- clients at equal distance share the votes that are left, instead of the first ones taking all;
- the activations are the input of the output layer by its name, not of the last module by order;
- a refused client has no weight: the softmax leaves it a small one, with which a model of any
  length could move the aggregate anywhere.

Votes range over tens, so at temperature 1 the softmax is nearly one-hot: `effective_clients`
says how many clients the aggregate really is made of. A client counts as refused if its weight is
below half of an even share among these. The output layer itself is judged by nobody.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from entity.config.schema import ConfigError, Count, Positive, Range
from entity.models import head_of
from entity.server.contract import Needs, Resources, Server, Setting
from entity.updates import Aggregation, Stopwatch, Updates, verdicts

_POOL = 2000
"""Activations, of all clients together, that the median distance is taken over."""
_DIGITS = 10
"""Decimals of an MMD, which is of order 1, that count: the rest is rounding."""


@dataclass(frozen=True)
class FlareArgs:
    """Settings of FLARE; names and defaults are the original's unless said."""

    temperature: Positive = 1.0
    """Temperature of the softmax over the votes."""
    num_seed: Annotated[int, Range(2)] = 100
    """Clean images that the activations are taken on."""
    batch_size: Count = 512
    """Images in a batch."""
    kernel: Literal["median"] | Positive = "median"
    """Width of the Gaussian kernel; the original code has 1 (ours)."""


class Flare(Server[FlareArgs]):
    """The mean weighted by votes among latent representations."""

    summary = "FLARE: trust weights by MMD between penultimate activations on clean images"
    paper = "Wang et al. 2022, doi 10.1145/3488932.3517395"
    hyperparameters = FlareArgs
    least_clients = 3

    def __init__(self, args: FlareArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        clean = resources.clean
        assert clean is not None, "needs() asks for clean data"
        order = torch.randperm(len(clean.x), generator=resources.seeds.generator("flare images"))
        self.images = clean.x[order[: args.num_seed]].to(resources.device)

    @classmethod
    def needs(cls, args: FlareArgs) -> Needs:
        """Ask for clean images, single updates and an honest majority."""
        return Needs(clean_data=True, individual_updates=True, honest_majority=True)

    @classmethod
    def check(cls, args: FlareArgs, setting: Setting) -> None:
        """Refuse too few clients or too few clean images."""
        if setting.round_size < cls.least_clients:
            raise ConfigError(
                f"federation.round_size = {setting.round_size}: flare needs at least 3 clients in "
                "a round to vote; raise it."
            )
        if setting.clean_samples < args.num_seed:
            raise ConfigError(
                f"server.defense.defense_args.num_seed = {args.num_seed}: the server holds "
                f"{setting.clean_samples} clean samples; lower it or raise server.held_out."
            )

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average with the trust weights."""
        watch = Stopwatch()
        with watch("activations"):
            model = self.resources.module(updates.global_state)
            latent = torch.stack([self._latent(model, updates, row) for row in range(len(updates))])
        with watch("mmd"):
            width = self.args.kernel
            width = median_distance(latent) if width == "median" else width
            received = votes(mmd(latent, width))
        trust = (received / self.args.temperature).softmax(0)
        trusted = trust >= 0.5 * (trust**2).sum()
        trust = torch.where(trusted, trust, 0)
        trust = trust / trust.sum()
        effective = float(1 / (trust**2).sum())
        with watch("average"):
            state = self.average(updates, trust)
        return Aggregation(
            *state,
            verdicts(
                updates,
                trusted.tolist(),
                trust,
                scores=received.tolist(),
                reasons=dict.fromkeys(range(len(updates)), "trust below half of an even share"),
            ),
            {"effective_clients": effective, "kernel_width": width},
            watch.seconds,
        )

    def _latent(self, model: nn.Module, updates: Updates, row: int) -> Tensor:
        self.resources.spec.load(model, updates.state(row))
        return penultimate(model, self.images, self.args.batch_size).cpu()


@torch.inference_mode()
def penultimate(model: nn.Module, x: Tensor, batch_size: int) -> Tensor:
    """Return the activations (S, F) float64 that enter a model's output layer, for images x.

    Activations that are not finite become finite and far from all others, so that one client
    cannot distort the distances of the others.
    """
    seen: list[Tensor] = []
    _, head = head_of(model)
    hook = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].double()))
    try:
        model.eval()
        for batch in x.split(batch_size):
            model(batch)
    finally:
        hook.remove()
    return torch.cat(seen).nan_to_num(1e38, 1e38, -1e38)


def median_distance(latent: Tensor) -> float:
    """Return the median distance between pooled activations, of latent (n, S, F); 1 if it is 0.

    Every client adds its activations on the same first images.
    """
    n, samples, width = latent.shape
    pool = latent[:, : min(samples, max(2, _POOL // n))].reshape(-1, width)
    middle = float(torch.pdist(pool).median())
    return middle if middle > 0 else 1.0


def mmd(latent: Tensor, width: float) -> Tensor:
    """Return unbiased squared MMDs (n, n) between sets of activations latent (n, S, F).

    MMD^2(X, Y) = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)
    with k(x, y) = exp(-|x - y|^2 / (2 width^2)). It may be slightly negative. Gretton et al., "A
    Kernel Two-Sample Test", JMLR 2012.
    """
    n, samples, _ = latent.shape
    squares = (latent**2).sum(-1)

    def kernel(i: int, j: int) -> Tensor:
        squared = squares[i][:, None] + squares[j][None] - 2 * latent[i] @ latent[j].T
        return (squared.clamp_min(0) / (-2 * width**2)).exp()

    within: list[Tensor] = []
    for i in range(n):
        own = kernel(i, i)
        within.append((own.sum() - own.diagonal().sum()) / (samples * (samples - 1)))
    out = torch.zeros(n, n, dtype=latent.dtype)
    for i in range(n):
        for j in range(i):
            out[i, j] = out[j, i] = within[i] + within[j] - 2 * kernel(i, j).mean()
    return out


def votes(distances: Tensor) -> Tensor:
    """Return the votes (n,) that rows of distances (n, n) give to their nearest floor(n / 2).

    Nobody votes for itself; rows that tie for the last places share the votes for these.

    Examples
    --------
    >>> votes(torch.tensor([[0.0, 1.0, 5.0], [1.0, 0.0, 4.0], [5.0, 4.0, 0.0]]))
    tensor([1., 2., 0.], dtype=torch.float64)
    """
    n = len(distances)
    received = torch.zeros(n, dtype=torch.float64)
    count = n // 2
    rounded = distances.double().round(decimals=_DIGITS)
    for row in range(n if count else 0):
        others = torch.arange(n) != row
        limit = rounded[row][others].kthvalue(count).values
        sure = others & (rounded[row] < limit)
        tied = others & (rounded[row] == limit)
        received += sure + tied * ((count - sure.sum()) / tied.sum())
    return received
