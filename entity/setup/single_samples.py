"""Batches of one sample, which BatchNorm cannot be trained on where it sees one value a channel.

They are refused before anything is written. One sample that is left over beside larger batches is
another matter: it sits out this pass (`training.shuffled`), and another pass leaves out another.
"""

from collections.abc import Iterator

import torch
from torch import nn

from entity.config.fields import ExperimentConfig
from entity.config.schema import ConfigError
from entity.dataset import normalise
from entity.defenses import DEFENSES
from entity.models.fit_of_images import trains_on_one
from entity.setup.field_list import ARGS
from entity.setup.roster import Roster


def check_batches(config: ExperimentConfig, roster: Roster) -> None:
    """Refuse to train on single samples a model that cannot be trained on one.

    That is in batches of one sample, or where privacy takes the gradient of each.

    Parameters
    ----------
    config
        The experiment.
    roster
        The clients and their data.

    Raises
    ------
    ConfigError
        If there are such batches, or that privacy is asked for.
    """
    client = config.client
    if client.dp_clip is not None and client.dp_unit == "sample":
        _refuse_joint_gradients(config, roster)
    why = next(_single(config, roster), None)
    if why is None:
        return
    shape, dtype = roster.images.shape, roster.images.dtype
    one = normalise(torch.zeros(shape, dtype=dtype, device=roster.device))
    if not trains_on_one(roster.new_model(), one):
        said = f"{shape[-1]}x{shape[-1]} pixels" if dtype == torch.uint8 else f"shape {shape}"
        raise ConfigError(
            f"{why}; model = {config.model} cannot be trained on one sample of {said}, as its "
            "BatchNorm would see one value a channel (norm = group has none)."
        )


def _refuse_joint_gradients(config: ExperimentConfig, roster: Roster) -> None:
    """Refuse a model that has no gradient of one sample; a BatchNorm may have no buffers."""
    kind = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage]
    if roster.spec.num_buffers:
        has = "buffers, as those of BatchNorm"
    elif any(isinstance(module, kind) for module in roster.new_model().modules()):
        has = "BatchNorm"
    else:
        return
    raise ConfigError(
        f"client.dp_unit = sample: model = {config.model} has {has}, so that a gradient is of a "
        "whole batch; set norm = group, or use update."
    )


def _single(config: ExperimentConfig, roster: Roster) -> Iterator[str]:
    """Yield whose batches are of one sample, and what is allowed."""
    if config.client.batch_size == 1:
        yield "client.batch_size = 1: allowed is at least 2"
    defense = config.server.defense
    for name in DEFENSES[defense.type].trains_on:
        if getattr(defense.defense_args, name) == 1:
            yield f"{ARGS}.{name} = 1: allowed is at least 2"
    sizes = roster.num_samples(tuple(range(config.federation.size)))
    if alone := int((sizes == 1).sum()):
        yield (
            f"federation.size = {config.federation.size}: {alone} of the clients would have one "
            "sample; allowed are fewer clients, or a larger client.ADR or client.min_samples"
        )
