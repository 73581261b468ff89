"""Residual networks for small images.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385. The stem
is a 3x3 convolution of stride 1; the wide family (18, 34) follows it with the 3x3 max pooling of
stride 2 that the DROP experiments have.

Convolutions start from normal weights of variance 2 / (outputs x height x width of the kernel), as
in DROP's code. The paper takes that from He et al., "Delving Deep into Rectifiers: Surpassing
Human-Level Performance on ImageNet Classification", ICCV 2015, arXiv 1502.01852.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from entity.models.classifier import Classifier


class Convolution(nn.Conv2d):
    """A convolution whose weights start as the paper's."""

    def reset_parameters(self) -> None:
        """Draw the initial weights."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Convolution(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = Convolution(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                Convolution(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return activations (b, outputs, H / stride, W / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def _resnet(
    channels: int, classes: int, widths: Sequence[int], depths: Sequence[int], pool: bool
) -> Classifier:
    layers: list[nn.Module] = [
        Convolution(channels, widths[0], 3, 1, 1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    if pool:
        layers.append(nn.MaxPool2d(3, 2, 1))
    inputs = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for block in range(depth):
            layers.append(BasicBlock(inputs, width, 2 if stage and not block else 1))
            inputs = width
    features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Classifier(features, nn.Linear(inputs, classes))


def resnet8(channels: int, size: int, classes: int) -> Classifier:
    """Build one block in each of three stages of 16, 32 and 64 filters.

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width in pixels.
    classes
        Number of logits.
    """
    return _resnet(channels, classes, (16, 32, 64), (1, 1, 1), pool=False)


def resnet20(channels: int, size: int, classes: int) -> Classifier:
    """Build three blocks in each of three stages of 16, 32 and 64 filters.

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width in pixels.
    classes
        Number of logits.
    """
    return _resnet(channels, classes, (16, 32, 64), (3, 3, 3), pool=False)


def resnet18(channels: int, size: int, classes: int) -> Classifier:
    """Build the DROP experiments' ResNet-18; digits and letters (1 channel) are not pooled.

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width in pixels.
    classes
        Number of logits.
    """
    return _resnet(channels, classes, (64, 128, 256, 512), (2, 2, 2, 2), pool=channels > 1)


def resnet34(channels: int, size: int, classes: int) -> Classifier:
    """Build the ResNet-34 of the same family.

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width in pixels.
    classes
        Number of logits.
    """
    return _resnet(channels, classes, (64, 128, 256, 512), (3, 4, 6, 3), pool=channels > 1)


def emnist_resnet18(channels: int, size: int, classes: int) -> Classifier:
    """Build the DROP experiments' ResNet-18 of letters, which is not pooled in any colour.

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width in pixels.
    classes
        Number of logits.
    """
    return _resnet(channels, classes, (64, 128, 256, 512), (2, 2, 2, 2), pool=False)


def gtsrb_resnet18(channels: int, size: int, classes: int) -> Classifier:
    """Build the DROP experiments' ResNet-18 of traffic signs, which is pooled in any colour.

    It has as many outputs as there are classes, 43; the original's has 47.

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width in pixels.
    classes
        Number of logits.
    """
    return _resnet(channels, classes, (64, 128, 256, 512), (2, 2, 2, 2), pool=True)
