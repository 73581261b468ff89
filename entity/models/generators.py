"""Generators of data-free distillation.

Kariyappa et al., "MAZE: Data-Free Model Stealing Attack Using Zeroth-Order Gradient Estimation",
CVPR 2021, arXiv 2005.03161. The images are in [-1, 1] (tanh). The published width is 128; the
cost grows with its square, and at 28x28 it dwarfs that of small teachers.
"""

import torch
from torch import Tensor, nn


class Generator(nn.Module):
    """Noise (b, latent) to images (b, C, size, size): one linear and three convolutions."""

    def __init__(self, channels: int, size: int, latent: int, width: int) -> None:
        super().__init__()
        if size % 4:
            raise ValueError(f"a generator doubles twice: image size {size} is not a multiple of 4")
        half = max(1, width // 2)
        self.latent = latent
        self.start = (width, size // 4, size // 4)
        self.linear = nn.Linear(latent, width * (size // 4) ** 2)
        self.body = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, half, 3, padding=1),
            nn.BatchNorm2d(half),
            nn.LeakyReLU(0.2),
            nn.Conv2d(half, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.Tanh(),
        )

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw inputs for `count` images."""
        return torch.randn(count, self.latent, generator=generator)

    def forward(self, noise: Tensor) -> Tensor:
        """Return images (b, C, size, size)."""
        return self.body(self.linear(noise).unflatten(1, self.start))


class ConditionalGenerator(Generator):
    """A generator of a given class, which enters as a learned embedding beside the noise."""

    def __init__(self, channels: int, size: int, latent: int, width: int, classes: int) -> None:
        super().__init__(channels, size, latent + classes, width)
        self.classes = classes
        self.embedding = nn.Embedding(classes, classes)

    def noise(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw noise (count, latent) and, in the last column, a class."""
        z = torch.randn(count, self.latent - self.classes, generator=generator)
        label = torch.randint(self.classes, (count, 1), generator=generator)
        return torch.cat([z, label.float()], 1)

    def forward(self, noise: Tensor) -> Tensor:
        """Return images (b, C, size, size)."""
        embedded = self.embedding(noise[:, -1].long())
        return super().forward(torch.cat([noise[:, :-1], embedded], 1))


def conv3_gen(channels: int, size: int, latent: int, width: int, classes: int) -> Generator:
    """Build MAZE's generator.

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width, a multiple of 4.
    latent
        Length of the noise.
    width
        Filters of the first convolution.
    classes
        Not used.
    """
    return Generator(channels, size, latent, width)


def conv3_cgen(channels: int, size: int, latent: int, width: int, classes: int) -> Generator:
    """Build MAZE's conditional generator, for any number of classes.

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width, a multiple of 4.
    latent
        Length of the noise.
    width
        Filters of the first convolution.
    classes
        Number of classes, and of the embedding's dimensions.
    """
    return ConditionalGenerator(channels, size, latent, width, classes)
