"""DeepSight: clusters of models that look alike inside, judged by how concentrated they are.

Rieger et al., "DeepSight: Mitigating Backdoor Attacks in Federated Learning Through Deep Model
Inspection", NDSS 2022, arXiv 2201.00763. A model trained for few classes moves few rows of the
output layer: its number of threshold exceedings TE is low, and at half of the median or below it
is suspicious. Clients are clustered by the cosines of their output biases, by their normalised
update energies (NEUP) and by their division differences (DDif: how the probabilities on random
images changed), and by how often these agree. A cluster is accepted if fewer than a share tau of
it is suspicious; what is accepted is clipped to the median norm of all updates and averaged.

Where we leave the paper, and why:

- a client in no final cluster is judged alone, by its own label (papers and codes disagree);
- in the clusterings that are combined, two clients without a cluster do not count as together;
- all rounds aggregate alike; the paper's last one averages each cluster apart, refused clients
  included, and hands every client the model of its own;
- an update that leaves the output layer alone has even energies: it is concentrated on nothing;
- without an output bias the weights' rows take its place in the cosines;
- half of the median itself is suspicious, as in its algorithm; its text says below.

A clustering, the last one too (ports disagree), has two clusters or none, its library's default. So
fewer than twice `min_cluster_size` clients are judged alone, which a warning says; as many, such as
the ten of `mnist5k`, unless they are split evenly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from entity.config.schema import Count, Fraction, Range
from entity.defenses.norm_clipping import clip_factors
from entity.server.contract import Needs, Server, Setting
from entity.server.density import (
    LEAST_CLUSTERED,
    cosine_distances,
    density_labels,
    euclidean,
    require_clusterable,
    separation,
)
from entity.server.output_layer import normalised_energies, output_layer, threshold_exceedings
from entity.training import logits
from entity.updates import Aggregation, ClientId, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class DeepSightArgs:
    """Settings of DeepSight; defaults are the paper's unless said."""

    num_seeds: Count = 3
    """Sets of random images."""
    num_samples: Count = 20000
    """Random images in a set; every model of a round answers all of them."""
    tau: Fraction = 1 / 3
    """Share of suspicious members from which on a cluster is refused."""
    threshold_factor: Fraction = 0.01
    """Share of the highest energy that exceeds, unless one in the number of classes is more."""
    min_cluster_size: Annotated[int, Range(2)] = 5
    """Smallest cluster (the clustering library's default, as in public ports)."""
    min_samples: Count = 3
    """Neighbours that make a client's surroundings dense (ours; 1 or 5 in public ports)."""
    batch_size: Count = 500
    """Random images in a batch."""


