"""The Wasserstein critic of MAZE (arXiv 2005.03161): generated images against clean ones."""

from torch import Tensor, nn

SMALLEST = 12
"""Size of the smallest images that leave its layers something to normalise over."""


class Critic(nn.Module):
    """Images (b, C, size, size) to one score each; the published width is 32.

    The third convolution keeps the resolution where halving it once more would leave too little
    for the last one (28x28), which below 20x20 is as small as what is left for it.
    """

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        if size < SMALLEST:
            raise ValueError(f"a critic halves twice: image size {size} is below {SMALLEST}")
        stride = 2 if size // 4 >= 8 else 1
        left = (size // 4 - 2) // stride + 1
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1),
            nn.InstanceNorm2d(width, affine=True),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.InstanceNorm2d(2 * width, affine=True),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, stride, 1),
            nn.InstanceNorm2d(4 * width, affine=True),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, min(4, left)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (b,), averaged over the remaining positions."""
        return self.body(x).mean((1, 2, 3))


def conv3_dis(channels: int, size: int, width: int) -> Critic:
    """Build MAZE's critic.

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width, at least 12.
    width
        Filters of the first convolution.
    """
    return Critic(channels, size, width)
