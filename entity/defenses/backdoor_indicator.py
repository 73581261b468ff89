"""BackdoorIndicator: plant a harmless backdoor, and refuse those whose training keeps it alive.

Li and Dai, "BackdoorIndicator: Leveraging OOD Data for Proactive Backdoor Detection in Federated
Learning", USENIX Security 2024, arXiv 2405.20862. Training a backdoor to a label keeps an earlier
one to the same label alive. So before a round the server trains the global model on an indicator
task: images from outside the task's distribution with labels drawn at random, evenly over the
classes. Benign training forgets it. In every model that comes back the indicator's accuracy is
measured label by label, with the BatchNorm statistics that planting left; where that of some label
reaches the threshold the client is refused. The others are averaged.

The server's data: the indicator needs images that are like none of the task's, and nobody's
labels. Here they are noise, drawn from the experiment's seed: one of the sources of the authors'
code, which otherwise takes photographs or letters of another data set. Nothing of the clients', of
the test set or of the server's clean images is used.

Where we leave the paper's code, and why:

- what the server answers is the next round's broadcast, so the indicator is planted at a round's
  end: nobody can be judged in the first round, which averages all, and the last round's model, of
  which no update comes back, is released without it; MTA and ASR are of the model that is sent;
- planting begins after `start_round`, by default the first; the authors' begins at a model that was
  trained for 1100 rounds;
- the gradient of the distance to the aggregate is zero at distance zero, where planting begins;
  that of the code's norm does not exist there;
- the noise is uniform over the range of pixels, where the code's is over [0, 1) beside standardised
  images; all of it is trained on, in batches drawn anew in each epoch, where the code's stay and
  the last one is dropped;
- a label without an indicator image has no accuracy, where the code divides by zero;
- where planting diverges the aggregate is sent as it is, and the next round is judged by nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from entity.config.schema import Count, NonNegative, Positive, Range
from entity.layout import ModelState
from entity.seeding import global_stream
from entity.server.contract import Needs, Resources, Server
from entity.server.indicator import indicator_task, label_accuracies, plant
from entity.training import Recipe, logits
from entity.updates import Aggregation, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class BackdoorIndicatorArgs:
    """Settings of BackdoorIndicator; defaults are the authors' for CIFAR-10 and plain attackers.

    Their files for others have `threshold`, `mu`, `epochs` and `lr` of 0.85, 0.1, 50, 0.001
    (Neurotoxin, PGD), of 0.85, 0.1, 50, 0.0008 (Chameleon), and of 0.95, 0.1, 200, 0.0005 (DBA). An
    operator does not know who attacks, so here one set is for all.
    """

    num_indicator: Annotated[int, Range(2)] = 800
    """Indicator images; 2000 for EMNIST."""
    threshold: Annotated[float, Range(0, 1, above=True)] = 0.95
    """Accuracy of one label's indicator images from which on a client is refused."""
    epochs: Count = 200
    """Passes over the indicator images to plant them."""
    lr: Positive = 0.005
    """Learning rate of planting; it falls by a fifth after 10, 20, 30, 160 and 200 epochs, and then
    every 40 up to 360."""
    momentum: Annotated[float, Range(0, 1)] = 0.9
    """Momentum of planting."""
    weight_decay: NonNegative = 5e-4
    """Weight decay of planting."""
    batch_size: Count = 64
    """Indicator images in a batch."""
    mu: NonNegative = 0.4
    """Weight of half the distance to the aggregate in the loss of planting."""
    start_round: Count = 1
    """Round after which the first indicator is planted."""


class BackdoorIndicator(Server[BackdoorIndicatorArgs]):
    """The mean of the clients whose training forgot the server's own backdoor."""

    summary = "BackdoorIndicator: plant a task on noise, refuse who comes back with it"
    paper = "Li and Dai 2024, arXiv 2405.20862"
    hyperparameters = BackdoorIndicatorArgs
    by_majority = False
    revision = 2
    trains_on = ("batch_size",)

    def __init__(self, args: BackdoorIndicatorArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        self.x, self.y = indicator_task(args.num_indicator, resources)
        self.planted: Tensor | None = None
        """Buffers (B,) after planting; None where the clients' model has no indicator."""
        self._planted_before: Tensor | None = None

    @classmethod
    def needs(cls, args: BackdoorIndicatorArgs) -> Needs:
        """Ask for single updates of models that see images; no majority, and nobody's data."""
        return Needs(individual_updates=True, images=True)

    @classmethod
    def looks_ahead(cls, args: BackdoorIndicatorArgs) -> bool:
        """Return True: nothing is planted in the last round."""
        return True

    def aggregate(self, updates: Updates) -> Aggregation:
        """Judge by the indicator, average, plant the next one."""
        watch, n = Stopwatch(), len(updates)
        self._planted_before = self.planted
        scores = torch.zeros(n, dtype=torch.float64)
        judged = self.planted is not None
        if self.planted is not None:
            with watch("inspect"):
                scores = torch.stack([self._best(updates, row) for row in range(n)])
        accepted = scores < self.args.threshold
        shares = self.shares(updates, accepted)
        with watch("average"):
            state = self.average(updates, shares)
        answers = verdicts(
            updates,
            accepted.tolist(),
            shares,
            scores=scores.tolist() if judged else None,
            reasons=dict.fromkeys(range(n), "keeps a label of the indicator alive"),
        )
        answer = Aggregation(*state, answers, {"judged": float(judged)}, watch.seconds)
        # An optimiser steps before, unless nobody is accepted.
        waits = self.optimiser is not None and bool(accepted.any())
        return answer if waits else self.complete(answer, updates.round)

    def complete(self, answer: Aggregation, round: int) -> Aggregation:
        """Plant the next indicator in the model that is to be sent."""
        watch = Stopwatch()
        with watch("plant"):
            state = self._with_indicator(answer.state, round)
        return answer.completed(state, {"planted": float(self.planted is not None)}, watch.seconds)

    def withdrawn(self) -> None:
        """Remember the indicator of the model that stays."""
        self.planted = self._planted_before

    def _best(self, updates: Updates, row: int) -> Tensor:
        """Return the highest accuracy () of a label's indicator images in a client's model."""
        assert self.planted is not None
        model = self.resources.module(ModelState(updates.weights[row], self.planted))
        return label_accuracies(logits(model, self.x).cpu(), self.y).max()

    def _with_indicator(self, state: ModelState, number: int) -> ModelState:
        """Plant the indicator in a model, whose buffers stay; note those that planting left."""
        resources, args = self.resources, self.args
        self.planted = None
        if number < args.start_round or number == resources.rounds:
            return state
        model = resources.module(state)
        recipe = Recipe(args.lr, args.momentum, args.weight_decay, args.batch_size, args.epochs)
        rng = resources.seeds.generator("indicator", round=number)
        stream = resources.seeds.generator("indicator dropout", round=number)
        with global_stream(stream):  # dropout draws from it
            plant(model, self.x, self.y.to(resources.device), recipe, args.mu, rng)
        found = resources.spec.flatten(model)
        if not (found.weights.isfinite().all() and found.buffers.isfinite().all()):
            self.warn_once("diverged", "planting the indicator diverged, the aggregate is sent")
            return state
        self.planted = found.buffers
        return ModelState(found.weights, state.buffers)

    def state_dict(self) -> dict[str, Any]:
        """Return what planting left in the buffers."""
        return {"planted": self.planted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.planted = state["planted"]
