"""The numbers that judge a run: MTA, ASR, accuracy on the victims, confidence rejection, detection.

MTA is top-1 accuracy on the clean test set. ASR is the share of triggered test images that are
classified as the target class; images whose true class is the target never count. The accuracy on
the victims is that on the clean images of the class that is attacked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from entity.dataset import Images, channels_last, normalise
from entity.training import logits
from entity.updates import Verdict

NAN = float("nan")


class Judge:
    """Evaluates models on a clean test set and its triggered counterpart.

    Parameters
    ----------
    test
        Clean test images.
    attacked
        Triggered test images, labelled with the target class; None without an attack.
    confidence_threshold
        Predictions at most this confident are rejected in the conditional metrics.
    device
        Where to evaluate.
    victims
        (N,) mask of the clean images that an attack would trigger; None without an attack.
    """

    def __init__(
        self,
        test: Images,
        attacked: Images | None,
        confidence_threshold: float | None = None,
        device: torch.device | None = None,
        victims: Tensor | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self._victims = None if victims is None else victims.to(self.device)
        self._clean = _placed(test, self.device)
        self.attack_with(attacked)
        self.threshold = confidence_threshold

    def attack_with(self, attacked: Images | None) -> None:
        """Judge the attack on these images from now on."""
        self._attacked = None if attacked is None else _placed(attacked, self.device)

    @property
    def attacked(self) -> Tensor | None:
        """The images (N, C, H, W) in [-1, 1] that the attack is judged on; None without one."""
        return None if self._attacked is None else _ready(self._attacked.x)

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw at most `count` clean test images (k, C, H, W) in [-1, 1], and their labels (k,)."""
        x, y = self._clean
        rows = torch.randperm(len(y), generator=generator)[:count].to(self.device)
        return _ready(x[rows]), y[rows]

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return `mta`, `asr` (NaN without an attack) and what else is asked for.

        With victims, `victim_accuracy`; with a threshold, the conditionals.
        """
        x, y = self._clean
        clean = logits(model, x, prepare=_ready)
        found = {"mta": rate(clean, y), "asr": NAN}
        if self._victims is not None:
            rows = self._victims
            found["victim_accuracy"] = rate(clean[rows], y[rows])
        if self.threshold is not None:
            found |= rejection(clean, y, self.threshold, "clean")
        if self._attacked is not None:
            x, y = self._attacked
            attacked = logits(model, x, prepare=_ready)
            found["asr"] = rate(attacked, y)
            if self.threshold is not None:
                found |= rejection(attacked, y, self.threshold, "poison")
        return found


class _Placed(NamedTuple):
    """Samples (N, ...) and labels (N,) where they are judged; bytes stay bytes.

    As numbers in [-1, 1] they would take four times the memory in every run, and bytes of a cache
    are the same memory for all.
    """

    x: Tensor
    y: Tensor


def _placed(images: Images, device: torch.device) -> _Placed:
    return _Placed(images.x.to(device), images.y.to(device))


def _ready(x: Tensor) -> Tensor:
    return channels_last(normalise(x))


def rate(answers: Tensor, labels: Tensor) -> float:
    """Return the share of logits (N, classes) whose largest is at the label; NaN for none."""
    if len(labels) == 0:
        return NAN
    hits = answers.argmax(1) == labels
    # The argmax of NaN is class 0: a broken model would be one that an attack on it succeeded on.
    return int((hits & ~answers.isnan().any(1)).sum()) / len(labels)


def rejection(answers: Tensor, labels: Tensor, threshold: float, name: str) -> dict[str, float]:
    """Return what is left when predictions of low confidence are rejected.

    A prediction is retained if its softmax probability exceeds the threshold. `retained` is the
    share of those, `conditional` the share of hits among them (NaN where nothing is retained),
    and `reject` FLIP's number, the share of retained hits among all.

    Parameters
    ----------
    answers
        (N, classes) logits.
    labels
        (N,) classes.
    threshold
        Confidence, from 0 to 1, that a retained prediction exceeds.
    name
        Prefix of the three names in the result.

    Examples
    --------
    >>> answers = torch.tensor([[0.9, 0.1], [0.3, 0.3], [0.5, 0.5]]).log()
    >>> found = rejection(answers, torch.tensor([0, 1, 1]), 0.6, "clean")
    >>> round(found["clean_retained"], 3), found["clean_conditional"]
    (0.333, 1.0)
    """
    if len(labels) == 0:
        return {f"{name}_retained": NAN, f"{name}_conditional": NAN, f"{name}_reject": NAN}
    confidence, predicted = answers.softmax(1).max(1)
    retained = confidence > threshold
    hits = (predicted == labels) & retained
    kept = int(retained.sum())
    return {
        f"{name}_retained": kept / len(labels),
        f"{name}_conditional": int(hits.sum()) / kept if kept else NAN,
        f"{name}_reject": int(hits.sum()) / len(labels),
    }


@dataclass
class Detection:
    """Refusals against the truth, pooled over rounds.

    Positive is a client that poisoned in that round, whatever it does in others; a positive that
    was refused is a true positive.
    """

    true_positives: int = 0
    false_negatives: int = 0
    false_positives: int = 0
    true_negatives: int = 0

    @classmethod
    def of_counters(cls, counters: Mapping[str, int]) -> "Detection":
        """Read the counters of a checkpoint, by the names of this or of an earlier version."""
        return cls(**{_EARLIER.get(name, name): count for name, count in counters.items()})

    def add(self, verdicts: Iterable[Verdict], poisoned: frozenset[int]) -> None:
        """Count one round, without the clients that nobody judged."""
        for verdict in verdicts:
            if verdict.undecided:
                continue
            if verdict.client in poisoned:
                self.true_positives += not verdict.accepted
                self.false_negatives += verdict.accepted
            else:
                self.false_positives += not verdict.accepted
                self.true_negatives += verdict.accepted

    @property
    def tpr(self) -> float:
        """Share of poisoned updates that were refused; NaN where none was poisoned."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def fpr(self) -> float:
        """Share of clean updates that were refused; NaN where all were poisoned."""
        return _ratio(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def precision(self) -> float:
        """Share of refused updates that were poisoned; NaN where none was refused."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and TPR."""
        errors = self.false_positives + self.false_negatives
        return _ratio(2 * self.true_positives, 2 * self.true_positives + errors)


_EARLIER = {
    "caught": "true_positives",
    "missed": "false_negatives",
    "wronged": "false_positives",
    "cleared": "true_negatives",
}
"""Names of the counters in older checkpoints."""


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else NAN


def lifespan(asr: Sequence[float], threshold: float = 0.5) -> int:
    """Return for how many rounds after its end an attack stays at or above a threshold.

    Neurotoxin's durability (arXiv 2206.10341): the last of the rounds after the stop, counted
    from 1, whose ASR is at least `threshold`; 0 if none is.

    Examples
    --------
    >>> lifespan([0.90, 0.80, 0.60, 0.49, 0.55, 0.40])
    5
    """
    return max((round for round, value in enumerate(asr, 1) if value >= threshold), default=0)
