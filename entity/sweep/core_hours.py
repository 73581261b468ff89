"""How many hours of one core experiments with the small models take, guessed before any was run.

Seconds of one thread on an AMD EPYC core that nobody else used: local training as
`benchmarks/round.py` measures it, distillation as `benchmarks/distill.py` does.
"""

from functools import cache
from pathlib import Path

from entity.config.fields import ExperimentConfig
from entity.config.paths import user_path
from entity.dataset import find, source_of
from entity.distill.settings import StudentArgs
from entity.setup.held_out import held_out

IMAGE = {"cnn": 0.2e-3, "resnet8": 1.3e-3}
"""Seconds for each image that a client trains on, evaluation included."""

GENERATED = {"cnn": (6.4e-3, 0.23e-3), "resnet8": (23e-3, 0.83e-3)}
"""Seconds for each image of a distillation: the first, and the second for each channel of the
generator (10 and 36 ms at 16 and 128 channels, with 16 teachers)."""

EARLY = 0.15
"""Of that, the share of a distillation that ends where it changes nothing any more, and is fast."""

BASIS = "guessed from seconds an image on one core that nobody else uses"


def core_hours(config: ExperimentConfig) -> float | None:
    """Guess the hours of one experiment on one core; None where model or data are not known.

    Examples
    --------
    >>> from entity import load
    >>> round(core_hours(load("mnist/undefended", round_size=25)) * 3600 / 25, 1)  # a round
    5.9
    >>> core_hours(load("cifar10/undefended")) is None  # a ResNet-18
    True
    """
    if config.model not in IMAGE or config.server.defense.type == "flip":
        return None
    source, federation, client = source_of(config), config.federation, config.client
    count = source.counts[0] if source.counts is not None else _files(config)
    share = client.ADR * (count - held_out(config, source)) / federation.size
    images = federation.rounds * federation.round_size * share * client.num_epochs
    seconds = images * IMAGE[config.model]
    args = config.server.defense.defense_args
    if isinstance(args, StudentArgs):
        first, channel = GENERATED[config.model]
        each = args.iterations * args.batch_size * (first + channel * args.gen_width)
        early = EARLY if args.plateau is not None else 1
        seconds += args.times(federation.rounds) * each * early
    return seconds / 3600


def _files(config: ExperimentConfig) -> int:
    """Return how many training images a folder of images has."""
    shape = config.image_size, config.image_channels
    return _files_of(config.dataset, user_path(config.settings.datasets_path), *shape)


@cache
def _files_of(name: str, root: Path, size: int | None, channels: int | None) -> int:
    files = find(name, root, size, channels).files
    found = None if files is None else files.locate(root)
    return 0 if found is None else sum(not path.startswith("test/") for path, _, _ in found[1])


def shown(hours: float) -> str:
    """Return hours of a core for people.

    Examples
    --------
    >>> shown(2.04), shown(0.05)
    ('2.0 core hours', '3.0 core minutes')
    """
    return f"{hours:.1f} core hours" if hours >= 0.1 else f"{60 * hours:.1f} core minutes"
