"""VGG-11 for small images.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
2015, arXiv 1409.1556: configuration A, eight 3x3 convolutions and five poolings. Where we leave
the paper, as is usual at this size: BatchNorm behind every convolution, whose bias it replaces;
pooling that rounds up, so that 28 pixels survive five halvings as 32 do; one hidden layer of 512
instead of two of 4096, and no dropout. (DROP's code names a vgg11 that it does not define.)

Pooling stands before ReLU, as in cnn.py.
"""

from torch import nn

from entity.models.classifier import Classifier

STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))
"""Filters of the convolutions between two poolings."""
HIDDEN = 512
"""Units of the hidden linear layer."""


def vgg11(channels: int, size: int, classes: int) -> Classifier:
    """Build eight convolutions and two linear layers of 512 and `classes`.

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width in pixels.
    classes
        Number of logits.
    """
    layers: list[nn.Module] = []
    inputs = channels
    for widths in STAGES:
        for place, width in enumerate(widths, 1):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
            if place == len(widths):
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            layers.append(nn.ReLU())
            inputs = width
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]  # is one pixel already up to a size of 32
    features = nn.Sequential(*layers, *pooled, nn.Linear(inputs, HIDDEN), nn.ReLU())
    return Classifier(features, nn.Linear(HIDDEN, classes))
