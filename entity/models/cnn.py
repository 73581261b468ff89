"""Two small convolutional networks: what federations of laptops train in seconds.

Pooling stands before ReLU: the two commute, bit for bit, and ReLU then has a quarter to do.
"""

from torch import nn

from entity.models.classifier import Classifier


def cnn(channels: int, size: int, classes: int) -> Classifier:
    """Build two convolutions of 16 and 32 filters and two linear layers of 64 and `classes`.

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width in pixels.
    classes
        Number of logits.
    """
    features = nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * (size // 4) ** 2, 64),
        nn.ReLU(),
    )
    return Classifier(features, nn.Linear(64, classes))


def lenet(channels: int, size: int, classes: int) -> Classifier:
    """Build LeNet-5 with ReLU and max pooling (LeCun et al. 1998).

    Parameters
    ----------
    channels, size
        Of the images: 1 or 3, and their height and width in pixels.
    classes
        Number of logits.
    """
    side = ((size - 4) // 2 - 4) // 2
    features = nn.Sequential(
        nn.Conv2d(channels, 6, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(6, 16, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * side**2, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
    )
    return Classifier(features, nn.Linear(84, classes))
