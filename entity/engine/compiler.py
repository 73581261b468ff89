"""torch.compile for the clients' model, where there is what it needs.

It fuses operations, so that sums are taken in another order: weights agree with those of the
plain model within rounding, not to the bit. On two CPU cores the first step took 4 to 35 s, and
later ones gained nothing on LeNet and a fifth on ResNet-8 in bfloat16.
"""

import logging
import os
from dataclasses import replace

import torch
from torch import nn

from entity.setup.roster import Roster

log = logging.getLogger("entity")


def compile_model(model: nn.Module) -> None:
    """Compile a module in place: its names, its tensors and its copies stay what they are.

    Dropout goes on drawing from torch's stream, so that it drops what it would drop without.
    """
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # a worker has one core
    model.compile(options={"fallback_random": True})


def without_compiler(roster: Roster) -> Roster:
    """Return the roster, not to be compiled where that cannot be done; one line says so."""
    if not roster.config.settings.compile:
        return roster
    try:
        probe = nn.Linear(2, 2).to(roster.device)
        compile_model(probe)
        probe(torch.ones(1, 2, device=roster.device))
    except Exception as error:  # of the compiler's own many kinds
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        log.warning("settings.compile = true: nothing is compiled here (%s)", reason)
        config = roster.config
        settings = replace(config.settings, compile=False)
        return replace(roster, config=replace(config, settings=settings))
    return roster
