"""What 3DFed's colluders read from the global model, and how they disguise parts of theirs."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from entity.client.client import Broadcast, Client
from entity.client.collusion import CollusionMemory
from entity.client.indicators import curvature, fates, quiet_layer, quiet_places, tuned_alphas
from entity.client.noise_masks import MaskSettings, noise_masks
from entity.layout import ModelState, ParamSpec, Slot
from entity.training import Recipe, cross_entropy, fit

UNDER_NOISE, MOST_OF_A_GROUP = 0.1, 0.8
"""Alpha where the server adds noise; share of a group's models that must pass for the group to."""


FAR, PUSH = 10.0, 10.0
"""How far a decoy's weight is driven, and how hard."""


class Feedback(NamedTuple):
    """How the next round is played."""

    alphas: list[float]
    """Of each group, the weight of its masks' energy against their norm."""
    decoys: int
    noisy: bool
    """Whether the server was found to add noise, after which nothing is read any more."""

    @classmethod
    def read(
        cls,
        memory: CollusionMemory,
        weights: Tensor,
        round: int,
        args: Any,
        rng: np.random.Generator,
    ) -> "Feedback":
        """Read what became of the last round's models, and tune.

        A decoy less for each that was accepted, one more where nothing but refusals came back.
        What was sent in an earlier round is read no more: others have moved the model since.

        Parameters
        ----------
        memory
            What `memory` returned in the last poisoned round; {} before the first.
        weights
            (P,) the global model.
        round
            Number of the round that begins.
        args
            `indicator_threshold` and `mask_alpha`.
        rng
            Draws the next alphas.
        """
        if not memory:
            return cls([], 0, False)
        alphas = [float(alpha) for alpha in memory["alphas"]]
        decoys = int(memory["decoys"])
        if int(memory["round"]) != round - 1:
            return cls(alphas, decoys, bool(memory["noisy"]))
        moved = weights[memory["places"]].double() - memory["before"].double()
        found = fates((moved / memory["values"]).tolist(), args.indicator_threshold)
        if bool(memory["noisy"]) or found is None:
            return cls([UNDER_NOISE] * len(alphas), decoys, True)
        groups: list[int] = memory["groups"].tolist()
        won = sum(f == "accepted" for f, group in zip(found, groups, strict=True) if group < 0)
        backdoored = [f for f, group in zip(found, groups, strict=True) if group >= 0]
        more = won == 0 and all(fate == "rejected" for fate in backdoored)
        passed: list[bool] = []
        for number in range(len(alphas)):
            mine = [f == "accepted" for f, g in zip(found, groups, strict=True) if g == number]
            passed.append(sum(mine) >= MOST_OF_A_GROUP * len(mine))
        tuned = tuned_alphas(alphas, passed, args.mask_alpha, rng)
        return cls(tuned, max(0, decoys - won) + more, False)

    def for_groups(self, count: int, least: float, rng: np.random.Generator) -> "Feedback":
        """Return it for so many groups; new ones draw their alpha between `least` and 1."""
        new = [
            UNDER_NOISE if self.noisy else float(rng.uniform(least, 1))
            for _ in range(count - len(self.alphas))
        ]
        return self._replace(alphas=(self.alphas + new)[:count])

    def memory(
        self,
        backdoored: int,
        group: int,
        places: Sequence[int],
        values: Sequence[float],
        start: Broadcast,
    ) -> CollusionMemory:
        """Return what to remember of a round.

        Parameters
        ----------
        backdoored, group
            Backdoored models, which come before the decoys; models in a group.
        places, values
            Of each model, where its indicator is in the vector of parameters, and what it sent.
        start
            The round, with the model that it started from.
        """
        numbers = [model // group for model in range(backdoored)]
        where = torch.tensor(places)
        return {
            "alphas": torch.tensor(self.alphas, dtype=torch.float64),
            "decoys": torch.tensor(len(places) - backdoored),
            "noisy": torch.tensor(self.noisy),
            "groups": torch.tensor(numbers + [-1] * (len(places) - backdoored)),
            "places": where,
            "values": torch.tensor(values, dtype=torch.float64),
            "before": start.state.weights[where].clone(),
            "round": torch.tensor(start.round),
        }


class Parts(NamedTuple):
    """Where the output layer and the indicators are in the vector of parameters."""

    weight: Slot
    bias: Slot | None
    quiet: Slot

    @classmethod
    def of(cls, spec: ParamSpec, head: str) -> "Parts":
        """Find them, given the name of the output layer."""
        names = {slot.name: slot for slot in spec.parameters}
        weight = spec.slot(f"{head}.weight")
        return cls(weight, names.get(f"{head}.bias"), quiet_layer(spec, head))

    def output_rows(self, update: Tensor) -> Tensor:
        """Return the rows (K, H) of the output layer, with the bias as the last column."""
        weights = self.weight.of(update)
        if self.bias is None:
            return weights.clone()
        return torch.cat([weights, self.bias.of(update)[:, None]], 1)

    def add_to_output(self, update: Tensor, neurons: Tensor, noise: Tensor) -> None:
        """Add noise (k, H) to k rows of the output layer, bias included, in place."""
        width = self.weight.shape[1]
        self.weight.of(update)[neurons] += noise[:, :width]
        if self.bias is not None:
            self.bias.of(update)[neurons] += noise[:, width]

    def neurons(self, target: int, most: int, rng: torch.Generator) -> Tensor:
        """Draw the classes, beside the target, whose rows of the output layer get noise."""
        drawn = torch.randperm(self.weight.shape[0], generator=rng)
        return drawn[drawn != target][:most]

    def mask(
        self,
        group: Sequence[Tensor],
        neurons: Tensor,
        settings: MaskSettings,
        recipe: Recipe,
        rng: torch.Generator,
    ) -> None:
        """Add noise masks to the output layers of a group of updates.

        Parameters
        ----------
        group
            (P,) updates, all alike; changed in place.
        neurons
            (k,) rows of the output layer that get noise.
        settings, recipe, rng
            As of `noise_masks`.
        """
        rows = self.output_rows(group[0])[neurons]
        masks = noise_masks(rows, len(group), settings, recipe, rng)
        for update, noise in zip(group, masks, strict=True):
            self.add_to_output(update, neurons, noise)

    def places(
        self,
        model: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
        away: Tensor,
        honest: Tensor,
        count: int,
    ) -> list[int]:
        """Return the indices of the indicators in the vector of parameters, one for each model.

        Parameters
        ----------
        model
            Holds the global model.
        batches
            Clean and poisoned, for the curvature.
        away, honest
            (P,) the backdoored and the honest update.
        count
            Models; where the layer has fewer weights some share one.
        """
        part = slice(self.quiet.start, self.quiet.stop)
        size = away[part].abs() + honest[part].abs()
        curved = curvature(model, self.quiet.name, batches)
        found = [self.quiet.start + place for place in quiet_places(size, curved, count)]
        return [found[model % len(found)] for model in range(count)]

    def alike(self, away: Tensor, honest: Tensor, count: int) -> list[int]:
        """Return the indices of the output weights that both updates (P,) move most alike."""
        part = slice(self.weight.start, self.weight.stop)
        apart = (away[part] - honest[part]).abs()
        ordered = apart.argsort(stable=True)[:count] + self.weight.start
        return [int(ordered[number % len(ordered)]) for number in range(count)]


def trained_decoy(
    client: Client, model: nn.Module, broadcast: Broadcast, place: int, honest: float
) -> ModelState:
    """Return a model that is trained on clean data while one of its weights is driven away.

    The loss is (CE - 10 |w - honest|) / 2 while the weight w is within 10 of it, and CE / 2 then.

    Parameters
    ----------
    client
        Whose data and recipe are used.
    model
        Trained from the global model.
    broadcast
        The round.
    place, honest
        Index of the weight in the vector of parameters, and its value in the honest model.
    """
    spec, recipe = client.context.spec, client.context.recipe
    spec.load(model, broadcast.state)
    slot = next(slot for slot in spec.parameters if slot.start <= place < slot.stop)
    weight = list(model.parameters())[spec.parameters.index(slot)]

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        distance = (weight.flatten()[place - slot.start] - honest).abs()
        pushed = torch.where(distance > FAR, 0.0, -PUSH * distance)
        return (cross_entropy(model, x, y) + pushed) / 2

    fit(model, client.batches(broadcast, client.data, recipe), recipe, loss=loss)
    return spec.flatten(model)
