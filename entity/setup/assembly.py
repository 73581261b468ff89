"""From a checked config to the parts of an experiment: data, clients, defense and judge."""

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from entity.attacks import ATTACKS
from entity.client import CLIENTS_OF_DEFENSES, Client
from entity.client.own_code import checked_test
from entity.client.poison import AdaptivePoison, Poison, TriggerMemory
from entity.client.poisoning import eligible
from entity.config.fields import AttackConfig, ExperimentConfig, ServerConfig
from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.dataset import Images, Source, Split, load, normalise, partition, source_of
from entity.defenses import DEFENSES
from entity.federation import malicious_clients, poisons_in
from entity.layout import ModelState
from entity.metrics import Judge
from entity.poisons import POISONS
from entity.poisons.label_flip import LabelFlip
from entity.seeding import Seeds, global_stream, own_stream
from entity.server import Averaging, CleanData, OptimiserArgs, Resources, Server
from entity.setup.electorate import Voters
from entity.setup.initial import initial_model
from entity.setup.roster import Roster
from entity.setup.signatures import refuse_unfinished
from entity.setup.single_samples import check_batches
from entity.training import fit, shuffled

log = logging.getLogger("entity")


@dataclass(frozen=True)
class World:
    """The parts of one experiment."""

    config: ExperimentConfig
    split: Split
    roster: Roster
    server: Server[Any]
    judge: Judge

    def model(self, state: ModelState) -> nn.Module:
        """Return a model that holds this state, until the next call."""
        self.roster.spec.load(self._model, state)
        return self._model

    @cached_property
    def _model(self) -> nn.Module:
        return self.roster.new_model()

    def evaluate(self, state: ModelState, trigger: TriggerMemory) -> dict[str, float]:
        """Judge a global model, and an adaptive poison by the trigger learnt so far.

        Parameters
        ----------
        state
            The global model.
        trigger
            `Broadcast.trigger`; empty unless the poison is adaptive.
        """
        self.attack_as_learnt(trigger)
        return self.judge(self.model(state))

    def attack_as_learnt(self, trigger: TriggerMemory) -> None:
        """Judge an adaptive poison by this trigger from now on; others are what they are."""
        if isinstance(self.roster.poison, AdaptivePoison):
            self.roster.poison.recall(trigger)
            self.judge.attack_with(_triggered(self.split, self.roster))


def assemble(config: ExperimentConfig, secret: bytes = b"") -> World:
    """Load the data, and build clients, defense and judge.

    Parameters
    ----------
    config
        The experiment.
    secret
        What the server draws from beside the experiment's seed: `Seeds.secret`.

    Raises
    ------
    ConfigError
        If the data is missing or does not suit the config.
    """
    split, roster = recruit(config, Seeds(config.settings.seed))
    check_batches(config, roster)
    if roster.attacker is not None:
        roster.attacker.check(roster.new_model())
    initial_model(config, roster)
    server = open_server(config, split, roster, secret)
    return World(config, split, roster, server, open_judge(config, split, roster))


def device_of(config: ExperimentConfig) -> torch.device:
    """Return the configured device; where it is missing, the CPU, and a line in the log."""
    device = config.settings.cuda
    if device == "mps":
        if torch.backends.mps.is_available():
            return torch.device("mps")
        log.info("no MPS device here: using the CPU")
    elif device >= 0:
        if device < torch.cuda.device_count():
            return torch.device("cuda", device)
        log.info("no CUDA device %d here: using the CPU", device)
    return torch.device("cpu")


def is_evaluated(config: ExperimentConfig, number: int) -> bool:
    """Whether the global model is judged after a round: every so often, and after the last."""
    return number % config.settings.eval_every == 0 or number == config.federation.rounds


def split_data(config: ExperimentConfig, seeds: Seeds) -> Split:
    """Load the data, and split it between server, test and clients.

    Raises
    ------
    ConfigError
        If it is not there, or the server cannot have its part.
    """
    root = user_path(config.settings.datasets_path)
    return load(source_of(config), root, seeds, config.server.held_out)


