"""CrowdGuard: the clients themselves look into one another's models, and vote.

Rieger et al., "CrowdGuard: Federated Backdoor Detection in Federated Learning", NDSS 2024, arXiv
2210.07714. Every client of a round is sent all models and runs its own data through them. How far
each layer's output is from the global model's, over how far that of its own model is, makes a
metric (`server.hlbim`); tests of significance on its first principal component find poisoned
models, which are left out group by group. The clients send their findings as votes; the server
takes the most frequent ballot of the larger of two clusters (`server.stacked_votes`), so that
malicious clients may say what they like (`client.attack.false_votes`), and averages who is left.

The defense brings the voters' side and gets ballots; neither data nor who lies comes to the server.
In the paper voting happens in trusted enclaves, so that nobody learns from the models that it votes
on; there are none here.

Where we leave the paper or the authors' code, which differ, and why:

- ratios are squared and then averaged over the samples of a label, as in the paper; the code
  averages first;
- the columns of the metric are standardised before the principal component, and the models' median
  is a further point of it, as in the code, and as the paper's figures show;
- the smaller group is left out, as in the paper; in the code the one without that median;
- where more than half would be left out, those nearest to the median stay, as in the paper; the
  code keeps the farthest of them, and then drops the whole group's removal;
- whiskers of the box plot are as long as the code's, on which the paper is silent;
- layers are all with a weight matrix of their own, of any model; a layer in which the voter's own
  model does not differ from the global one tells it nothing, where the code takes it for a ratio
  of 0;
- equal groups, clusters and ballots are decided by what is in them, and the sign of the principal
  component is fixed: nothing depends on the order in which clients came.

Tests on a few points are seldom significant. In the paper's setting (20 clients, nine of them
malicious, a trained model) all attackers are found and nobody else; of the ten clients of
`mnist5k`, four of them malicious, hardly anybody is, and the backdoor gets in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entity.config.schema import Count, Positive
from entity.server.contract import Needs, Server, Setting
from entity.server.density import LEAST_CLUSTERED, require_clusterable
from entity.server.hlbim import hlbim, suspects
from entity.server.layer_outputs import layer_distances
from entity.server.stacked_votes import decide_by
from entity.updates import Aggregation, Stopwatch, Updates, rows_by_id, verdicts


@dataclass(frozen=True)
class CrowdGuardArgs:
    """Settings of CrowdGuard."""

    p: Positive = 0.01
    """Level below which a test says that there are poisoned models."""
    whisker: Positive = 5.5
    """Reach of the box plot's whiskers, in interquartile ranges; the authors' code."""
    voters: Count | None = None
    """Clients of a round that vote, drawn anew in each; null asks all, which alone makes sure that
    most of them are honest where most clients are."""
    samples: Count | None = None
    """Samples of a voter's data that it looks at, drawn anew in each round; null takes all."""


class CrowdGuard(Server[CrowdGuardArgs]):
    """The mean of the models that the clients' votes leave."""

    summary = "CrowdGuard: clients vote on each other's models by their hidden layers' outputs"
    paper = "Rieger et al. 2024, arXiv 2210.07714"
    hyperparameters = CrowdGuardArgs
    least_clients = LEAST_CLUSTERED

    @classmethod
    def needs(cls, args: CrowdGuardArgs) -> Needs:
        """Ask for votes, for single updates to send to the voters, and an honest majority."""
        return Needs(client_votes=True, individual_updates=True, honest_majority=True)

    @classmethod
    def check(cls, args: CrowdGuardArgs, setting: Setting) -> None:
        """Refuse rounds in which nobody can stand out."""
        require_clusterable("crowdguard", setting)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Let the clients vote, and average who is left."""
        watch, electorate = Stopwatch(), self.resources.electorate
        assert electorate is not None, "needs() asks for votes"
        order = rows_by_id(updates.client_ids)
        voters = self._voters(order, updates.round)
        with watch("vote"):
            ballots = electorate.ballots(
                updates, voters, lambda x, y, own: self._vote(updates, order, x, y, own)
            ).cpu()
        decision = decide_by(ballots.numpy())
        accepted = torch.from_numpy(decision.benign.copy())
        shares = self.shares(updates, accepted)
        with watch("average"):
            state = self.average(updates, shares)
        against = (~ballots).double().mean(0)
        judged = verdicts(
            updates,
            accepted.tolist(),
            shares,
            scores=against.tolist(),
            reasons=dict.fromkeys(range(len(updates)), "voted out by the clients"),
        )
        numbers = {
            "voters": float(len(voters)),
            "majority": float(decision.majority),
            "agreed": float(decision.agreed),
        }
        return Aggregation(*state, judged, numbers, watch.seconds)

    def _voters(self, order: Sequence[int], number: int) -> list[int]:
        """Return the rows of those who vote, by id."""
        if self.args.voters is None or self.args.voters >= len(order):
            return list(order)
        rng = self.resources.seeds.generator("crowdguard voters", round=number)
        drawn = torch.randperm(len(order), generator=rng)[: self.args.voters]
        return [order[place] for place in sorted(drawn.tolist())]

    def _vote(self, updates: Updates, order: list[int], x: Tensor, y: Tensor, own: int) -> Tensor:
        """Return what an honest client says: (n,) bool, true for benign.

        Parameters
        ----------
        updates
            The round.
        order
            Its rows by client id, in which all is computed.
        x, y
            The client's samples (S, ...) and labels (S,).
        own
            Its row.
        """
        resources, benign = self.resources, torch.ones(len(updates), dtype=torch.bool)
        if self.args.samples is not None:
            client = updates.client_ids[own]
            rng = resources.seeds.generator(
                "crowdguard samples", round=updates.round, client=client
            )
            rows = torch.randperm(len(y), generator=rng)[: self.args.samples]
            x, y = x[rows], y[rows]
        if len(y) == 0:
            return benign
        model = resources.module(updates.global_state)
        states = [updates.state(row) for row in order]
        found = layer_distances(model, resources.spec, updates.global_state, states, x)
        for kind in found.numpy():
            metric = hlbim(kind, order.index(own), y.tolist())
            poisoned = suspects(metric, order.index(own), self.args.p, self.args.whisker)
            benign[[order[place] for place in poisoned]] = False
        return benign
