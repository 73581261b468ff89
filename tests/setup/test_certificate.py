import json

import pytest
import torch

from entity.experiment import run
from entity.setup.assembly import assemble
from entity.setup.certificate import certificate, departures, strongest_client
from entity.updates import Aggregation

CRFL = {"type": "crfl", "defense_args": {"certified_images": 40, "certified_votes": 30}}


def world(experiment, **changes):
    return assemble(experiment({"server.defense": CRFL, **changes}))


def test_a_run_keeps_the_certificate_of_its_final_model(experiment, tmp_path):
    config = experiment({"server.defense": CRFL})
    run(config, tmp_path / "run")
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["certificate"]
    assert found["images"] == 40
    assert 0 < len(found["radii"]) <= found["accuracy"] * 40
    assert found["radii"] == sorted(found["radii"], reverse=True)
    assert found["radii"][-1] > 0
    again = run(config)
    assert again.summary["certificate"] == found
    # It says what the smoothed model says of these images, and draws on nothing else.
    without = {"type": "crfl", "defense_args": {"certified_images": 0}}
    plain = run(experiment({"server.defense": without}))
    assert "certificate" not in plain.summary
    assert torch.equal(plain.state.weights, again.state.weights)


def test_a_certified_prediction_counts_only_if_it_is_right(experiment):
    crfl = world(experiment)
    model = crfl.model(crfl.roster.spec.flatten(crfl.roster.new_model()))
    x, y = crfl.judge.sample(40, crfl.roster.seeds.generator("certified images"))
    predicted, radii = crfl.server.certify(model, x, strongest_client(crfl.config, crfl.roster))
    found = certificate(crfl, model)
    assert found["accuracy"] == (predicted == y).double().mean().item()
    assert len(found["radii"]) == int(((predicted == y) & (radii > 0)).sum())


@pytest.mark.parametrize("sound", [True, False])
def test_a_final_model_that_kept_its_noise_says_so(experiment, sound):
    """Where the last round had no sound update, it is the noised model of the one before."""
    crfl = world(experiment)
    state = crfl.roster.spec.flatten(crfl.roster.new_model())
    crfl.server.start, last = 5.0, crfl.config.federation.rounds
    for number in range(1, last + sound):
        crfl.server.complete(Aggregation(*state, ()), number)
    crfl.server.load_state_dict(crfl.server.state_dict())
    found = certificate(crfl, crfl.model(state))
    noise = "the final model has noise of 0.01 (theorem: the last one has none)"
    assert (noise in found["departures"]) is not sound


def test_other_defenses_have_none(experiment):
    other = assemble(experiment({"server.defense": {"type": "median"}}))
    assert certificate(other, other.roster.new_model()) is None


@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_the_attacker_is_the_client_with_most_samples_beside_the_smallest_others(
    experiment, weighting
):
    made = world(
        experiment,
        **{
            "server.weighting": weighting,
            "server.server_lr": 0.5,
            "client.IID": False,
            "client.partition": "quantity",
            "client.dirichlet_alpha": 2.0,
            "client.num_epochs": 3,
        },
    )
    sizes = sorted(made.roster.num_samples((0, 1, 2, 3)).tolist())
    assert sizes[-1] > sizes[0]
    threat = strongest_client(made.config, made.roster)
    share = 1 / 3 if weighting == "uniform" else sizes[3] / (sizes[3] + sizes[0] + sizes[1])
    assert threat.share == pytest.approx(0.5 * share)
    assert threat.steps == 3 * -(-sizes[3] // 32)
    assert (threat.lr, threat.scale, threat.poisoned) == (0.05, 1, 1)


def test_it_says_what_the_theorem_does_not_cover(experiment):
    made = world(experiment)
    momentum, part, attacked = departures(made.config, made.roster)
    assert "momentum 0.9" in momentum
    assert "3 of 4 clients" in part
    assert "2 rounds are attacked" in attacked
    covered = world(
        experiment,
        **{
            "client.momentum": 0.0,
            "client.weight_decay": 0.0,
            "federation.round_size": 4,
            "client.attack.participation_strategy": "after_convergence",
            "client.attack.poisoning_start_round": 1,
            "client.attack.poisoning_end_round": 2,
        },
    )
    assert list(departures(covered.config, covered.roster)) == []
    normalised = world(experiment, model="resnet8")
    assert any("BatchNorm" in words for words in departures(normalised.config, normalised.roster))
