import pytest
import torch
from torch import nn
from updates_by_hand import Crowd

from entity.client.ballots import false_ballot
from entity.config.schema import ConfigError
from entity.defenses.crowdguard import CrowdGuard, CrowdGuardArgs
from entity.layout import ParamSpec
from entity.models import Classifier
from entity.seeding import global_stream
from entity.server.contract import Setting

N, BAD = 20, range(11, 20)


def network() -> Classifier:
    with global_stream(torch.Generator().manual_seed(0)):
        body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU())
        return Classifier(body, nn.Linear(8, 3))


def poisoned_round(make_updates, ids=None):
    """Eleven honest clients, and nine who move together and farther."""
    size = ParamSpec.of(network()).num_parameters
    rng = torch.Generator().manual_seed(1)
    deltas = 0.01 * torch.randn(N, size, generator=rng)
    deltas[list(BAD)] += 0.1 * torch.randn(size, generator=rng)
    order = list(range(N)) if ids is None else ids
    return make_updates(deltas[order], ids=order, model=network())


def guarded(updates, make_resources, crowd=None, **args):
    crowd = crowd or Crowd((1, 4), 3)
    resources = make_resources(network(), classes=3, electorate=crowd)
    return CrowdGuard(CrowdGuardArgs(**args), resources).aggregate(updates), crowd


def accepted(answer):
    return sorted(verdict.client for verdict in answer.verdicts if verdict.accepted)


@pytest.mark.parametrize("kind", ["none", "accept", "invert", "split"])
def test_whom_honest_voters_find_is_left_out_whatever_the_others_say(
    kind, make_updates, make_resources
):
    lies = {row: false_ballot(kind, row, list(BAD), N) for row in BAD if kind != "none"}
    updates = poisoned_round(make_updates)
    answer, _ = guarded(updates, make_resources, Crowd((1, 4), 3, lies))
    assert accepted(answer) == list(range(11))
    torch.testing.assert_close(answer.weights, updates.weights[:11].mean(0))
    assert {verdict.reason for verdict in answer.verdicts} == {"", "voted out by the clients"}
    assert answer.diagnostics["voters"] == N
    assert answer.diagnostics["agreed"] >= 11
    against = 0 if kind in ("none", "accept") else 9 if kind == "invert" else 4
    if kind != "none":  # then poisoned clients vote as their data say
        assert [verdict.score for verdict in answer.verdicts[:11]] == [against / N] * 11


def test_nobody_sees_who_came_first(make_updates, make_resources):
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3)).tolist()
    first, _ = guarded(poisoned_round(make_updates), make_resources)
    second, _ = guarded(poisoned_round(make_updates, order), make_resources)
    assert sorted(first.verdicts, key=lambda v: v.client) == sorted(
        second.verdicts, key=lambda v: v.client
    )


def test_voters_and_samples_are_drawn_by_the_round(make_updates, make_resources):
    updates = poisoned_round(make_updates)
    answer, crowd = guarded(updates, make_resources, voters=5, samples=7)
    assert crowd.asked == sorted(set(crowd.asked))
    assert len(crowd.asked) == answer.diagnostics["voters"] == 5
    again, other = guarded(updates, make_resources, voters=5, samples=7)
    assert other.asked == crowd.asked
    assert again.verdicts == answer.verdicts
    _, everybody = guarded(updates, make_resources, voters=99)
    assert everybody.asked == list(range(N))


def test_it_looks_at_as_many_samples_as_it_is_told(make_updates, make_resources, monkeypatch):
    seen = []

    def counted(model, spec, first, states, x):
        seen.append(len(x))
        return torch.zeros(2, len(states), len(x), 2, dtype=torch.float64)

    monkeypatch.setattr("entity.defenses.crowdguard.layer_distances", counted)
    guarded(poisoned_round(make_updates), make_resources, samples=7)
    guarded(poisoned_round(make_updates), make_resources, samples=99)
    assert seen == [7] * N + [12] * N


def test_a_voter_without_data_accepts_all(make_updates, make_resources):
    class Empty(Crowd):
        def ballot(self, updates, row, vote):
            return vote(torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.long), row)

    answer, _ = guarded(poisoned_round(make_updates), make_resources, Empty((1, 4), 3))
    assert accepted(answer) == list(range(N))


def test_it_asks_for_votes_and_refuses_rounds_without_a_majority():
    needs = CrowdGuard.needs(CrowdGuardArgs())
    assert str(needs) == "individual updates, honest majority, client votes"
    with pytest.raises(ConfigError, match="crowdguard needs at least 4 clients"):
        CrowdGuard.check(CrowdGuardArgs(), Setting(3, 0, (1, 4)))
