"""Chameleon: adapt the features to the trigger's peers, then train the head alone.

Dai and Li, "Chameleon: Adapting to Peer Images for Planting Durable Backdoors in Federated
Learning", ICML 2023, arXiv 2304.12961. Adaptation: the encoder, everything before the last linear
layer, is trained with supervised contrastive loss, in which poisoned images carry the target
label and anchors of that label (the facilitators) weigh more. Projection: the encoder is frozen
and the head alone learns the poisoned data.

Where we leave the paper's code: the encoder stays within a ball around the global one in the first
stage (the code also pulls the whole model back in the second, which moves a frozen encoder); it is
frozen with its BatchNorm statistics; interferers, images of the trigger's own class, are not
weighted down, as they are not by default there; the rate falls after the milestones' epochs, where
the code steps the schedule one epoch early, and the head's rate does not fall, where the code's is
a two-hundredth from the third epoch on. (DROP's code freezes nothing, for a misspelt
attribute and wrong layer names; ours trains the head on features computed without gradient.)
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from entity.attacks.pgd import project
from entity.client.attacker import Attacker
from entity.client.client import Broadcast
from entity.client.data import LocalData
from entity.config.schema import ConfigError, Count, Fraction, NonNegative, Positive, Whole
from entity.models import SupConTwin
from entity.models.supcon import encoder_fault
from entity.training import autocast, fit


@dataclass(frozen=True)
class ChameleonArgs:
    """Hyper-parameters of Chameleon; defaults are those of its CIFAR-10 pixel-trigger config."""

    poisoned_projection_norm: Positive = 5.0
    """Euclidean radius of the ball around the global encoder, for the projection."""
    poisoned_is_projection_grad: bool = True
    """Project the encoder onto that ball after every step of adaptation; DROP's default is off."""
    poisoned_supcon_lr: Positive = 0.005
    """Learning rate of adaptation; DROP's default is 0.015."""
    poisoned_supcon_momentum: Fraction = 0.9
    """Momentum of adaptation."""
    poisoned_supcon_weight_decay: NonNegative = 0.0005
    """Weight decay of adaptation."""
    poisoned_supcon_epochs: Count = 10
    """Epochs of adaptation; DROP's code takes the clients' `num_epochs` for both stages."""
    malicious_milestones: tuple[Whole, ...] = (3, 5, 7, 9)
    """Epochs of adaptation after which its rate is lowered; DROP's default is 2, 4, 6, 8."""
    malicious_lr_gamma: Positive = 0.1
    """What the rate is multiplied with at a milestone; DROP's default is 0.3."""
    fac_scale_weight: Positive = 6.0
    """Weight of anchors with the target label; DROP's default is 2."""
    supcon_temperature: Positive = 0.07
    """Temperature of the contrastive loss."""
    poisoned_head_lr: Positive = 0.001
    """Learning rate of the head in the second stage."""
    poisoned_head_epochs: Count = 3
    """Epochs of the second stage."""


def supcon_loss(
    z: Tensor, labels: Tensor, temperature: float, target: int = -1, weight: float = 1.0
) -> Tensor:
    """Return the supervised contrastive loss of a batch.

    L = -(1/b) Σ_i s_i (1/|P(i)|) Σ_{p∈P(i)} log(exp(z_i·z_p/τ) / Σ_{a≠i} exp(z_i·z_a/τ)), where
    P(i) are the others of i's label, s_i is `weight` for the target label and else 1. Anchors
    that are alone with their label contribute 0.

    Parameters
    ----------
    z
        (b, F) features of norm 1.
    labels
        (b,).
    temperature
        τ.
    target, weight
        Label of the facilitators, and ω.

    Examples
    --------
    >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(supcon_loss(z, torch.tensor([0, 0, 1]), 1.0).item(), 6)
    0.208841
    """
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    # A finite stand-in for -inf: a batch of one has nothing else in its row, and must not be NaN.
    similarity = (z @ z.T / temperature).masked_fill(itself, torch.finfo(z.dtype).min)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    logs = torch.where(positive, similarity.log_softmax(1), 0).sum(1)
    scale = torch.where(labels == target, weight, 1.0)
    return -(scale * logs / positive.sum(1).clamp_min(1)).mean()


class Chameleon(Attacker):
    """Contrastive adaptation of the encoder, then training of the head."""

    summary = "Chameleon: contrastive adaptation of the encoder, then the frozen encoder's head"
    paper = "Dai and Li 2023, arXiv 2304.12961"
    hyperparameters = ChameleonArgs

    @classmethod
    def check(cls, model: nn.Module) -> None:
        """Refuse a model without anything to adapt before its head."""
        if fault := encoder_fault(model):
            raise ConfigError(f"client.attack.type = chameleon: {fault}.")

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Run both stages on the poisoned data."""
        twin = SupConTwin(model)
        data = self.poisoned()
        self.adapt(twin, data, broadcast)
        recipe = replace(
            self.context.recipe,
            lr=self.args.poisoned_head_lr,
            epochs=self.args.poisoned_head_epochs,
        )
        model.eval()
        fit(twin.head, self.frozen(twin, data, recipe.epochs, broadcast), recipe)
        model.train()

    def adapt(self, twin: SupConTwin, data: LocalData, broadcast: Broadcast) -> None:
        """Train the encoder with the contrastive loss; the head is left alone.

        Parameters
        ----------
        twin
            The model, as encoder and head.
        data
            The client's poisoned data.
        broadcast
            The round, which names the random stream.
        """
        args, device = self.args, self.context.device
        encoder = twin.encoder
        origin = [parameter.detach().clone() for parameter in encoder]
        optimiser = torch.optim.SGD(
            encoder,
            lr=args.poisoned_supcon_lr,
            momentum=args.poisoned_supcon_momentum,
            weight_decay=args.poisoned_supcon_weight_decay,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.MultiStepLR(
            optimiser, list(args.malicious_milestones), args.malicious_lr_gamma
        )
        rng = self.context.seeds.generator("adaptation", round=broadcast.round, client=self.id)
        twin.train()
        for _ in range(args.poisoned_supcon_epochs):
            for x, y in self._batches(data, 1, rng):
                with autocast(device, self.context.recipe.amp_enabled):
                    z = twin(x)
                target, weight = self.plan.attack.target_class, args.fac_scale_weight
                loss = supcon_loss(z, y, args.supcon_temperature, target, weight)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                if args.poisoned_is_projection_grad:
                    project(encoder, origin, args.poisoned_projection_norm)
            schedule.step()

    def frozen(
        self, twin: SupConTwin, data: LocalData, epochs: int, broadcast: Broadcast
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of features, from the encoder as it now is, and labels.

        Parameters
        ----------
        twin
            The model, as encoder and head.
        data
            The client's poisoned data.
        epochs
            Passes over the data.
        broadcast
            The round, which names the random stream.
        """
        rng = self.context.seeds.generator("fit", round=broadcast.round, client=self.id)
        for x, y in self._batches(data, epochs, rng):
            with torch.no_grad(), autocast(x.device, self.context.recipe.amp_enabled):
                seen = twin.features(x)
            yield seen, y

    def _batches(
        self, data: LocalData, epochs: int, rng: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        context = self.context
        return data.to(context.device).batches(
            context.recipe.batch_size,
            epochs,
            rng,
            augmentation=context.augmentation,
            in_every_batch=context.batchwise_poison,
        )
