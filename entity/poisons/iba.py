"""IBA: an invisible perturbation of the whole image, made by a network.

Nguyen et al., "IBA: Towards Irreversible Backdoor Attacks in Federated Learning", NeurIPS 2023.
T(x) = clip(x + ε G(x)) with a generator G whose answers lie in [-1, 1]. First the
colluders train honestly and improve G against the global model until it fools that by itself;
then they poison with T, ε shrinking from round to round to a floor at which it is tested, and
refresh G every other poisoned round.

Where we leave the paper's code, and why:

- G is trained against the global model, before the clients are; the code trains it against the
  attacker's own model of that round, after;
- ε shrinks with the poisoned rounds; the code's with all rounds since the first poisoned one;
- it weighs clean and poisoned loss by half each; here `DPR` sets the share of poisoned samples, and
  the attack's type the loss;
- its PGD, gradient mask and model replacement are attack types, which combine with this poison
  (`pgd`, `neurotoxin`, `model_replacement`);
- G is one small convolutional network, normalised image by image; the paper's is a U-Net, on MNIST
  an autoencoder (without the normalisation it ended at one answer to all images, ±1 everywhere);
- ε is a share of the range of pixels. The code's 0.3, and 0.05 in the test, are standard deviations
  of standardised images: 0.074 and 0.012 of the range on CIFAR-10, 0.092 and 0.015 on MNIST. The
  defaults are larger; `iba_epsilon_test`, `iba_decay`, `iba_local_asr` and Adam at `iba_lr` are
  BackFed's or near it, where the code has 0.05, 0.001, 0.85 and SGD;
- perturbations are rounded to pixels, as in all images that a deployed model is sent.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entity.client.poison import AdaptivePoison, TriggerMemory
from entity.config.fields import AttackConfig
from entity.config.schema import Count, Fraction, Positive
from entity.dataset.images import Images, normalise, to_pixels
from entity.layout import ModelState, ParamSpec
from entity.seeding import global_stream
from entity.training import shuffled

_WIDTH = 16


@dataclass(frozen=True)
class IbaArgs:
    """Hyper-parameters of IBA."""

    iba_epsilon: Positive = 0.3
    """ε of training in the first poisoned round, as a share of the range of pixels."""
    iba_epsilon_test: Positive = 0.06
    """Floor of ε, with which the attack is judged, too."""
    iba_decay: Fraction = 0.02
    """Share by which ε shrinks from one poisoned round to the next."""
    iba_local_asr: Fraction = 0.7
    """Local attack success of T on the global model at which poisoning begins."""
    iba_epochs: Count = 5
    """Passes over a colluder's data in which G is improved."""
    iba_lr: Positive = 0.01
    """Learning rate of G, by Adam."""
    iba_batch_size: Count = 64
    """Images in a batch."""


