"""Who takes part: malicious membership, selection per round, the poisoning window."""

import torch

from entity.config.fields import AttackConfig, FederationConfig
from entity.seeding import Seeds


def malicious_clients(
    config: FederationConfig, attack: AttackConfig | None, seeds: Seeds
) -> set[int]:
    """Draw the malicious clients, uniformly and once for the whole experiment.

    Without an attack nobody is malicious, whatever the configured number.

    Parameters
    ----------
    config
        Size of the federation and number of malicious clients.
    attack
        The attack, if any.
    seeds
        Of the experiment.
    """
    if attack is None:
        return set()
    order = torch.randperm(config.size, generator=seeds.generator("malicious"))
    return set(order[: config.number_of_malicious_clients].tolist())


def select(
    config: FederationConfig, malicious: set[int], round: int, seeds: Seeds
) -> tuple[int, ...]:
    """Select the clients of a round, in increasing order of their ids.

    `random` draws n of N without replacement, so the number of malicious ones is hypergeometric;
    `enforced` draws exactly n * |M| / N malicious ones (`resolve` refuses shares that are not
    whole).

    Parameters
    ----------
    config
        Sizes of federation and round, and the strategy.
    malicious
        Ids of the malicious clients.
    round
        Number of the round, from 1.
    seeds
        Of the experiment.
    """
    generator = seeds.generator("select", round=round)
    order = torch.randperm(config.size, generator=generator).tolist()
    if config.malicious_client_strategy == "random":
        return tuple(sorted(order[: config.round_size]))
    quota = config.round_size * len(malicious) // config.size
    bad = [client for client in order if client in malicious][:quota]
    good = [client for client in order if client not in malicious][: config.round_size - quota]
    return tuple(sorted(bad + good))


def poisons_in(attack: AttackConfig, round: int) -> bool:
    """Whether malicious clients poison in this round; outside the window they train as benign.

    The window is `start <= round < end`, and of its rounds one in `poisoning_every` is poisoned,
    beginning with the first. (The original's code looked at the window only with batch-wise
    poisoning, so "after convergence" poisoned from the first round.)
    """
    start, end = 1, None
    if attack.participation_strategy == "after_convergence":
        start, end = attack.poisoning_start_round or 1, attack.poisoning_end_round
    inside = round >= start and (end is None or round < end)
    return attack.takes_place and inside and (round - start) % attack.poisoning_every == 0
