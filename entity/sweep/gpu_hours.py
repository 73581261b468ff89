"""How many hours of a GPU experiments with a ResNet-18 take, guessed before any was run.

The paper says of a run of its own: DROPlet takes half an hour, DROP two, FLIP up to 57, on a GPU
that it does not name. It does not name the data set either; we take it for CIFAR-10 (200 rounds of
25 clients with 980 images each, two epochs). From that follow images a second, seconds of a
distillation, and what FLIP multiplies training by.
"""

from entity.config.fields import ExperimentConfig
from entity.dataset import source_of
from entity.setup.held_out import held_out

MODELS = ("resnet18", "emnist_resnet18", "gtsrb_resnet18")
"""ResNet-18, by where it pools."""

IMAGES_A_SECOND = 200 * 25 * 980 * 2 / (0.5 * 3600)
"""Images that clients train on."""

QUERIES_A_SECOND = 200 / 5 * 5e6 / (1.5 * 3600)
"""Budget of a distillation."""

FLIP = 57 / 0.5
"""Times that clients' training takes with trigger inversion, at most."""

BASIS = (
    "guessed from what the paper says of a run of its own, taken for one on CIFAR-10 (DROPlet half "
    "an hour, DROP 2, FLIP up to 57, on a GPU that it does not name)"
)


def gpu_hours(config: ExperimentConfig) -> float | None:
    """Guess the hours of one experiment; None of another model, or data of unknown size.

    Examples
    --------
    >>> from entity import load
    >>> [round(gpu_hours(load(f"cifar10/{name}")), 1) for name in ("droplet", "drop", "flip")]
    [0.5, 2.0, 57.0]
    """
    if config.model not in MODELS:
        return None
    source, federation = source_of(config), config.federation
    if source.counts is None:
        return None
    share = config.client.ADR * (source.counts[0] - held_out(config, source)) / federation.size
    images = federation.rounds * federation.round_size * share * config.client.num_epochs
    seconds = images / IMAGES_A_SECOND
    defense = config.server.defense
    if defense.type == "flip":
        seconds *= FLIP
    if defense.type == "drop":
        args = defense.defense_args
        queries = args.iterations * args.queries_per_iteration
        seconds += args.times(federation.rounds) * queries / QUERIES_A_SECOND
    return seconds / 3600


def shown(hours: float) -> str:
    """Return hours of a GPU for people.

    Examples
    --------
    >>> shown(57.2), shown(2.04)
    ('57 GPU hours', '2.0 GPU hours')
    """
    return f"{hours:.0f} GPU hours" if hours >= 10 else f"{max(hours, 0.1):.1f} GPU hours"