class DeepSight(Server[DeepSightArgs]):
    """Filtering by the inside of the models, then clipping."""

    summary = "DeepSight: clusters by output layer and answers to noise, refused if concentrated"
    paper = "Rieger et al. 2022, arXiv 2201.00763"
    hyperparameters = DeepSightArgs
    revision = 3
    least_clients = LEAST_CLUSTERED

    @classmethod
    def needs(cls, args: DeepSightArgs) -> Needs:
        """Ask for single updates, most of them honest; models are compared on random images."""
        return Needs(images=True, individual_updates=True, honest_majority=True)

    @classmethod
    def check(cls, args: DeepSightArgs, setting: Setting) -> None:
        """Refuse rounds too small to cluster."""
        require_clusterable("deepsight", setting)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average the clipped updates of the accepted clients; without any the model stays."""
        watch = Stopwatch()
        with watch("energies"):
            model = self.resources.module(updates.global_state)
            weights, biases = output_layer(updates, model)
            energies = normalised_energies(weights, biases)
            exceedings = threshold_exceedings(energies, self.args.threshold_factor)
            suspicious = exceedings <= exceedings.quantile(0.5) / 2
        with watch("noise"):
            answers = [self._division_differences(updates, i) for i in range(self.args.num_seeds)]
        with watch("cluster"):
            direction = weights.flatten(1) if biases is None else biases
            labels = self._cluster(direction @ direction.T, energies, answers, updates.client_ids)
        if len(updates) < 2 * self.args.min_cluster_size:
            said = f"with {len(updates)} clients there are no two clusters: all are judged alone"
            self.warn_once("clusters", said)
        accepted, reasons = judge(labels, suspicious.tolist(), self.args.tau)
        shares = self.shares(updates, torch.tensor(accepted))
        bound = float(updates.norms.quantile(0.5))
        factors = clip_factors(updates.norms, bound)
        with watch("average"):
            state = self.average_scaled(updates, shares, factors)
        factors = shares * factors
        return Aggregation(
            *state,
            verdicts(updates, accepted, factors, scores=exceedings.tolist(), reasons=reasons),
            {
                "clip_norm": bound,
                "suspicious": float(suspicious.sum()),
                "clusters": float(max(labels) + 1),
            },
            watch.seconds,
        )

    def _division_differences(self, updates: Updates, number: int) -> Tensor:
        """Return the mean ratios (n, K) of local to global probabilities on one set of noise."""
        resources, spec = self.resources, self.resources.spec
        model = resources.module(updates.global_state)

        def probabilities() -> Iterator[Tensor]:
            for x in self._noise(number):
                yield logits(model, x.to(resources.device)).double().softmax(1).cpu()

        before = list(probabilities())
        rows: list[Tensor] = []
        for row in range(len(updates)):
            spec.load(model, updates.state(row))
            ratios = [
                after / start.clamp_min(1e-12)
                for after, start in zip(probabilities(), before, strict=True)
            ]
            rows.append(torch.cat(ratios).mean(0))
        # A client whose logits overflow must not take the others' distances with it.
        return torch.stack(rows).nan_to_num(0.0)

    def _noise(self, number: int) -> Iterator[Tensor]:
        """Yield batches of random images in [-1, 1], the same ones whenever asked."""
        rng = self.resources.seeds.generator(f"deepsight noise {number}")
        channels, size = self.resources.image
        images, most = self.args.num_samples, self.args.batch_size
        for count in (min(most, images - start) for start in range(0, images, most)):
            yield torch.rand(count, channels, size, size, generator=rng) * 2 - 1

    def _cluster(
        self, gram: Tensor, energies: Tensor, answers: list[Tensor], ids: tuple[ClientId, ...]
    ) -> list[int]:
        size, samples = self.args.min_cluster_size, self.args.min_samples

        def clusters(distances: Tensor) -> list[int]:
            return density_labels(distances, ids, size, samples, allow_single_cluster=False)

        def apart(distances: Tensor) -> Tensor:
            return separation(clusters(distances))

        by_answers = torch.stack([apart(euclidean(part)) for part in answers]).mean(0)
        by_head = apart(cosine_distances(gram)) + apart(euclidean(energies))
        return clusters((by_head + by_answers) / 3)


def judge(
    labels: list[int], suspicious: list[bool], tau: float
) -> tuple[list[bool], dict[int, str]]:
    """Accept clusters with less than a share `tau` of suspicious members, and loners by label.

    Parameters
    ----------
    labels
        The cluster of each of n clients; -1 for those in none.
    suspicious
        Whether each one's output layer is concentrated.
    tau
        Share of suspicious members from which on a cluster is refused.

    Returns
    -------
    tuple
        Whether each row is accepted, and the reasons of those that are not.

    Examples
    --------
    >>> judge([0, 0, 0, 0, -1], [True, False, False, False, True], 1 / 3)
    ([True, True, True, True, False], {4: 'concentrated output layer'})
    """
    accepted: list[bool] = []
    reasons: dict[int, str] = {}
    for row, label in enumerate(labels):
        members = [suspicious[i] for i, own in enumerate(labels) if own == label]
        alone = label < 0
        accepted.append(not suspicious[row] if alone else sum(members) / len(members) < tau)
        if not accepted[-1]:
            reasons[row] = "concentrated output layer" if alone else "in a suspicious cluster"
    return accepted, reasons
