"""The generator of data-free model extraction.

Truong et al., "Data-Free Model Extraction", CVPR 2021, arXiv 2011.14779 (GeneratorA of its code,
after Fang et al., arXiv 1912.11006). MAZE's generator has the same layers; here the last BatchNorm
is not affine, so that the images' spread before the tanh is fixed. Published: a width of 128 and
noise of length 256, at 32x32; any size that is a multiple of 4 works.
"""

from torch import nn

from entity.models.generators import Generator


class DfmeGenerator(Generator):
    """Noise (b, latent) to images (b, C, size, size) in [-1, 1], normalised before the tanh."""

    def __init__(self, channels: int, size: int, latent: int, width: int) -> None:
        super().__init__(channels, size, latent, width)
        self.body[-2] = nn.BatchNorm2d(channels, affine=False)


def dfme_gen(channels: int, size: int, latent: int, width: int, classes: int) -> Generator:
    """Build DFME's generator.

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
    return DfmeGenerator(channels, size, latent, width)
