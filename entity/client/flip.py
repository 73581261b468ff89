"""FLIP, the clients' side: benign clients unlearn the triggers that they can invert.

Zhang et al., "FLIP: A Provable Defense Framework for Backdoor Mitigation in Federated Learning",
ICLR 2023, arXiv 2210.12873. A client first inverts, batch by batch, one universal trigger for
every target class (warm-up); afterwards it picks for every batch a pair of classes (s, t), inverts
the trigger of s -> t, and of t -> s too if the batch holds both, starting from the last one it
knew, stamps a portion of these samples and takes the usual step on the batch with true labels.
Pairs are drawn at random or taken by the growth of their triggers under hardening.

Where we leave the authors' code, and the port in DROP's, and why:

- optimiser and epochs are those of all clients; the authors' FLIP clients train longer and with
  Adam, so that clean accuracies could not be compared;
- a batch without a usable trigger is trained on as it is; they drop it;
- a trigger that was not found, or is too large, halves its pair's growth, and lowers it by 0.1 at
  least, so that other pairs come first; in the code it stays the first choice for ever, or counts
  as a trigger of size 0;
- the area limit holds in the warm-up and for each direction of a pair; the warm-up goes on where
  the last round left it, and its samples are drawn instead of the first;
- sizes are pixels; in the code those after the warm-up count three channels on grey images, too;
- each direction of a pair stamps `portion` of its own samples; where a batch holds both classes,
  the code stamps as many in either direction, `portion` of the rarer one's;
- every batch has a new pair; the code stays with one for two batches;
- the last found trigger is the next start; the code keeps the largest.
"""

import math

import torch
from torch import Tensor, nn

from entity.client.client import Broadcast, Client, TrainingContext
from entity.client.data import LocalData
from entity.client.trigger_history import ANY, Side, TriggerHistory, choose_pair
from entity.client.trigger_inversion import Search, Triggers, invert, random_start
from entity.dataset import normalise
from entity.defenses.flip import FlipArgs
from entity.training import cross_entropy, logits


class FlipClient(Client):
    """A benign client that hardens its model while it trains."""

    def __init__(self, id: int, data: LocalData, context: TrainingContext) -> None:
        super().__init__(id, data, context)
        self.args: FlipArgs = context.defense_args
        self.history: TriggerHistory | None = None
        self._hardens = False

    def fit(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Train, from the defense's first round on with hardened batches."""
        self._hardens = broadcast.round >= self.args.defense_start_round and len(self.data) > 0
        if self._hardens:
            self._begin(model, broadcast.round)
        super().fit(model, broadcast)

    def _begin(self, model: nn.Module, round: int) -> None:
        if self.history is None:
            image = normalise(self.data.x[:1]).to(self.context.device)
            self.history = TriggerHistory.blank(logits(model, image).shape[1])
        self._rng = self.context.seeds.generator("flip", round=round, client=self.id)
        self._previous = ANY
        self._batch = self._hardened = 0
        recipe = self.context.recipe
        self._batches = recipe.epochs * math.ceil(len(self.data) / recipe.batch_size)

    def local_loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss on the batch, hardened."""
        return cross_entropy(model, self._harden(model, x, y) if self._hardens else x, y)

    def _harden(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        history, args = self.history, self.args
        assert history is not None
        self._batch += 1
        if history.warmed < len(history):
            return self._warm_up(model, history, x, y)
        # Spread evenly: plain batches after the last hardened one would undo it.
        if self._hardened >= math.ceil(args.max_steps * self._batch / self._batches):
            return x
        present = (y.bincount() > args.size_min).nonzero().flatten().tolist()
        sides: list[Side] = []
        for _ in range(args.pairs_per_batch):
            free = [c for c in present if all(c != source for source, _ in sides)]
            previous = ANY if sides else self._previous
            pair = choose_pair(history.growth, free, previous, args.random_pair, self._rng)
            if pair is None:
                break
            sides += [pair, (pair[1], pair[0])] if pair[1] in free else [pair]
        if not sides:
            return x
        self._hardened += 1
        self._previous = sides[0][0]
        return self._pair_up(model, history, sides, x, y)

    def _warm_up(self, model: nn.Module, history: TriggerHistory, x: Tensor, y: Tensor) -> Tensor:
        target = history.warmed
        images = self._sample(target).to(x.device)
        side = (ANY, target)
        which = torch.zeros(len(images), dtype=torch.long, device=x.device)
        new = self._invert(model, history, [side], images, which, self.args.trigger_steps[1])[side]
        history.add_universal(target, new)
        return x if new is None else self._stamp(x, y != target, new)

    def _sample(self, target: int) -> Tensor:
        """Draw `size_min` images of every other class that has more than these."""
        order = torch.randperm(len(self.data), generator=self._rng)
        labels = self.data.y[order]
        rows = [
            order[labels == c][: self.args.size_min]
            for c, count in enumerate(labels.bincount().tolist())
            if count > self.args.size_min and c != target
        ]
        return normalise(self.data.x[torch.cat(rows)] if rows else self.data.x[:0])

    def _pair_up(
        self, model: nn.Module, history: TriggerHistory, sides: list[Side], x: Tensor, y: Tensor
    ) -> Tensor:
        rows = [(y == source).nonzero().flatten() for source, _ in sides]
        which = torch.cat([torch.full_like(r, i) for i, r in enumerate(rows)])
        first, _, later = (*self.args.trigger_steps, 200)[:3]
        steps = first if any(history.known(side) is None for side in sides) else later
        found = self._invert(model, history, sides, x[torch.cat(rows)], which, steps)
        for side, new in found.items():
            history.add(side, new)
            if new is not None:
                x = self._stamp(x, y == side[0], new)
        return x

    def _invert(
        self,
        model: nn.Module,
        history: TriggerHistory,
        sides: list[Side],
        x: Tensor,
        which: Tensor,
        steps: int,
    ) -> dict[Side, Triggers | None]:
        """Return the trigger of each side, None where there is none of an acceptable area."""
        args = self.args
        image = (x.shape[1], x.shape[2], x.shape[3])
        start = Triggers.join(
            [
                history.known(side) or random_start(image, self._rng, chunk=args.init_mask_chunk)
                for side in sides
            ]
        )
        targets = torch.tensor([target for _, target in sides], device=x.device)
        new, found = invert(
            model,
            x,
            targets[which],
            which,
            start,
            Search(steps, args.attack_succ_threshold, args.trigger_lr, args.trigger_cost),
        )
        limit = args.trigger_size_check_threshold * image[1] * image[2]
        usable = (found & (new.sizes <= limit)).tolist()
        return {
            side: new[i].to(torch.device("cpu")) if usable[i] else None
            for i, side in enumerate(sides)
        }

    def _stamp(self, x: Tensor, eligible: Tensor, trigger: Triggers) -> Tensor:
        """Stamp a random `portion` of the eligible samples on a copy of the batch."""
        rows = eligible.nonzero().flatten()
        order = torch.randperm(len(rows), generator=self._rng).to(x.device)
        rows = rows[order[: math.floor(self.args.portion * len(rows) + 1e-9)]]
        x = x.clone()
        x[rows] = trigger.to(x.device).stamp(x[rows], torch.zeros_like(rows))
        return x

    def state_dict(self) -> dict[str, Tensor]:
        """Return the history of the triggers; nothing before the first hardened round."""
        return {} if self.history is None else self.history.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        self.history = TriggerHistory.of(state) if state else None
