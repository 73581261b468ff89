"""From a checked config to what an experiment is made of: data, clients, defense and judge."""

import logging
from pathlib import Path
from typing import Any

import torch

from entity.attacks import ATTACKS
from entity.client import HARDENED, Client
from entity.config.fields import ExperimentConfig
from entity.dataset import Split, load, normalise, partition, source_of
from entity.defenses import DEFENSES
from entity.federation import malicious_clients
from entity.layout import ModelState
from entity.metrics import Judge
from entity.poisons import POISONS
from entity.seeding import Seeds
from entity.server import Averaging, CleanData, Resources, Server
from entity.setup.roster import Roster
from entity.training import fit, shuffled

log = logging.getLogger("entity")


def device_of(config: ExperimentConfig) -> torch.device:
    """Return the device that was asked for, else the CPU, with one line that says so."""
    asked = config.settings.cuda
    if asked == "mps":
        if torch.backends.mps.is_available():
            return torch.device("mps")
        log.info("no MPS device here: using the CPU")
    elif asked >= 0:
        if asked < torch.cuda.device_count():
            return torch.device("cuda", asked)
        log.info("no CUDA device %d here: using the CPU", asked)
    return torch.device("cpu")


def recruit(config: ExperimentConfig, seeds: Seeds) -> tuple[Split, Roster]:
    """Load the data, split it, and say who the clients are."""
    source = source_of(config)
    split = load(source, Path(config.settings.datasets_path), seeds, config.server.held_out)
    shares = partition(split.train.y, config.federation.size, config.client, seeds)
    attack = config.client.attack
    malicious = frozenset(malicious_clients(config.federation, attack, seeds))
    roster = Roster(
        config,
        split.train,
        shares,
        malicious,
        None if attack is None else ATTACKS[attack.type],
        None
        if attack is None
        else POISONS[attack.poison](attack, attack.poison_args, source.channels, source.size),
        source.augmentation,
        source.num_classes,
        benign=HARDENED.get(config.server.defense.type, Client),
        device=device_of(config),
    )
    if malicious and not any(map(roster.is_harmful, malicious)):
        log.warning(
            "client.attack.DPR = %g poisons no sample of any malicious client: there is no attack",
            attack.DPR if attack else 0,
        )
    return split, roster


def open_server(config: ExperimentConfig, split: Split, roster: Roster) -> Server[Any]:
    """Build the defense and hand it what its threat model grants, and nothing else."""
    defense, server = config.server.defense, config.server
    entry = DEFENSES[defense.type]
    clean = CleanData(normalise(split.server.x), split.server.y)
    needs = entry.needs(defense.defense_args)
    granted = needs.clean_data or server.bn_policy == "recalibrate" or defense.pretrain
    source = source_of(config)
    resources = Resources(
        spec=roster.spec,
        build=roster.fresh_model,
        seeds=roster.seeds,
        image=(source.channels, source.size),
        classes=source.num_classes,
        averaging=Averaging(server.server_lr, server.weighting, server.bn_policy),
        recipe=roster.recipe,
        clean=clean if granted else None,
        malicious_count=len(roster.malicious) if needs.true_malicious_count else None,
        federation_size=config.federation.size,
        augment=source.augmentation,
        device=roster.device,
    )
    return entry(defense.defense_args, resources)


def open_judge(config: ExperimentConfig, split: Split, roster: Roster) -> Judge:
    """Build the evaluation on test data, which nothing else ever sees."""
    attacked = None if roster.poison is None else roster.poison.test_set(split.test)
    return Judge(split.test, attacked, config.server.low_confidence_threshold, roster.device)


def initial_state(config: ExperimentConfig, roster: Roster, server: Server[Any]) -> ModelState:
    """Return the first global model, trained on the server's clean data with `pretrain`."""
    model = roster.new_model()
    clean = server.resources.clean
    if config.server.defense.pretrain and clean is not None:
        x, y = clean.x.to(roster.device), clean.y.to(roster.device)
        recipe = roster.recipe
        rng = roster.seeds.generator("pretrain")
        order = shuffled(len(y), recipe.batch_size, recipe.epochs, rng)
        fit(model, ((x[batch], y[batch]) for batch in order), recipe)
    return roster.spec.flatten(model)
