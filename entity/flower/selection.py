"""Which of the connected nodes train in a round."""

from collections.abc import Sequence

import torch

from entity.seeding import Seeds


def choose(nodes: Sequence[int], count: int | None, round: int, seeds: Seeds) -> tuple[int, ...]:
    """Return the nodes of a round, in increasing order.

    The draw is the simulator's: of nodes that are numbered like its clients, the same are chosen.

    Parameters
    ----------
    nodes
        Ids of the connected nodes, in increasing order.
    count
        How many to choose; None, or more than there are, chooses all.
    round
        Number of the round, from 1.
    seeds
        The source of randomness.
    """
    if count is None or count >= len(nodes):
        return tuple(sorted(nodes))
    order = torch.randperm(len(nodes), generator=seeds.generator("select", round=round))
    known = sorted(nodes)
    return tuple(sorted(known[index] for index in order[:count].tolist()))
