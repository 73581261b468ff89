"""What a data poison is: it changes chosen samples, and says how its success is tested."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from entity.client.poisoning import choose, eligible
from entity.config.fields import AttackConfig
from entity.dataset.images import Images

TriggerMemory = Mapping[str, Tensor]
"""What the colluders of an adaptive poison have learnt, from round to round."""


@dataclass(frozen=True)
class NoPoisonArgs:
    """A data poison without settings of its own."""


class Poison(ABC):
    """Changes the samples that malicious clients train on; combines with any attack.

    Raises
    ------
    ConfigError
        From the constructor, if the settings do not fit the images.
    """

    summary: ClassVar[str]
    """One line for `drop list`."""
    paper: ClassVar[str] = ""
    """Author, year and arXiv id."""
    hyperparameters: ClassVar[type[Any]] = NoPoisonArgs
    """The dataclass of the poison's own settings."""
    any_samples: ClassVar[bool] = False
    """Whether it works on samples that are no square images of bytes, too. `channels` and `size` of
    the constructor are then the first and the last number of a sample's shape."""

    revision: ClassVar[int] = 1
    """To be raised when the same settings give other numbers than in an earlier version: a part of
    the identities of its runs."""

    triggers_the_test: ClassVar[bool] = True
    """Whether `test_set` is made of the eligible test images, in their order. One with images of
    its own has no clean counterparts."""

    divided_among: int = 1
    """Attackers that it takes to train on all of the trigger."""

    def __init__(self, attack: AttackConfig, args: Any, channels: int, size: int) -> None:
        self.attack = attack
        self.args = args
        self.channels = channels
        self.size = size

    def choose(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the positions of the samples that a malicious client poisons, increasing."""
        attack = self.attack
        return choose(labels, attack.victim_class, attack.target_class, attack.DPR, generator)

    @property
    def ready(self) -> bool:
        """Whether `poison` changes anything yet; clients with one that is not are benign."""
        return True

    @abstractmethod
    def poison(self, chosen: Images, rank: int, generator: torch.Generator) -> Images:
        """Return poisoned copies of the chosen samples, with the labels they are trained on.

        Parameters
        ----------
        chosen
            What `choose` drew from the client's data.
        rank
            Number of the client among the malicious ones, from 0.
        generator
            The client's own source of randomness.
        """

    @abstractmethod
    def test_set(self, test: Images) -> Images:
        """Return the test images that the attack is judged on, labelled as the attacker wants.

        A model's accuracy on them is its attack success rate; images of the target class never
        belong to them.
        """

    def parts_of(self, x: Tensor) -> Sequence[Tensor]:
        """Return images (N, C, H, W) as different clients trigger them, where they do not alike.

        The report shows them beside `test_set`; nothing is trained on them.
        """
        return ()

    def eligible(self, images: Images) -> Images:
        """Return the images that the attack may change: the victim class, or all but the target."""
        attack = self.attack
        return images.subset(eligible(images.y, attack.victim_class, attack.target_class))

    def relabelled(self, x: Tensor) -> Images:
        """Return images with the target label."""
        return Images(x, torch.full((len(x),), self.attack.target_class))


class AdaptivePoison(Poison):
    """A poison that the colluders improve against the global model before each poisoned round.

    What they have learnt reaches all of them as the broadcast's `trigger`, wherever they train;
    the attack is judged with it, too.
    """

    @abstractmethod
    def adapt(
        self, model: nn.Module, images: Images, round: int, rng: torch.Generator
    ) -> TriggerMemory:
        """Improve the poison, and return all of what it has learnt.

        Parameters
        ----------
        model
            Holds the global state; only its mode may be changed.
        images
            Clean data of one colluder of the round.
        round
            Number of the round.
        rng
            Source of all randomness.
        """

    @abstractmethod
    def recall(self, memory: TriggerMemory) -> None:
        """Restore what `adapt` returned, in this process or another; {} before the first time."""
