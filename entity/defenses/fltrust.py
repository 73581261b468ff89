"""FLTrust: trust updates as far as they point where the server's own update does.

Cao et al., "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021,
arXiv 2012.13995. The server trains the global model on a small clean root set. A client's trust
is ReLU(cos(delta_i, delta_0)); all updates are rescaled to the norm of delta_0 and averaged with
their trust as weights.

- All trusts zero leaves the global model as it is; a public code then averages everybody.
- The server makes as many epochs as the clients. In the paper both run the same number of
  iterations, which are few; over epochs a small root set is then learnt by heart and its update
  grows too long (MNIST-5k, 15 rounds without attack, one seed: accuracy 0.45, by epochs 0.96).
  `same_steps` is the paper's way.
- Of buffers the median by trust is taken, as they have no direction to be judged by, and they are
  never rescaled: a factor above 1 could turn a variance negative.
- Rates apply to updates. The original's code takes cosines and norms of whole models, which all
  point the same way, and trains the global model itself on a client's worth of data.
"""

from dataclasses import dataclass
from itertools import islice
from math import ceil

import torch
from torch import Tensor

from entity.config.schema import ConfigError, Count
from entity.layout import ModelState, blocks
from entity.seeding import global_stream
from entity.server.averaging import combine, step
from entity.server.contract import CleanData, Needs, Resources, Server, Setting
from entity.training import fit, shuffled
from entity.updates import Aggregation, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class FLTrustArgs:
    """Settings of FLTrust."""

    num_root: Count = 100
    """Labelled images of the root set, as balanced over the classes as possible."""
    same_steps: bool = False
    """Train on the root set for as many optimiser steps as the median client; false trains for
    as many epochs."""
    augment: bool = True
    """Augment the root images with the data set's augmentation, as clients do."""


def balanced(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` positions, from every class the same number as far as there are enough.

    Parameters
    ----------
    labels
        (S,) classes of the samples.
    count
        Positions to draw; all of them where there are fewer.
    generator
        Source of the order.

    Examples
    --------
    >>> labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2, 2])
    >>> labels[balanced(labels, 5, torch.Generator())].bincount().tolist()
    [2, 1, 2]
    """
    order = torch.randperm(len(labels), generator=generator)
    turn = torch.empty_like(order)
    for label in labels.unique():
        rows = (labels[order] == label).nonzero().flatten()
        turn[rows] = torch.arange(len(rows))
    return order[turn.argsort(stable=True)[:count]]


def trust(dots: Tensor, norms: Tensor, root_norm: Tensor) -> tuple[Tensor, Tensor]:
    """Return the trust scores (n,) and rescaling factors (n,) of updates.

    Parameters
    ----------
    dots
        (n,) inner products with the server's update.
    norms
        (n,) norms of the updates.
    root_norm
        () norm of the server's update.

    Examples
    --------
    >>> updates, root = torch.tensor([[2.0, 0], [0, 3], [-5, 0], [1, 1]]), torch.tensor([1.0, 0])
    >>> scores, factors = trust(updates @ root, updates.norm(dim=1), root.norm())
    >>> scores.tolist(), factors[:3].tolist()
    ([1.0, 0.0, 0.0, 0.7071067690849304], [0.5, 0.3333333432674408, 0.20000000298023224])
    """
    scale = norms * root_norm
    cosines = torch.where(scale > 0, dots / scale, 0)
    factors = torch.where(norms > 0, root_norm / norms, 0)
    return cosines.clamp(0, 1), factors


class FLTrust(Server[FLTrustArgs]):
    """An average weighted by the agreement with the server's own update."""

    summary = "FLTrust: weights by the cosine to an update from the server's clean data"
    paper = "Cao et al. 2021, arXiv 2012.13995"
    hyperparameters = FLTrustArgs
    by_majority = False
    revision = 2
    trains_on = ("num_root",)

    def __init__(self, args: FLTrustArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        clean = resources.clean
        assert clean is not None, "needs() asks for clean data"
        rows = balanced(clean.y, args.num_root, resources.seeds.generator("fltrust root"))
        self.root = CleanData(clean.x[rows], clean.y[rows])

    @classmethod
    def needs(cls, args: FLTrustArgs) -> Needs:
        """Clean labelled data and single updates; no honest majority."""
        return Needs(clean_data=True, clean_labels=True, individual_updates=True)

    @classmethod
    def check(cls, args: FLTrustArgs, setting: Setting) -> None:
        """Refuse a root set that the server does not hold."""
        if args.num_root > setting.clean_samples:
            raise ConfigError(
                f"server.defense.defense_args.num_root = {args.num_root}: the server holds "
                f"{setting.clean_samples} clean samples; lower it or raise server.held_out."
            )

    def aggregate(self, updates: Updates) -> Aggregation:
        """Train on the root set, score, rescale, average."""
        watch = Stopwatch()
        with watch("root"):
            own = self.root_update(updates)
        with watch("score"):
            scores, factors = self._judge(updates, own)
        total = scores.sum()
        shares = scores / total if total > 0 else scores
        with watch("average"):
            state = self._move(updates, shares, factors)
        reasons = dict.fromkeys(range(len(updates)), "points away from the server's update")
        accepted: list[bool] = (shares > 0).tolist()
        judged = verdicts(updates, accepted, shares, scores=scores.tolist(), reasons=reasons)
        return Aggregation(*state, judged, {"root_norm": float(own.norm())}, watch.seconds)

    def root_update(self, updates: Updates) -> Tensor:
        """Return the server's own update (P,) of this round, float64."""
        resources = self.resources
        recipe, rng = resources.recipe, resources.seeds.generator("fltrust", round=updates.round)
        x, y = self.root.x, self.root.y.to(resources.device)
        augment = resources.augment if self.args.augment else None

        def a_batch(rows: Tensor) -> tuple[Tensor, Tensor]:
            images = x[rows] if augment is None else augment(x[rows], rng)
            return images.to(resources.device), y[rows]

        order = shuffled(len(y), recipe.batch_size, recipe.epochs, rng)
        if self.args.same_steps:
            typical = float(updates.num_samples.double().quantile(0.5))
            steps = recipe.epochs * max(1, ceil(typical / recipe.batch_size))
            order = islice(shuffled(len(y), recipe.batch_size, steps, rng), steps)
        model = resources.module(updates.global_state)
        stream = resources.seeds.generator("fltrust dropout", round=updates.round)
        with global_stream(stream):  # dropout draws from it
            fit(model, (a_batch(rows) for rows in order), recipe)
        return resources.spec.flatten(model).weights.double() - updates.global_weights.double()

    def _judge(self, updates: Updates, own: Tensor) -> tuple[Tensor, Tensor]:
        dots = torch.zeros(len(updates), dtype=torch.float64)
        squares = torch.zeros_like(dots)
        for columns in blocks(len(own)):
            block = updates.weights[:, columns].double() - updates.global_weights[columns].double()
            dots += block @ own[columns]
            squares += block.square().sum(1)
        return trust(dots, squares.sqrt(), own.norm())

    def _move(self, updates: Updates, shares: Tensor, factors: Tensor) -> ModelState:
        if shares.sum() == 0:
            return updates.global_state
        start = updates.global_weights
        end = combine(updates.weights, shares * factors, start)
        weights = step(start, end, self.resources.averaging.server_lr)
        return self.finish(ModelState(weights, self.combine_buffers(updates, shares)))