def recruit(config: ExperimentConfig, seeds: Seeds) -> tuple[Split, Roster]:
    """Load and split the data, share it out, and draw the malicious clients."""
    source, split = source_of(config), split_data(config, seeds)
    shares = partition(split.train.y, config.federation.size, config.client, seeds, split.owners)
    attack = config.client.attack
    malicious = frozenset(malicious_clients(config.federation, attack, seeds))
    roster = Roster(
        config,
        split.train,
        shares,
        malicious,
        None if attack is None else ATTACKS[attack.type],
        None if attack is None else _poison(attack, source, seeds),
        source.augmentation,
        source.num_classes,
        benign=CLIENTS_OF_DEFENSES.get(config.server.defense.type, Client),
        device=device_of(config),
    )
    if attack and attack.takes_place and malicious and not any(map(roster.is_harmful, malicious)):
        log.warning(
            "client.attack.DPR = %g poisons no sample of any malicious client: there is no attack",
            attack.DPR,
        )
    _warn_of_missing_attackers(roster)
    rounds = config.federation.rounds
    if attack and attack.takes_place and not any(poisons_in(attack, n + 1) for n in range(rounds)):
        log.warning(
            "client.attack.poisoning_start_round = %s: none of the %d rounds is poisoned: there is "
            "no attack",
            *(attack.poisoning_start_round, rounds),
        )
    return split, roster


def _poison(attack: AttackConfig, source: Source, seeds: Seeds) -> Poison:
    entry = POISONS[attack.poison]
    with own_stream(entry, seeds.generator("an own poison")):
        return entry(attack, attack.poison_args, source.channels, source.size)


def _warn_of_missing_attackers(roster: Roster) -> None:
    """Warn where too few malicious clients are there for what they are to do together."""
    attack, poison, there = roster.config.client.attack, roster.poison, len(roster.malicious)
    baits = getattr(attack.args, "baits", 0) if attack else 0
    if 0 < there <= baits:
        log.warning(
            "client.attack.baits = %d: all malicious clients (%d) are baits, and nobody pushes a "
            "backdoor",
            *(baits, there),
        )
    if attack and attack.takes_place and poison and 0 < there < poison.divided_among:
        log.warning(
            "client.attack.poison = %s: %d of the %d parts of its trigger are never trained on, as "
            "federation.number_of_malicious_clients = %d",
            attack.poison,
            poison.divided_among - there,
            poison.divided_among,
            there,
        )


def open_server(
    config: ExperimentConfig, split: Split, roster: Roster, secret: bytes = b""
) -> Server[Any]:
    """Build the defense with the resources that its threat model grants, and no others.

    Parameters
    ----------
    config
        The experiment.
    split
        The data, of which the server gets its own part at most.
    roster
        The clients, for the layout of the model.
    secret
        What the server draws from beside the experiment's seed: `Seeds.secret`.
    """
    defense, server = config.server.defense, config.server
    entry = DEFENSES[defense.type]
    clean = CleanData(normalise(split.server.x), split.server.y)
    needs = entry.needs(defense.defense_args)
    granted = needs.clean_data or server.bn_policy == "recalibrate" or defense.pretrain
    source = source_of(config)
    resources = Resources(
        spec=roster.spec,
        build=roster.fresh_model,
        seeds=replace(roster.seeds, secret=secret),
        image=(source.channels, source.size),
        classes=source.num_classes,
        averaging=Averaging(server.server_lr, server.weighting, server.bn_policy),
        recipe=replace(roster.recipe, prox_mu=config.client.prox_mu),
        clean=clean if granted else None,
        malicious_count=len(roster.malicious) if needs.true_malicious_count else None,
        federation_size=config.federation.size,
        rounds=config.federation.rounds,
        optimiser=_optimiser(server),
        augment=source.augmentation,
        electorate=Voters(roster) if needs.client_votes else None,
        device=roster.device,
    )
    with own_stream(entry, resources.seeds.generator("an own defense")):
        made = entry(defense.defense_args, resources)
    opened = refuse_unfinished(made, "resources", "optimiser")
    if config.settings.streaming:
        _check_statistics(opened, server.bn_policy)
    return opened


