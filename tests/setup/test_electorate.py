"""Clients of the simulator as voters: honest ones on their data, malicious ones as they like."""

import pytest
import torch

from entity.cli import main
from entity.config.schema import ConfigError
from entity.dataset import normalise
from entity.experiment import run
from entity.seeding import Seeds
from entity.setup.assembly import open_server, recruit
from entity.setup.electorate import Voters
from entity.setup.load import load
from entity.updates import Updates

WINDOW = {
    "client.ADR": 0.05,
    "client.attack.participation_strategy": "after_convergence",
    "client.attack.poisoning_start_round": 3,
    "federation.size": 6,
    "federation.round_size": 6,
    "federation.number_of_malicious_clients": 3,
    "server.defense": {"type": "crowdguard"},
}


@pytest.fixture(scope="module")
def voters(experiment):
    def of(**changes):
        return Voters(recruit(experiment(WINDOW | changes), Seeds(1))[1])

    return of


def a_round(voters, number):
    roster, ids = voters.roster, (5, 0, 3, 1, 2, 4)
    state = roster.spec.flatten(roster.new_model())
    rows = [each.repeat(6, 1) for each in state]
    return Updates(number, ids, *rows, roster.num_samples(ids), *state, spec=roster.spec)


def ballots(voters, number, rows=range(6)):
    """Return what they say, and the clients whose data were looked at; honest ones say no."""
    looked = []

    def vote(x, y, own):
        client = updates.client_ids[own]
        part = voters.roster.images.subset(voters.roster.samples(client))
        assert torch.equal(x, normalise(part.x))
        assert torch.equal(y, part.y)
        looked.append(client)
        return torch.zeros(6, dtype=torch.bool)

    updates = a_round(voters, number)
    return voters.ballots(updates, list(rows), vote), looked


@pytest.mark.parametrize("kind", ["accept", "invert", "split", "none"])
def test_they_lie_in_poisoned_rounds_alone(voters, kind):
    crowd = voters(**{"client.attack.false_votes": kind})
    bad = sorted(crowd.roster.malicious)
    early, looked = ballots(crowd, 2)
    assert not early.any()
    assert looked == [5, 0, 3, 1, 2, 4]
    cast, looked = ballots(crowd, 3)
    ids = [5, 0, 3, 1, 2, 4]
    honest = [client for client in ids if client not in bad or kind == "none"]
    assert looked == honest
    said = {client: cast[row].tolist() for row, client in enumerate(ids)}
    assert not any(any(said[client]) for client in honest)
    if kind == "accept":
        assert all(all(said[client]) for client in bad)
    if kind == "invert":
        own = [client in bad for client in ids]
        assert [said[client] for client in bad] == [own] * 3
    if kind == "split":
        assert [said[client] for client in bad] == [[True] * 6, [False] * 6, [True] * 6]
    assert ballots(crowd, 3, [4, 0])[0].tolist() == cast[[4, 0]].tolist()


def test_one_colluder_that_attacks_makes_all_of_them_lie(voters, monkeypatch):
    crowd = voters()
    bad = sorted(crowd.roster.malicious)
    monkeypatch.setattr(type(crowd.roster), "is_harmful", lambda self, id: id == bad[1])
    assert ballots(crowd, 3)[0].all(1).sum() == 3


def test_only_a_defense_that_needs_voters_has_them(experiment):
    for defense, given in (("crowdguard", True), ("droplet", False)):
        config = experiment(WINDOW | {"server.defense": {"type": defense}})
        split, roster = recruit(config, Seeds(1))
        found = open_server(config, split, roster).resources.electorate
        assert (found is not None) == given


def test_lies_are_refused_where_nobody_votes(capsys):
    asked = ["--rounds", "1", "--false_votes", "invert"]
    assert main(["run", "--config", "mnist5k/droplet", *asked]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert 'false_votes = "invert": does nothing without' in said
    assert "one in which clients vote (crowdguard)" in said


def test_what_only_the_simulator_has_is_refused_where_it_is_not(experiment, tmp_path, capsys):
    folder = tmp_path / "app"
    assert main(["deploy", "init", str(folder), "--config", "mnist5k/crowdguard"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "server.defense.type = crowdguard: needs clients that vote on one another's" in said
    assert not folder.exists()
    with pytest.raises(ConfigError, match="streaming = true: crowdguard with these settings"):
        experiment(WINDOW | {"settings.streaming": True})


@pytest.mark.slow
def test_votes_do_not_depend_on_where_clients_train(experiment):
    base = WINDOW | {"federation.rounds": 3, "settings.workers": 2}
    one, other = (run(experiment({**base, "settings.engine": e})) for e in ("inline", "pool"))
    assert torch.equal(one.state.weights, other.state.weights)
    assert [line["scores"] for line in one.rounds] == [line["scores"] for line in other.rounds]


@pytest.mark.slow
def test_as_in_the_paper_honest_clients_of_a_converged_model_find_all_attackers():
    """Twenty clients, nine of them malicious and lying; one round."""
    large = {"size": 20, "round_size": 20, "number_of_malicious_clients": 9, "rounds": 1}
    given = large | {"model": "lenet", "engine": "inline", "num_threads": 1, "samples": 60}
    config = load("mnist5k/crowdguard", initial="mnist5k/converged-1", **given)
    (line,) = run(config).rounds
    assert sorted(line["refused"]) == sorted(line["malicious"])
    assert line["diagnostics"]["agreed"] == 11
