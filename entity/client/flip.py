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
- a trigger that was not found, or is too large, halves its pair's growth, so that the next choice
  is another; in the code it stays the first choice for ever, or counts as a trigger of size 0;
- the area limit holds in the warm-up and for each direction of a pair; the warm-up goes on where
  the last round left it, and its samples are drawn instead of the first;
- sizes are pixels; in the code those after the warm-up count three channels on grey images, too;
- every batch has a new pair; the code stays with one for two batches;
- the last found trigger is the next start; the code keeps the largest.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entity.client.client import Broadcast, Client, TrainingContext
from entity.client.data import LocalData
from entity.client.trigger_inversion import Triggers, invert, random_start
from entity.dataset import normalise
from entity.defenses.flip import FlipArgs
from entity.training import cross_entropy, logits

ANY = -1
"""The source of a universal trigger."""

Side = tuple[int, int]
"""(source, target)."""


def choose_pair(
    growth: Tensor, present: list[int], previous: int, chance: float, generator: torch.Generator
) -> Side | None:
    """Choose the pair of classes that a batch is hardened against.

    Parameters
    ----------
    growth
        (K, K) growth of the trigger from source (row) to target, -inf where there is none.
    present
        Classes that the batch holds enough of.
    previous
        Source of the last pair; not taken again by growth.
    chance
        Of a random pair.

    Returns
    -------
    (source, target) or None
        None if there is nothing to choose from.

    Examples
    --------
    >>> growth = torch.tensor([[-torch.inf, 0.9, 0.1], [0.2, -torch.inf, 0.3], [0, 0, -torch.inf]])
    >>> choose_pair(growth, [0, 1], previous=0, chance=0, generator=torch.Generator())
    (1, 2)
    """
    classes = len(growth)
    if not present or classes < 2:
        return None
    if torch.rand((), generator=generator) < chance:
        source = present[int(torch.randint(len(present), (), generator=generator))]
        target = int(torch.randint(classes - 1, (), generator=generator))
        return source, target + (target >= source)
    sources = [source for source in present if source != previous]
    if not sources or growth[sources].max() == -torch.inf:
        return None
    row, target = divmod(int(growth[sources].argmax()), classes)
    return sources[row], target


def grown(growth: float, old: float, new: float) -> float:
    """Return a pair's growth after its trigger's size went from `old` to `new`; 0 at first.

    Examples
    --------
    >>> grown(0.5, old=20.0, new=30.0)
    0.5
    """
    return (growth + (new - old) / old) / 2 if old > 0 else 0.0


@dataclass
class Notes:
    """What a client knows about triggers, from round to round."""

    sizes: Tensor
    """(K, K) pixels of the last trigger from source (row) to target; 0 before the first."""
    growth: Tensor
    """(K, K) its growth, the last changes the most; -inf where there is no pair."""
    triggers: dict[Side, Triggers]
    """The last triggers found, those of the warm-up under the source `ANY`."""
    warmed: int = 0
    """Targets that the warm-up has been through."""

    @classmethod
    def blank(cls, classes: int) -> "Notes":
        """Return the notes of a client that has not begun."""
        return cls(torch.zeros(classes, classes), torch.full((classes, classes), -math.inf), {})

    def __len__(self) -> int:
        return len(self.sizes)

    def finish_warm_up(self) -> None:
        """Rank the pairs by their universal triggers' sizes, the largest 1."""
        self.growth = self.sizes / self.sizes.max().clamp_min(1e-6)
        self.growth.fill_diagonal_(-math.inf)

    def book(self, side: Side, new: Triggers | None) -> None:
        """Note a pair's new trigger, or that there was none to be used."""
        old, growth = float(self.sizes[side]), float(self.growth[side])
        if new is None:
            self.growth[side] = growth / 2
            return
        size = float(new.sizes)
        self.growth[side] = grown(growth, old, size)
        self.sizes[side] = size
        self.triggers[side] = new


