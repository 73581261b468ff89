"""3DFed: constrained training, noise masks, decoys, and feedback read from the global model.

Li et al., "3DFed: Adaptive and Extensible Framework for Covert Backdoor Attack in Federated
Learning", IEEE S&P 2023. The attackers collude, and know the models they are sent and their own
data; they see nobody else's updates. The one with the lowest id trains for all: a backdoored model
with the loss 0.3 CE(clean) + 0.3 CE(poisoned) + 0.4 ‖w - g‖, made as long as its honest update by
a factor of `covert_scale` at most; an honest reference. Each sends the backdoored model with a mask
of noise in the output layer, optimised by groups to cancel; some send decoys, honest but for one
weight that is driven far away. In every model one quiet weight, the indicator, moves 1e5 times as
far: what the next global model has of it tells whether that model was accepted, clipped, rejected,
or whether the server adds noise. So the masks' `alpha` and the number of decoys are tuned.

The text of the paper could not be had; this is the authors' code. Where we leave it:

- decoys are some of the attackers; the code overwrites updates of benign clients with them;
- a group's feedback is that of its own models; the code shuffles masks, and reads that of others;
- places of decoys are the k weights that backdoored and honest training move most alike, and
  indicators the least curved; the code's own searches miss some, for indices taken too late;
- masks of a group take their steps at once; the code's gradients of the shared term pile up;
- parameters alone are scaled; the code scales BatchNorm statistics, too;
- a lone attacker has no mask; the code's sends its backdoored model as it is;
- MNIST is no other case; the code's decoys are then of the layer before the output, its least
  indicator is 1e-2, and its masks are smaller under noise;
- the poisoned batch is of the samples that the data poison changes (`DPR`), again and again; the
  code poisons all of the clean batch, or half of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn

from entity.attacks.constrain_and_scale import anomaly_loss
from entity.client.attacker import Attacker
from entity.client.client import Broadcast
from entity.client.collusion import Collusion, CollusionMemory
from entity.client.covert import Feedback, Parts, trained_decoy
from entity.client.data import LocalData
from entity.client.indicators import planted
from entity.client.noise_masks import MaskSettings
from entity.config.schema import Count, Fraction, NonNegative, Positive
from entity.layout import ModelState
from entity.models import head_of
from entity.seeding import global_stream
from entity.training import cross_entropy, fit
from entity.updates import Updates


@dataclass(frozen=True)
class ThreeDFedArgs:
    """Hyper-parameters of 3DFed; defaults are those of the authors' CIFAR-10 configuration."""

    poison_epochs: Count | None = 15
    """Epochs of the backdoored training; null trains as long as everybody."""
    covert_weight: Fraction = 0.4
    """Weight of the distance ‖w - g‖ in the loss; the rest goes to the clean and the poisoned batch
    in equal parts."""
    covert_scale: Positive = 5.0
    """Largest factor by which a backdoored update that is shorter than the honest one is scaled."""
    mask_group: Count = 5
    """Attackers whose noise masks cancel; 2 for MNIST."""
    mask_neurons: Count = 5
    """Classes, beside the target, whose rows of the output layer get noise; 8 for MNIST."""
    mask_alpha: Fraction = 0.0
    """Least weight of a mask's energy against its norm, where the weight is drawn at random."""
    mask_std: NonNegative = 0.01
    """Standard deviation that masks start from; 0.05 for MNIST."""
    mask_norm: NonNegative = 0.03
    """Weight of a mask's norm; 0.08 for MNIST."""
    mask_balance: NonNegative = 0.01
    """Weight of the norm of a group's sum of masks; 0.1 for MNIST."""
    indicator_threshold: Positive = 1e-5
    """Share of an indicator in the global model's move above which its model counts as accepted;
    1e-4 for MNIST."""


