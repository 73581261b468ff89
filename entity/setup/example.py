"""After the last round: a few test images, clean and triggered, and what the final model says.

The report shows them. They are the first images of the test set that the attack changes, chosen
before any model has seen them, so that runs of one data set and attack have the same; without a
victim class each is of another class. Nothing is drawn, so no number of the run depends on it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entity.client.poison import TriggerMemory
from entity.client.poisoning import eligible
from entity.dataset import Images, source_of
from entity.dataset.images import channels_last, normalise, to_pixels
from entity.setup.assembly import World
from entity.training import logits

MOST = 4
"""Images that are kept."""


@dataclass(frozen=True)
class Example:
    """What `artifacts/example.safetensors` holds."""

    tensors: dict[str, Tensor]
    """`triggered` (k, C, H, W) uint8 and the model's probabilities `triggered_scores` (k, classes);
    of an attack that triggers images of the test set also `clean`, `clean_scores` and `labels`
    (k,), and of one whose clients stamp different parts `parts` (m, C, H, W): the first image with
    each of them."""
    target: int
    """The class that the attacker wants."""
    class_names: tuple[str, ...]


@torch.no_grad()
def example(world: World, model: nn.Module, trigger: TriggerMemory) -> Example | None:
    """Show the final model a few images of the attack.

    Parameters
    ----------
    world
        The experiment.
    model
        Holds the final state.
    trigger
        What the colluders of an adaptive poison have learnt.

    Returns
    -------
    Example or None
        None without an attack, and where samples are no images.
    """
    attack, poison, test = world.config.client.attack, world.roster.poison, world.split.test
    if attack is None or poison is None or not _shows(test):
        return None
    world.attack_as_learnt(trigger)
    attacked = world.judge.attacked
    if attacked is None or not len(attacked):
        return None
    victims = eligible(test.y, attack.victim_class, attack.target_class).nonzero().flatten()
    paired = poison.triggers_the_test and len(attacked) == len(victims)
    places = first_of_each(test.y[victims], MOST) if paired else torch.arange(len(attacked))[:MOST]
    triggered = attacked[places.to(attacked.device)]
    tensors = {
        "triggered": to_pixels(triggered).cpu(),
        "triggered_scores": _scores(model, triggered),
    }
    if paired:
        clean = test.subset(victims[places])
        seen = channels_last(normalise(clean.x)).to(attacked.device)
        tensors |= {"clean": clean.x, "clean_scores": _scores(model, seen), "labels": clean.y}
        if parts := poison.parts_of(clean.x[:1]):
            tensors["parts"] = torch.cat(list(parts))
    return Example(tensors, attack.target_class, source_of(world.config).class_names)


def first_of_each(labels: Tensor, most: int) -> Tensor:
    """Return the first places of different classes and, where these are too few, the next places.

    Parameters
    ----------
    labels
        (n,) classes.
    most
        Places to return, in increasing order; fewer if there are fewer labels.

    Examples
    --------
    >>> first_of_each(torch.tensor([5, 5, 2, 5, 2]), 3)
    tensor([0, 1, 2])
    """
    seen: dict[int, int] = {}
    for place, label in enumerate(labels.tolist()):
        seen.setdefault(label, place)
    first = list(seen.values())[:most]
    others = (place for place in range(len(labels)) if place not in first)
    chosen = first + [place for place, _ in zip(others, range(most - len(first)), strict=False)]
    return torch.tensor(sorted(chosen), dtype=torch.int64)


def _shows(images: Images) -> bool:
    return images.dtype == torch.uint8 and len(images.shape) == 3 and images.shape[0] in (1, 3)


def _scores(model: nn.Module, x: Tensor) -> Tensor:
    return logits(model, x).float().softmax(1).cpu()


__all__ = ["Example", "example"]