class FlipClient(Client):
    """A benign client that hardens its model while it trains."""

    def __init__(self, id: int, data: LocalData, context: TrainingContext) -> None:
        super().__init__(id, data, context)
        self.args: FlipArgs = context.defense_args
        self.notes: Notes | None = None
        self._hardens = False

    def fit(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Train, from the defense's first round on with hardened batches."""
        self._hardens = broadcast.round >= self.args.defense_start_round and len(self.data) > 0
        if self._hardens:
            self._begin(model, broadcast.round)
        super().fit(model, broadcast)

    def _begin(self, model: nn.Module, round: int) -> None:
        if self.notes is None:
            image = normalise(self.data.x[:1]).to(self.context.device)
            self.notes = Notes.blank(logits(model, image).shape[1])
        self._rng = self.context.seeds.generator("flip", round=round, client=self.id)
        self._previous = ANY
        self._batch = self._hardened = 0
        recipe = self.context.recipe
        self._batches = recipe.epochs * math.ceil(len(self.data) / recipe.batch_size)

    def local_loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss on the batch, hardened."""
        return cross_entropy(model, self._harden(model, x, y) if self._hardens else x, y)

    def _harden(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        notes, args = self.notes, self.args
        assert notes is not None
        self._batch += 1
        if notes.warmed < len(notes):
            return self._warm_up(model, notes, x, y)
        # Spread evenly: plain batches after the last hardened one would undo it.
        if self._hardened >= math.ceil(args.max_steps * self._batch / self._batches):
            return x
        present = (y.bincount() > args.size_min).nonzero().flatten().tolist()
        sides: list[Side] = []
        for _ in range(args.pairs_per_batch):
            free = [c for c in present if all(c != source for source, _ in sides)]
            previous = ANY if sides else self._previous
            pair = choose_pair(notes.growth, free, previous, args.random_pair, self._rng)
            if pair is None:
                break
            sides += [pair, (pair[1], pair[0])] if pair[1] in free else [pair]
        if not sides:
            return x
        self._hardened += 1
        self._previous = sides[0][0]
        return self._pair_up(model, notes, sides, x, y)

    def _warm_up(self, model: nn.Module, notes: Notes, x: Tensor, y: Tensor) -> Tensor:
        target = notes.warmed
        notes.warmed += 1
        images = self._sample(target).to(x.device)
        side = (ANY, target)
        which = torch.zeros(len(images), dtype=torch.long, device=x.device)
        new = self._invert(model, notes, [side], images, which, self.args.trigger_steps[1])[side]
        if new is not None:
            notes.triggers[side] = new
            notes.sizes[:, target] = new.sizes
            notes.sizes[target, target] = 0
        if notes.warmed == len(notes):
            notes.finish_warm_up()
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
        self, model: nn.Module, notes: Notes, sides: list[Side], x: Tensor, y: Tensor
    ) -> Tensor:
        rows = [(y == source).nonzero().flatten() for source, _ in sides]
        which = torch.cat([torch.full_like(r, i) for i, r in enumerate(rows)])
        first, _, later = (*self.args.trigger_steps, 200)[:3]
        steps = first if any(_known(notes, side) is None for side in sides) else later
        found = self._invert(model, notes, sides, x[torch.cat(rows)], which, steps)
        for side, new in found.items():
            notes.book(side, new)
            if new is not None:
                x = self._stamp(x, y == side[0], new)
        return x

    def _invert(
        self,
        model: nn.Module,
        notes: Notes,
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
                _known(notes, side) or random_start(image, self._rng, chunk=args.init_mask_chunk)
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
            steps=steps,
            threshold=args.attack_succ_threshold,
            lr=args.trigger_lr,
            cost=args.trigger_cost,
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
        """Return sizes, growth and triggers, under the names that the authors' code has."""
        notes = self.notes
        if notes is None:
            return {}
        state = {
            "mat_warm": notes.sizes,
            "mat_diff": notes.growth,
            "warmed": torch.tensor(notes.warmed),
        }
        if notes.triggers:
            known = Triggers.join(list(notes.triggers.values()))
            state["pairs"] = torch.tensor(list(notes.triggers))
            state["masks"], state["patterns"] = known.mask, known.pattern
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        if not state:
            self.notes = None
            return
        triggers: dict[Side, Triggers] = {}
        if "pairs" in state:
            known = Triggers(state["masks"], state["patterns"])
            for i, (source, target) in enumerate(state["pairs"].tolist()):
                triggers[source, target] = known[i]
        self.notes = Notes(
            state["mat_warm"].clone(), state["mat_diff"].clone(), triggers, int(state["warmed"])
        )


def _known(notes: Notes, side: Side) -> Triggers | None:
    return notes.triggers.get(side) or notes.triggers.get((ANY, side[1]))
