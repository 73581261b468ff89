"""Server fine-tuning: FedAvg, and then SGD on clean labelled data.

The simplest use of clean data at the server, and the baseline that any defense with such data has
to beat. The original DROP code has it as a server of its own; there it trains with the clients'
learning rate on a client-sized share of the training set. Here the data is the server's held-out
set, which is in no client's data, and the recipe is its own.
"""

from dataclasses import dataclass
from typing import Annotated

import torch

from entity.config.schema import ConfigError, Count, NonNegative, Positive, Range, Whole
from entity.layout import ModelState
from entity.seeding import global_stream
from entity.server.contract import Needs, Setting
from entity.server.streaming import StreamingServer
from entity.training import Recipe, fit, shuffled
from entity.updates import Aggregation, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class FinetuningArgs:
    """Settings of server fine-tuning (ours, but for the momentum)."""

    lr: Positive = 0.01
    """Learning rate."""
    momentum: Annotated[float, Range(0, 1)] = 0.9
    """Momentum."""
    weight_decay: NonNegative = 5e-4
    """Weight decay."""
    batch_size: Count = 64
    """Clean samples in a batch."""
    epochs: Whole = 5
    """Passes over the clean samples; 0 is FedAvg."""
    num_seed: Annotated[int, Range(2)] | None = None
    """Clean samples to train on; null takes all that the server holds."""
    augment: bool = True
    """Augment the clean samples as the data set prescribes."""
    every: Whole = 1
    """Fine-tune in every round whose number this divides; 0 in `final_round` alone."""
    final_round: Count | None = None
    """A round that is fine-tuned, too, if an update came: federation.rounds for the released
    model."""


class Finetuning(StreamingServer[FinetuningArgs]):
    """FedAvg, then SGD on the server's clean data."""

    summary = "Server fine-tuning: FedAvg, then SGD on the server's clean labelled data"
    paper = "DROP's baseline, 2025, arXiv 2502.07011"
    hyperparameters = FinetuningArgs
    trains_on = ("batch_size",)
    robust = False

    @classmethod
    def needs(cls, args: FinetuningArgs) -> Needs:
        """Ask for clean labelled data."""
        return Needs(clean_data=True, clean_labels=True)

    @classmethod
    def check(cls, args: FinetuningArgs, setting: Setting) -> None:
        """Refuse to tune on too little data, or never."""
        where = "server.defense.defense_args"
        needed = args.num_seed or 2
        if setting.clean_samples < needed:
            raise ConfigError(
                f"{where}.num_seed = {args.num_seed or 'null'}: finetuning needs {needed} clean "
                f"samples and the server holds {setting.clean_samples}; raise server.held_out."
            )
        if args.every == 0 and args.final_round is None:
            raise ConfigError(
                f"{where}.every = 0: never fine-tunes; set final_round to federation.rounds, or "
                "every to at least 1."
            )

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average everybody and, when it is time, fine-tune."""
        watch = Stopwatch()
        shares = self.shares(updates, torch.ones(len(updates), dtype=torch.bool))
        with watch("average"):
            state = self.average(updates, shares)
        judged = verdicts(updates, [True] * len(updates), shares)
        answer = Aggregation(*state, judged, seconds=watch.seconds)
        return answer if self.optimiser is not None else self.complete(answer, updates.round)

    def complete(self, answer: Aggregation, round: int) -> Aggregation:
        """Fine-tune the model that is to be released, when it is time."""
        watch, due, state = Stopwatch(), self._is_time(round), answer.state
        if due:
            with watch("finetune"):
                state = self.finish(self._finetuned(state, round))
        return answer.completed(state, {"finetuned": float(due)}, watch.seconds)

    def _is_time(self, round: int) -> bool:
        every = self.args.every
        return round == self.args.final_round or (every > 0 and round % every == 0)

    def _finetuned(self, state: ModelState, round: int) -> ModelState:
        args, resources = self.args, self.resources
        clean = resources.clean
        assert clean is not None, "needs() asks for clean data"
        chosen = torch.randperm(
            len(clean.y), generator=resources.seeds.generator("finetuning samples")
        )[: args.num_seed]
        x, y = clean.x[chosen], clean.y[chosen]
        recipe = Recipe(args.lr, args.momentum, args.weight_decay, args.batch_size, args.epochs)
        rng = resources.seeds.generator("finetune", round=round)
        augment = resources.augment if args.augment else None
        batches = (
            (x[rows] if augment is None else augment(x[rows], rng), y[rows])
            for rows in shuffled(len(y), recipe.batch_size, recipe.epochs, rng)
        )
        model = resources.module(state)
        device = resources.device
        batches = ((inputs.to(device), labels.to(device)) for inputs, labels in batches)
        stream = resources.seeds.generator("finetune dropout", round=round)
        with global_stream(stream):  # dropout draws from it
            fit(model, batches, recipe)
        tuned = resources.spec.flatten(model)
        # SGD that diverges, from an aggregate that an attacker blew up, must not make it worse.
        finite = bool(tuned.weights.isfinite().all() and tuned.buffers.isfinite().all())
        return tuned if finite else state
