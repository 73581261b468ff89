"""A3FL: a trigger that is optimised, round by round, to survive the federation.

Zhang et al., "A3FL: Adversarially Adaptive Backdoor Attacks to Federated Learning", NeurIPS 2023,
arXiv 2310.12505. Before a poisoned round the colluders improve one shared trigger δ
under a mask m: by sign steps on

    CE(g(x ⊕ δ), target) + λ CE(g'(x ⊕ δ), target),    λ = λ0 cos(g', g),

where g is the global model and g' a copy that has unlearnt the current trigger, trained on
triggered images with their true labels: a guess at what the honest clients will do to it.

Where we leave the paper's code, and why:

- the similarity is the cosine of the convolutions' weights; the code takes that of gradients that
  are stale by then;
- g' answers in evaluation mode, as g does; the code leaves it in training mode;
- δ stays in the range of pixels, of which a step is 0.005, and it starts at 0.75. The code clamps
  to [-2, 2] in standardised space; its step of 0.01 is 0.002 of that range, and its start 0.59;
- both terms see the images that are attacked alone: those of the victim class, or all but the
  target's; the code takes all of a client's;
- `DPR` says how many samples are poisoned; the code poisons a quarter of every batch.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entity.client.poison import AdaptivePoison, TriggerMemory
from entity.client.poisoning import attack_test_set
from entity.client.triggers import Trigger
from entity.config.fields import AttackConfig
from entity.config.schema import ConfigError, Count, NonNegative, Positive, Whole
from entity.dataset.images import Images, normalise, to_pixels
from entity.training import Recipe, fit, shuffled

_START = 0.5
"""Value of δ before the first round, in [-1, 1]."""


@dataclass(frozen=True)
class A3flArgs:
    """Hyper-parameters of A3FL; defaults are the published code's."""

    a3fl_size: Count = 5
    """Height and width of the trigger in pixels."""
    a3fl_offset: Whole = 2
    """Row and column of its top left corner."""
    a3fl_epochs: Count = 200
    """Passes over a colluder's data in which δ is improved, every round."""
    a3fl_step: Positive = 0.01
    """Length of a sign step, in units of the networks' [-1, 1]."""
    a3fl_lambda: NonNegative = 0.01
    """λ0, weight of the model that unlearns."""
    a3fl_unlearn_every: Count = 1
    """Passes from one unlearning to the next."""
    a3fl_unlearn_epochs: Count = 5
    """Epochs of unlearning."""
    a3fl_unlearn_lr: Positive = 0.01
    """Learning rate of unlearning, with momentum 0.9 and weight decay 5e-4."""
    a3fl_batch_size: Count = 64
    """Images in a batch of both."""


class A3fl(AdaptivePoison):
    """Stamp the colluders' current trigger and relabel."""

    summary = "A3FL: a patch optimised every round against a model that unlearns it"
    paper = "Zhang et al. 2023, arXiv 2310.12505"
    hyperparameters = A3flArgs

    def __init__(self, attack: AttackConfig, args: A3flArgs, channels: int, size: int) -> None:
        super().__init__(attack, args, channels, size)
        end = args.a3fl_offset + args.a3fl_size
        if end > size:
            raise ConfigError(
                f"client.attack.a3fl_offset = {args.a3fl_offset}: a trigger of {args.a3fl_size} "
                f"pixels from there ends outside the image of {size}; lower it or a3fl_size."
            )
        self.mask = torch.zeros(1, size, size, dtype=torch.bool)
        self.mask[:, args.a3fl_offset : end, args.a3fl_offset : end] = True
        self.recall({})

    def recall(self, memory: TriggerMemory) -> None:
        """Take the trigger of the rounds before; before the first, the one to start from."""
        start = (self.channels, self.size, self.size)
        self.delta = memory["delta"] if "delta" in memory else torch.full(start, _START)

    @property
    def trigger(self) -> Trigger:
        """The current trigger, in pixels."""
        return Trigger(self.mask, to_pixels(self.delta))

    def poison(self, chosen: Images, rank: int, generator: torch.Generator) -> Images:
        """Stamp and relabel; every malicious client alike."""
        return self.relabelled(self.trigger.stamp(chosen.x))

    def test_set(self, test: Images) -> Images:
        """Stamp all eligible test images."""
        attack = self.attack
        return attack_test_set(test, attack.victim_class, attack.target_class, self.trigger)

    def adapt(
        self, model: nn.Module, images: Images, round: int, rng: torch.Generator
    ) -> TriggerMemory:
        """Improve the trigger on a colluder's clean images."""
        args: A3flArgs = self.args
        device = next(model.parameters()).device
        x, y = normalise(images.x).to(device), images.y.to(device)
        attacked = normalise(self.eligible(images).x).to(device)
        mask, delta = self.mask.to(device), self.delta.to(device)
        model.eval()
        unlearnt: nn.Module | None = None
        weight = 0.0
        for epoch in range(args.a3fl_epochs if len(attacked) else 0):
            if epoch and epoch % args.a3fl_unlearn_every == 0 and args.a3fl_lambda > 0:
                unlearnt = self._unlearn(model, apply(x, delta, mask), y, rng)
                weight = args.a3fl_lambda * likeness(unlearnt, model)
            for rows in shuffled(len(attacked), args.a3fl_batch_size, 1, rng):
                models = [(model, 1.0)] + ([(unlearnt, weight)] if unlearnt else [])
                delta = self._improve(delta, mask, attacked[rows], models)
        self.delta = delta.cpu()
        return {"delta": self.delta}

    def _improve(
        self, delta: Tensor, mask: Tensor, x: Tensor, models: list[tuple[nn.Module, float]]
    ) -> Tensor:
        """Take one sign step."""
        delta = delta.detach().requires_grad_()
        wanted = torch.full((len(x),), self.attack.target_class, device=x.device)
        stamped = apply(x, delta, mask)
        loss = torch.stack(
            [weight * F.cross_entropy(model(stamped), wanted) for model, weight in models]
        ).sum()
        (slope,) = torch.autograd.grad(loss, [delta])
        return (delta.detach() - self.args.a3fl_step * slope.sign()).clamp(-1, 1)

    def _unlearn(self, model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> nn.Module:
        """Return a copy of the model, trained on triggered images with their true labels."""
        args = self.args
        copy = deepcopy(model)
        recipe = Recipe(
            args.a3fl_unlearn_lr, 0.9, 5e-4, args.a3fl_batch_size, args.a3fl_unlearn_epochs
        )

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for rows in shuffled(len(y), recipe.batch_size, recipe.epochs, rng):
                yield x[rows], y[rows]

        fit(copy, batches(), recipe)
        return copy.eval()


def apply(x: Tensor, delta: Tensor, mask: Tensor) -> Tensor:
    """Return images (N, C, H, W) with δ (C, H, W) inside the mask (1, H, W)."""
    return torch.where(mask, delta, x)


def likeness(one: nn.Module, other: nn.Module) -> float:
    """Return the mean cosine of two models' convolution weights; of all matrices without any.

    Examples
    --------
    >>> layer = nn.Conv2d(1, 1, 3)
    >>> round(likeness(layer, layer), 4)
    1.0
    """

    def weights(model: nn.Module) -> list[Tensor]:
        shaped = [p.detach() for p in model.parameters() if p.dim() > 1]
        return [p for p in shaped if p.dim() == 4] or shaped

    cosines = [
        F.cosine_similarity(a.flatten(), b.flatten(), dim=0)
        for a, b in zip(weights(one), weights(other), strict=True)
    ]
    return torch.stack(cosines).mean().item() if cosines else 0.0
