"""One decision of many ballots, of which some may lie: the stacked clustering of CrowdGuard.

Rieger et al., NDSS 2024, arXiv 2210.07714, Alg. 3: of two single-linkage clusters of ballots the
larger, and in it the ballot that is cast most often (DBSCAN with one sample and a radius below 1
groups equal ballots).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import ClusterNode, linkage, to_tree
from scipy.spatial.distance import pdist

Ballots = NDArray[np.bool_]


class Decision(NamedTuple):
    """What the voters decided."""

    benign: NDArray[np.bool_]
    """(n,) the ballot that was taken."""
    majority: int
    """Voters in the larger cluster."""
    agreed: int
    """Those of them who cast that ballot."""


def decide_by(ballots: Ballots) -> Decision:
    """Return the decision of ballots (v, n), v at least 1.

    Equal sizes, on which the paper is silent: of clusters the one with more equal ballots counts,
    of ballots the one that differs least from all of its cluster; then the first row's.
    """
    majority = max(
        _two_clusters(ballots), key=lambda rows: (len(rows), _most_frequent(rows, ballots)[1])
    )
    row, count = _most_frequent(majority, ballots)
    return Decision(ballots[row], len(majority), count)


def _two_clusters(ballots: Ballots) -> list[list[int]]:
    """Return the rows of the two sides of the last merge; one cluster of a single ballot."""
    if len(ballots) < 2:
        return [list(range(len(ballots)))]
    tree = to_tree(linkage(pdist(ballots.astype(np.float64)), method="single"))
    assert isinstance(tree, ClusterNode)
    sides = (tree.get_left(), tree.get_right())
    return sorted(sorted(side.pre_order()) for side in sides if side is not None)


def _most_frequent(rows: list[int], ballots: Ballots) -> tuple[int, int]:
    """Return a row with the ballot that most of some rows have cast, and how many they are."""
    unlike = (ballots[rows][:, None] != ballots[rows][None]).sum(2)
    counts, differences = (unlike == 0).sum(1), unlike.sum(1)
    best = min(range(len(rows)), key=lambda place: (-counts[place], differences[place], place))
    return rows[best], int(counts[best])
