"""FLAME: the majority cluster, clipped to the median norm and noised.

Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022, arXiv
2101.02281. The models that HDBSCAN puts, by cosine distance, in a cluster of more than half of
the clients are kept; their updates are clipped to the median norm S of *all* updates; the mean is
noised with standard deviation lambda S, which hides what the other two stages left.

Where we leave the paper, and why:

- a round of fewer than four clients keeps the global model, and where no cluster has a majority
  everybody is kept;
- the noise is on trainable parameters only: a noised BatchNorm variance may become negative.

The original DROP code clips models instead of updates, takes the median over the admitted only,
noises with (lambda S)^2 and hands HDBSCAN the distances as features.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from entity.config.schema import NonNegative
from entity.defenses.norm_clipping import clip_factors
from entity.layout import ModelState, blocks
from entity.server.contract import Needs, Server, Setting
from entity.server.density import LEAST_CLUSTERED, cosine_distances, majority, require_clusterable
from entity.updates import Aggregation, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class FlameArgs:
    """Settings of FLAME; defaults are the paper's for images."""

    noise_sigma: NonNegative = 0.001
    """The paper's lambda = sqrt(2 ln(1.25 / delta)) / epsilon: noise in units of the median norm
    (0.001 images and texts, 0.01 network traffic); at delta = 1e-5, 0.001 is an epsilon of 4845."""
    on: Literal["weights", "updates"] = "weights"
    """What the cosine is taken of: the clients' models (paper), or their updates."""


class Flame(Server[FlameArgs]):
    """Clustering, adaptive clipping and adaptive noise."""

    summary = "FLAME: HDBSCAN majority by cosine, clipped to the median norm, noised"
    paper = "Nguyen et al. 2022, arXiv 2101.02281"
    hyperparameters = FlameArgs
    least_clients = LEAST_CLUSTERED

    @classmethod
    def needs(cls, args: FlameArgs) -> Needs:
        """Ask for single updates, most of them honest."""
        return Needs(individual_updates=True, honest_majority=True)

    @classmethod
    def check(cls, args: FlameArgs, setting: Setting) -> None:
        """Refuse rounds too small to cluster."""
        require_clusterable("flame", setting)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average the clipped updates of the majority cluster and noise the result."""
        watch = Stopwatch()
        with watch("cluster"):
            gram = model_gram(updates) if self.args.on == "weights" else updates.gram
            distances = cosine_distances(gram)
            kept = majority(distances, updates.client_ids)
        accepted = [row in set(kept) for row in range(len(updates))]
        shares = self.shares(updates, torch.tensor(accepted))
        bound = float(updates.norms.quantile(0.5))
        factors = clip_factors(updates.norms, bound)
        with watch("average"):
            state = self.average_scaled(updates, shares, factors)
        deviation = self.args.noise_sigma * bound
        with watch("noise"):
            rng = self.resources.seeds.generator("flame noise", round=updates.round)
            noise = updates.spec.trained(torch.randn(len(state.weights), generator=rng))
            state = self.finish(ModelState(state.weights + deviation * noise, state.buffers))
        return Aggregation(
            *state,
            verdicts(
                updates,
                accepted,
                shares * factors,
                scores=distances[:, kept].mean(1).tolist(),
                reasons=dict.fromkeys(range(len(updates)), "outside the majority cluster"),
            ),
            {
                "clip_norm": bound,
                "noise_std": deviation,
                "clipped": float((factors[kept] < 1).sum()),
            },
            watch.seconds,
        )


def model_gram(updates: Updates) -> Tensor:
    """Return the inner products (n, n) of the clients' models, float64."""
    gram = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    for columns in blocks(updates.weights.shape[1]):
        block = updates.weights[:, columns].double()
        gram.addmm_(block, block.T)
    return gram
