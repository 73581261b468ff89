"""ALIE: a little is enough.

Baruch et al., "A Little Is Enough: Circumventing Defenses for Distributed Learning", NeurIPS
2019, arXiv 1902.06156. All attackers send `mean - z * std`, coordinate by coordinate: as far from
the honest mean as they can go while enough honest clients lie still farther out, so that a defense
which takes the majority takes them.

Where the attackers are a majority the paper's z is infinite or undefined; we then ask for one
supporter (s = 1), and for none where no client is honest (z = 0). A negative z is replaced by 0,
too.

The formula gives 0 for a single attacker, and for two among an even number of clients: all send the
mean then, and a lone colluder its own honest update, whatever z is. The record counts them as
attackers all the same, and a warning says it. The authors' code takes 1.5 unless it is told
otherwise, four times the formula's z at its 12 attackers of 51.
"""

import logging
from dataclasses import dataclass
from statistics import NormalDist

from entity.client.untargeted import Knowledge, Untargeted, known_deltas, known_rows, send
from entity.config.schema import NonNegative
from entity.seeding import Seeds
from entity.updates import Updates

log = logging.getLogger("entity")


@dataclass(frozen=True)
class AlieArgs:
    """Hyper-parameters of ALIE."""

    alie_z: NonNegative | None = None
    """Standard deviations z from the mean; null takes the paper's largest safe one (0 to 3). The
    authors' code: 1.5."""
    knowledge: Knowledge = "colluders"
    """Whose mean and standard deviation: the attackers' own honest updates (the paper), or those
    of all benign clients."""


def z_max(n: int, attackers: int) -> float:
    """Return the largest z at which the attackers' point still has a majority around it.

    z = Φ⁻¹((n - m - s) / (n - m)) with s = ⌊n/2 + 1⌋ - m supporters to win.

    Parameters
    ----------
    n, attackers
        Clients and attackers m in the round.

    Examples
    --------
    >>> round(z_max(50, 10), 6), round(z_max(25, 5), 6)
    (0.253347, 0.253347)
    """
    honest = n - attackers
    supporters = max(1, n // 2 + 1 - attackers)
    if honest <= 0 or 2 * supporters >= honest:
        return 0.0
    return NormalDist().inv_cdf((honest - supporters) / honest)


class Alie(Untargeted):
    """Hides in the spread of the honest updates."""

    summary = "ALIE: all attackers send mean - z * std of honest updates"
    paper = "Baruch et al. 2019, arXiv 1902.06156"
    hyperparameters = AlieArgs

    @classmethod
    def collude(cls, args: AlieArgs, updates: Updates, malicious: list[int], seeds: Seeds) -> None:
        """Send the same perturbed mean; `knowledge` says of which clients."""
        z = z_max(len(updates), len(malicious)) if args.alie_z is None else args.alie_z
        rows = known_rows(updates, malicious, args.knowledge)
        if z == 0 or len(rows) == 1:
            said = "round %d: ALIE sends the mean of %d known updates, with z = %g: no attack"
            log.warning(said, updates.round, len(rows), z)
        for columns, deltas in known_deltas(updates, rows):
            # The paper's deviation is the population's: its code takes the root of np.var.
            crafted = deltas.mean(0) - z * deltas.std(0, correction=0)
            send(updates, malicious, columns, crafted)
