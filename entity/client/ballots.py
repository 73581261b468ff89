"""What malicious clients answer where a defense lets clients vote on one another's models.

Rieger et al., "CrowdGuard: Federated Backdoor Detection in Federated Learning", NDSS 2024, arXiv
2210.07714, Sect. IV-C and Tab. V: they know all and agree on what they say, as they can feed their
voting code whatever data they like.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from entity.config.fields import FalseVotes


def false_ballot(kind: FalseVotes, voter: int, colluders: Sequence[int], n: int) -> Tensor | None:
    """Return what a malicious voter says of the n models: (n,) bool; None if it does not lie.

    Parameters
    ----------
    kind
        accept: all are benign. invert: the colluders are, all others are poisoned. split: every
        second colluder says that all are benign, the others that all are poisoned.
    voter
        Its row.
    colluders
        The rows of all malicious clients in the round, in an order that they agree on.
    n
        Clients in the round.

    Examples
    --------
    >>> false_ballot("invert", 0, [0, 2], 4)
    tensor([ True, False,  True, False])
    """
    if kind == "none":
        return None
    if kind == "accept" or (kind == "split" and list(colluders).index(voter) % 2 == 0):
        return torch.ones(n, dtype=torch.bool)
    ballot = torch.zeros(n, dtype=torch.bool)
    if kind == "invert":
        ballot[list(colluders)] = True
    return ballot