class ThreeDFed(Attacker):
    """Backdoored models in disguise, tuned by what the global model gives away."""

    summary = "3DFed: constrained training, noise masks, decoys, feedback by indicators"
    paper = "Li et al. 2023, IEEE Symposium on Security and Privacy"
    hyperparameters = ThreeDFedArgs
    revision = 2

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Train nothing: one attacker does for all, once the round is known."""

    @classmethod
    def conspire(
        cls, updates: Updates, malicious: list[int], collusion: Collusion
    ) -> CollusionMemory:
        """Train, disguise, plant; looks at nobody's update, and returns what to read next round."""
        leader = collusion.recruit(int(updates.client_ids[malicious[0]]))
        assert isinstance(leader, ThreeDFed)
        rng = collusion.seeds.numpy("3dfed", round=updates.round)
        with global_stream(collusion.seeds.generator("3dfed model", round=updates.round)):
            return leader.campaign(updates, malicious, collusion, rng)  # dropout draws, too

    def campaign(
        self,
        updates: Updates,
        malicious: list[int],
        collusion: Collusion,
        rng: np.random.Generator,
    ) -> CollusionMemory:
        """Carry out a round for all attackers; return what they remember of it.

        Parameters
        ----------
        updates, malicious
            The round, and the rows of the attackers in it, which are rewritten.
        collusion
            Settings, memory and models.
        rng
            Draws roles and weights.
        """
        args, start = self.args, updates.global_state
        order: list[int] = rng.permutation(malicious).tolist()
        told = Feedback.read(collusion.memory, start.weights, updates.round, args, rng)
        decoys = min(told.decoys, len(order) - 1)
        backdoored = len(order) - decoys
        told = told.for_groups(-(-backdoored // args.mask_group), args.mask_alpha, rng)
        model = collusion.new_model()
        parts = Parts.of(self.context.spec, head_of(model)[0])
        bad, good = self.covert(model, collusion.broadcast), self.reference(model, collusion)
        away, honest = (each.weights - start.weights for each in (bad, good))
        if not bool(torch.isfinite(away).all() and torch.isfinite(honest).all()):
            updates.weights[order], updates.buffers[order] = bad.weights, bad.buffers
            return collusion.memory
        length = away.norm().item()
        factor = min(honest.norm().item() / length, args.covert_scale) if length else 1.0
        away = away * max(factor, 1.0)
        self.context.spec.load(model, start)
        pairs = self._paired(collusion.broadcast, 1)
        batches = (batch for x, y, u, v in pairs for batch in ((x, y), (u, v)))
        places = parts.places(model, batches, away, honest, len(order))
        sent = [away.clone() for _ in range(backdoored)]
        buffers = [bad.buffers] * backdoored
        groups = [sent[g : g + args.mask_group] for g in range(0, backdoored, args.mask_group)]
        masks_rng = collusion.seeds.generator("3dfed masks", round=updates.round)
        for alpha, group in zip(told.alphas, groups, strict=True):
            settings = MaskSettings(alpha, args.mask_std, args.mask_norm, args.mask_balance)
            neurons = parts.neurons(self.plan.attack.target_class, args.mask_neurons, masks_rng)
            parts.mask(group, neurons, settings, self.context.recipe, masks_rng)
        for place in parts.alike(away, honest, decoys):
            value = good.weights[place].item()
            decoy = trained_decoy(self, model, collusion.broadcast, place, value)
            sent.append(decoy.weights - start.weights)
            buffers.append(decoy.buffers)
        values: list[float] = []
        for row, delta, buffer, place in zip(order, sent, buffers, places, strict=True):
            values.append(planted(delta[place].item()))
            delta[place] = values[-1]
            updates.weights[row], updates.buffers[row] = start.weights + delta, buffer
        return told.memory(backdoored, args.mask_group, places, values, collusion.broadcast)

    def covert(self, model: nn.Module, broadcast: Broadcast) -> ModelState:
        """Train the backdoored model, each clean batch beside one of poisoned samples."""
        self.context.spec.load(model, broadcast.state)
        origin = [parameter.detach().clone() for parameter in model.parameters()]
        share, clean = (1 - self.args.covert_weight) / 2, [0]

        def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            parts = [slice(0, clean[0]), slice(clean[0], None)]
            losses = sum(cross_entropy(model, x[part], y[part]) for part in parts)
            distance = anomaly_loss(list(model.parameters()), origin, "l2")
            return share * losses + self.args.covert_weight * distance

        recipe = self.context.recipe
        recipe = replace(recipe, epochs=self.args.poison_epochs or recipe.epochs)

        def both() -> Iterator[tuple[Tensor, Tensor]]:
            for x, y, bad_x, bad_y in self._paired(broadcast, recipe.epochs):
                clean[0] = len(y)
                yield torch.cat([x, bad_x]), torch.cat([y, bad_y])

        fit(model, both(), recipe, loss=loss)
        return self.context.spec.flatten(model)

    def reference(self, model: nn.Module, collusion: Collusion) -> ModelState:
        """Train as a benign client does."""
        self.context.spec.load(model, collusion.broadcast.state)
        self.without_noise.fit(model, collusion.broadcast)
        return self.context.spec.flatten(model)

    def _paired(
        self, broadcast: Broadcast, epochs: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield images and labels of clean batches, each with a batch of the poisoned samples."""
        recipe, context, rows = self.context.recipe, self.context, self.plan.targets
        data = self.poisoned().to(context.device)
        bad = LocalData(data.x[rows], data.y[rows], data.poisoned[rows])
        rng = context.seeds.generator("3dfed poison", round=broadcast.round, client=self.id)
        again = (batch for _ in count() for batch in bad.batches(recipe.batch_size, 1, rng))
        clean = self.batches(broadcast, self.data, replace(recipe, epochs=epochs))
        for (x, y), (bad_x, bad_y) in zip(clean, again, strict=False):
            yield x, y, bad_x, bad_y