def _optimiser(server: ServerConfig) -> OptimiserArgs | None:
    """Return the settings of the server's optimiser, None if it has none."""
    name = server.optimiser
    if name == "none":
        return None
    if name != "fedavgm" and server.server_lr >= 1:
        log.warning(
            "server.server_lr = %g: %s moves every weight by about as much in a round, which few "
            "models survive; 0.001 to 0.1 is usual",
            server.server_lr,
            name,
        )
    return OptimiserArgs(
        name,
        server.optimiser_beta1,
        server.optimiser_beta2,
        server.optimiser_tau,
        server.optimiser_nesterov,
    )


def _check_statistics(server: Server[Any], asked: str) -> None:
    """Refuse to take the median of statistics that are added up one by one."""
    resources = server.resources
    if resources.averaging.bn_policy == "median" and resources.spec.num_buffers:
        raise ConfigError(
            f"server.bn_policy = {asked}: takes the median of the clients' BatchNorm statistics, "
            "for which settings.streaming = true would have to keep all of a round; use weighted, "
            "keep, recalibrate or original, or streaming = false."
        )


def open_judge(config: ExperimentConfig, split: Split, roster: Roster) -> Judge:
    """Build the judge on the test data, which nothing else ever sees.

    Parameters
    ----------
    config
        The experiment.
    split
        The data.
    roster
        The clients, for their poison and device.
    """
    threshold = config.server.low_confidence_threshold
    attack = config.client.attack
    if attack is None or roster.poison is None:
        return Judge(split.test, None, threshold, roster.device)
    victims = eligible(split.test.y, attack.victim_class, attack.target_class)
    triggered = _triggered(split, roster)
    if not len(triggered):
        log.warning(
            "client.attack.poison = %s: %s.test_set returned no samples, so that no round has an "
            "ASR",
            *(attack.poison, type(roster.poison).__name__),
        )
    elif len(triggered) == len(split.test) > int(victims.sum()):
        log.warning(
            "client.attack.poison = %s: %s.test_set returned all %d test samples, and not the %d "
            "that can be attacked alone",
            *(attack.poison, type(roster.poison).__name__, len(triggered), int(victims.sum())),
        )
    elif not isinstance(roster.poison, LabelFlip):
        _warn_of_slips(attack.poison, split.test.subset(victims), triggered)
    return Judge(split.test, triggered, threshold, roster.device, victims)


def _warn_of_slips(poison: str, clean: Images, triggered: Images) -> None:
    """Warn where a test set cannot tell an attack's success: of its samples, or their labels."""
    if clean.x.shape != triggered.x.shape:
        return
    own = int((clean.y == triggered.y).sum())
    if own:
        log.warning(
            "client.attack.poison = %s: %d of %d test samples have their own label, and the ASR "
            "is the accuracy on those",
            *(poison, own, len(clean)),
        )
    same = int((clean.x == triggered.x).flatten(1).all(1).sum())
    if 2 * same > len(clean):
        log.warning(
            "client.attack.poison = %s: its trigger leaves %d of %d test images as they are, and "
            "the ASR is of clean images there",
            *(poison, same, len(clean)),
        )


def _triggered(split: Split, roster: Roster) -> Images:
    assert roster.poison is not None
    with own_stream(roster.poison, roster.seeds.generator("test set of an own poison")):
        found = roster.poison.test_set(split.test)
    return checked_test(roster.poison, found, split.test, roster.classes)


def initial_state(config: ExperimentConfig, roster: Roster, server: Server[Any]) -> ModelState:
    """Return the first global model: drawn, or `initial`; then trained with `pretrain`.

    `pretrain` trains on the server's clean data.

    Parameters
    ----------
    config
        The experiment.
    roster
        The clients, for the model and the recipe of training.
    server
        The defense, for its clean data.
    """
    model = roster.new_model()
    if (start := initial_model(config, roster)) is not None:
        roster.spec.load(model, start)
    clean = server.resources.clean
    if config.server.defense.pretrain and clean is not None:
        x, y = clean.x.to(roster.device), clean.y.to(roster.device)
        recipe = roster.recipe
        rng = roster.seeds.generator("pretrain")
        order = shuffled(len(y), recipe.batch_size, recipe.epochs, rng)
        with global_stream(roster.seeds.generator("pretrain dropout")):  # dropout draws from it
            fit(model, ((x[batch], y[batch]) for batch in order), recipe)
    return roster.spec.flatten(model)
