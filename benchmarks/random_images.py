"""Random images in place of a data set: the cost of a round does not depend on what they show."""

from dataclasses import replace

import torch

from entity.dataset import DATASETS, MNIST5K, Augmentation, Images, Source


def register_random_images(channels: int, size: int, train: int, test: int = 2000) -> str:
    """Register random images of ten balanced classes as a data set, and return its name.

    Its augmentation is CIFAR-10's: crop, flip and rotation.

    Parameters
    ----------
    channels, size
        Of an image.
    train, test
        Numbers of images.
    """
    name = f"standin-{channels}x{size}x{size}"

    def draw(count: int, rng: torch.Generator) -> Images:
        x = torch.randint(256, (count, channels, size, size), generator=rng, dtype=torch.uint8)
        return Images(x, torch.arange(count) % 10)

    source: Source = replace(
        MNIST5K,
        name=name,
        channels=channels,
        size=size,
        held_out=0,
        augmentation=Augmentation(pad=4, flip=True, degrees=15),
        read=lambda root, seeds: (
            draw(train, seeds.generator("stand-in, training")),
            draw(test, seeds.generator("stand-in, test")),
        ),
        counts=None,
    )
    DATASETS[name] = source
    return name
