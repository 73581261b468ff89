"""FreqFed: the majority cluster by the low frequencies of the updates.

Fereidooni et al., "FreqFed: A Frequency Analysis-Based Approach for Mitigating Poisoning Attacks
in Federated Learning", NDSS 2024, arXiv 2312.04432. Every update goes through the discrete cosine
transform, its high frequencies are dropped, and HDBSCAN clusters the rest by cosine distance; the
clients of the largest cluster are averaged.

Where we leave the paper, and why:

- its abstract speaks of "the model updates (i.e., weights)"; here updates are transformed, the
  differences from the global model, as its weights would hide them under what all clients share;
- no code was published and the layout is not fully specified: each tensor is transformed in two
  dimensions as the matrix (outputs, everything else), so that frequencies never mix two layers;
- for a matrix of R rows and C columns the paper's triangle i + j <= V / 2 reads
  i / R + j / C <= 1 / 2, which is the same for R = C = V;
- a cluster is more than half of the clients, which is FLAME's rule, and without one everybody is
  averaged. The paper's text could not be had; of public ports some do the same, and one takes the
  largest cluster of three or more, so that two groups of which neither is a majority are not
  joined, but one of them is kept.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn
from torch import Tensor

from entity.layout import Slot, blocks
from entity.server.contract import Needs, Server, Setting
from entity.server.density import LEAST_CLUSTERED, cosine_distances, majority, require_clusterable
from entity.updates import Aggregation, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class FreqFedArgs:
    """FreqFed has no settings of its own."""


class FreqFed(Server[FreqFedArgs]):
    """The mean of the majority cluster in the low frequencies."""

    summary = "FreqFed: HDBSCAN majority by the low frequencies (DCT) of the updates"
    paper = "Fereidooni et al. 2024, arXiv 2312.04432"
    hyperparameters = FreqFedArgs
    least_clients = LEAST_CLUSTERED

    @classmethod
    def needs(cls, args: FreqFedArgs) -> Needs:
        """Ask for single updates, most of them honest."""
        return Needs(individual_updates=True, honest_majority=True)

    @classmethod
    def check(cls, args: FreqFedArgs, setting: Setting) -> None:
        """Refuse rounds too small to cluster."""
        require_clusterable("freqfed", setting)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average the majority cluster."""
        watch = Stopwatch()
        with watch("transform"):
            distances = cosine_distances(spectral_gram(updates))
        with watch("cluster"):
            kept = majority(distances, updates.client_ids)
        accepted = [row in set(kept) for row in range(len(updates))]
        shares = self.shares(updates, torch.tensor(accepted))
        with watch("average"):
            state = self.average(updates, shares)
        return Aggregation(
            *state,
            verdicts(
                updates,
                accepted,
                shares,
                scores=distances[:, kept].mean(1).tolist(),
                reasons=dict.fromkeys(range(len(updates)), "outside the majority cluster"),
            ),
            seconds=watch.seconds,
        )


def low_pass(rows: int, columns: int) -> NDArray[np.bool_]:
    """Return which frequencies (rows, columns) are kept: i / rows + j / columns <= 1 / 2.

    Examples
    --------
    >>> low_pass(4, 4).astype(int)
    array([[1, 1, 1, 0],
           [1, 1, 0, 0],
           [1, 0, 0, 0],
           [0, 0, 0, 0]])
    """
    i, j = np.ogrid[:rows, :columns]
    return 2 * (i * columns + j * rows) <= rows * columns


def low_frequencies(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the kept coefficients of a matrix's orthonormal DCT-II, as one vector."""
    spectrum = np.asarray(dctn(matrix, norm="ortho"))
    return spectrum[low_pass(*matrix.shape)]


def spectral_gram(updates: Updates) -> Tensor:
    """Return the inner products (n, n) of the updates' low frequencies, float64.

    One tensor of one client is transformed at a time; no second (n, P) matrix is made.
    """
    n = len(updates)
    gram = torch.zeros(n, n, dtype=torch.float64)
    for slot in updates.spec.parameters:
        kept = torch.stack([_spectrum(updates, row, slot) for row in range(n)])
        for columns in blocks(kept.shape[1]):
            block = kept[:, columns]
            gram.addmm_(block, block.T)
    return gram


def _spectrum(updates: Updates, row: int, slot: Slot) -> Tensor:
    delta = slot.of(updates.weights[row]).double() - slot.of(updates.global_weights)
    return torch.from_numpy(low_frequencies(delta.reshape(len(delta), -1).numpy()))
