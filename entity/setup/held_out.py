"""How many clean samples the server holds where the configuration leaves it to the data set."""

from dataclasses import replace

from entity.config.fields import ExperimentConfig
from entity.dataset import source_of
from entity.dataset.source import Source
from entity.distill.settings import StudentArgs


def held_out(config: ExperimentConfig, source: Source) -> int:
    """Return the number of the server's clean samples: the data set's own, unless one is given."""
    return source.held_out if config.server.held_out is None else config.server.held_out


def with_room(config: ExperimentConfig) -> ExperimentConfig:
    """Let the server hold more by default where a distillation would leave it none to measure on.

    The original stops early by its test images. Ours needs clean samples beside those of
    `num_seed`, and where its files take all that a data set holds out, there are as many more.
    """
    args = config.server.defense.defense_args
    stops = isinstance(args, StudentArgs) and args.K != -1 and args.early_stopping
    if not stops or config.server.held_out is not None:
        return config
    held = source_of(config).held_out
    if held > args.seeds_used:
        return config
    return replace(config, server=replace(config.server, held_out=args.seeds_used + held))
