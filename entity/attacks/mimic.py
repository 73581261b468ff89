"""Mimic: all attackers send what one benign client sends.

Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR
2022, arXiv 2006.09365. Where clients' data differ, repeating one honest update makes it count for
many and the others for less, and no defense can tell the copies from honest. The attackers are
omniscient: they see all benign updates, and copy one. Which: that with the largest inner product
with z, an estimate of the direction in which honest updates differ most, by one power step a round
over the first `mimic_warmup` rounds; the client found last is copied from then on.

The text of the paper could not be had; this is the authors' code. Where we leave it: the start of z
is drawn from the experiment's seed, not from 0 in every run; honest updates that are all alike
leave z as it was, where the code divides 0 by 0; a client to copy that is not in the round, which
the code does not know, is replaced in it by the largest inner product; updates that are not finite
are not copied. BatchNorm statistics are copied, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entity.client.collusion import Collusion, CollusionMemory
from entity.client.untargeted import Untargeted, known_deltas
from entity.config.schema import Count
from entity.seeding import Seeds
from entity.updates import Updates, finite_rows


@dataclass(frozen=True)
class MimicArgs:
    """Hyper-parameters of Mimic."""

    mimic_warmup: Count = 1
    """Poisoned rounds in which z is learnt and a new client may be chosen; the authors' code: 1."""


def power_step(updates: Updates, rows: Sequence[int], mean: Tensor, z: Tensor) -> Tensor:
    """Return Σ_i ((Δ_i - μ)·z) (Δ_i - μ), of norm 1; zeros where that has none.

    Parameters
    ----------
    updates, rows
        The round, and the k rows i of honest updates.
    mean
        (P,) float64 μ.
    z
        (P,) float64, the direction so far.
    """
    along = torch.zeros(len(rows), dtype=torch.float64)
    for columns, deltas in known_deltas(updates, rows):
        along += (deltas - mean[columns]) @ z[columns]
    found = torch.zeros_like(mean)
    for columns, deltas in known_deltas(updates, rows):
        found[columns] = along @ (deltas - mean[columns])
    norm = found.norm()
    return found / norm if norm > 0 else found


class Mimic(Untargeted):
    """Copies the honest client that stands out."""

    summary = "Mimic: all attackers copy the benign client that differs most"
    paper = "Karimireddy et al. 2022, arXiv 2006.09365"
    hyperparameters = MimicArgs

    @classmethod
    def collude(cls, args: MimicArgs, updates: Updates, malicious: list[int], seeds: Seeds) -> None:
        """Copy the client of a first round, without anything to remember."""
        _mimic(args, updates, malicious, seeds, {})

    @classmethod
    def conspire(
        cls, updates: Updates, malicious: list[int], collusion: Collusion
    ) -> CollusionMemory:
        """Copy a benign client; remember z, μ, the rounds so far and whom."""
        return _mimic(collusion.args, updates, malicious, collusion.seeds, collusion.memory)


def _mimic(
    args: MimicArgs,
    updates: Updates,
    malicious: list[int],
    seeds: Seeds,
    memory: CollusionMemory,
) -> CollusionMemory:
    """Copy a benign update into all malicious rows, and return what to remember."""
    rows = [row for row in finite_rows(updates) if row not in malicious]
    if not rows:
        return memory
    rounds = int(memory["rounds"]) if memory else 0
    if rounds < args.mimic_warmup:
        memory = _learn(updates, rows, seeds, rounds, memory)
    ids = [int(updates.client_ids[row]) for row in rows]
    wanted = int(memory["client"])
    if wanted in ids:
        chosen = rows[ids.index(wanted)]
    else:
        chosen = rows[_outstanding(updates, rows, memory["z"].double())]
    updates.weights[malicious] = updates.weights[chosen].clone()
    updates.buffers[malicious] = updates.buffers[chosen].clone()
    return memory


def _learn(
    updates: Updates, rows: list[int], seeds: Seeds, rounds: int, memory: CollusionMemory
) -> CollusionMemory:
    """Improve μ and z on one more round, and choose whom to copy."""
    mean = torch.empty(updates.weights.shape[1], dtype=torch.float64)
    for columns, deltas in known_deltas(updates, rows):
        mean[columns] = deltas.mean(0)
    if rounds == 0:
        z = torch.randn(len(mean), generator=seeds.generator("mimic"), dtype=torch.float64)
        step = power_step(updates, rows, mean, z)
        mixed = step if step.any() else z
    else:
        old = 1 - 1 / (1 + rounds)
        mean = old * memory["mean"].double() + (1 - old) * mean
        z = memory["z"].double()
        mixed = old * z + (1 - old) * power_step(updates, rows, mean, z)
        mixed = mixed if mixed.any() else z
    z = mixed / mixed.norm()
    client = updates.client_ids[rows[_outstanding(updates, rows, z)]]
    return {
        "rounds": torch.tensor(rounds + 1),
        "mean": mean.float(),
        "z": z.float(),
        "client": torch.tensor(int(client)),
    }


def _outstanding(updates: Updates, rows: list[int], z: Tensor) -> int:
    """Return the place among k rows of the update with the largest inner product with z (P,)."""
    along = torch.zeros(len(rows), dtype=torch.float64)
    for columns, deltas in known_deltas(updates, rows):
        along += deltas @ z[columns]
    return int(along.argmax())