class Iba(AdaptivePoison):
    """Perturb by the colluders' generator and relabel."""

    summary = "IBA: an invisible perturbation by a generator that the colluders train"
    paper = "Nguyen et al., NeurIPS 2023"
    hyperparameters = IbaArgs
    revision = 3

    def __init__(self, attack: AttackConfig, args: IbaArgs, channels: int, size: int) -> None:
        super().__init__(attack, args, channels, size)
        with global_stream(torch.Generator().manual_seed(2023)):
            self.network = perturber(channels)
        self._spec = ParamSpec.of(self.network)
        self._start = self._spec.flatten(self.network)
        self.begun = 0
        """Poisoned rounds so far; 0 while G is not good enough."""

    @property
    def ready(self) -> bool:
        """Once G has been good enough."""
        return self.begun > 0

    @property
    def epsilon(self) -> float:
        """ε of the current round's training."""
        args = self.args
        shrunk = args.iba_epsilon * (1 - args.iba_decay) ** max(0, self.begun - 1)
        return max(args.iba_epsilon_test, shrunk)

    def recall(self, memory: TriggerMemory) -> None:
        """Take the generator of the rounds before; before the first, the one to start from."""
        known = "weights" in memory
        learnt = ModelState(memory["weights"], memory["buffers"]) if known else self._start
        self._spec.load(self.network, learnt)
        self.begun = int(memory["begun"]) if known else 0

    def poison(self, chosen: Images, rank: int, generator: torch.Generator) -> Images:
        """Perturb and relabel; leave the samples as they are while G is not good enough."""
        if not self.begun:
            return chosen
        return self.relabelled(self.perturbed(chosen.x, self.epsilon))

    def test_set(self, test: Images) -> Images:
        """Perturb all eligible test images, by the smallest ε."""
        return self.relabelled(self.perturbed(self.eligible(test).x, self.args.iba_epsilon_test))

    @torch.no_grad()
    def perturbed(self, pixels: Tensor, epsilon: float) -> Tensor:
        """Return T(x) of uint8 pixels (N, C, H, W)."""
        network = self.network.eval()
        parts = [
            to_pixels(transform(network, normalise(part), epsilon)) for part in pixels.split(500)
        ]
        return torch.cat(parts) if parts else pixels.clone()

    def adapt(
        self, model: nn.Module, images: Images, round: int, rng: torch.Generator
    ) -> TriggerMemory:
        """Improve G against the global model, and begin to poison once it is good enough."""
        device = next(model.parameters()).device
        pixels = self.eligible(images).x
        x = normalise(pixels).to(device)
        model.eval()
        refreshes, poisoning = self.begun % 2 == 0, self.begun > 0
        self.begun += poisoning  # first, as G is made for the ε that it is used with
        if len(x) and refreshes:
            self._improve(model, x, rng)
        if len(x) and not poisoning and self._success(model, pixels) >= self.args.iba_local_asr:
            self.begun = 1
        state = self._spec.flatten(self.network)
        return {
            "weights": state.weights,
            "buffers": state.buffers,
            "begun": torch.tensor(self.begun),
        }

    def _improve(self, model: nn.Module, x: Tensor, rng: torch.Generator) -> None:
        args: IbaArgs = self.args
        before = self._spec.flatten(self.network)
        network = self.network.to(x.device).train()
        adam = torch.optim.Adam(network.parameters(), lr=args.iba_lr, fused=True)
        for rows in shuffled(len(x), args.iba_batch_size, args.iba_epochs, rng):
            wanted = torch.full((len(rows),), self.attack.target_class, device=x.device)
            loss = F.cross_entropy(model(transform(network, x[rows], self.epsilon)), wanted)
            slopes = torch.autograd.grad(loss, list(network.parameters()))
            for parameter, slope in zip(network.parameters(), slopes, strict=True):
                parameter.grad = slope
            adam.step()
        self.network = network.cpu()
        if not self._spec.flatten(self.network).weights.isfinite().all():
            self._spec.load(self.network, before)  # the model answered NaN: G learnt nothing

    @torch.no_grad()
    def _success(self, model: nn.Module, pixels: Tensor) -> float:
        device = next(model.parameters()).device
        answers = model(normalise(self.perturbed(pixels, self.epsilon)).to(device))
        reached = (answers.argmax(1) == self.attack.target_class) & ~answers.isnan().any(1)
        return int(reached.sum()) / len(pixels)


def perturber(channels: int) -> nn.Module:
    """Build G: images (b, C, H, W) in [-1, 1] to perturbations of the same shape and range."""
    layers: list[nn.Module] = []
    for inputs in (channels, _WIDTH, _WIDTH):
        norm = nn.GroupNorm(_WIDTH, _WIDTH)  # each channel of each image by itself
        layers += [nn.Conv2d(inputs, _WIDTH, 3, padding=1), norm, nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(_WIDTH, channels, 3, padding=1), nn.Tanh())


def transform(network: nn.Module, x: Tensor, epsilon: float) -> Tensor:
    """Return clip(x + 2 ε G(x)) for images in [-1, 1], whose range of pixels is 2 wide."""
    return (x + 2 * epsilon * network(x)).clamp(-1, 1)
