import pytest
import torch
from colluders import looked, normal

from entity.attacks.covered import cover
from entity.experiment import run
from entity.server.visible import visible_update


@pytest.fixture
def pushes():
    """Four updates of a linear model with one push in common, and what is seen of them."""
    spec, of = looked()
    return normal(1, spec.num_parameters, seed=5) + normal(4, spec.num_parameters, seed=6), of


def parts(rows, of):
    seen = torch.stack([visible_update(row, of) for row in rows])
    return seen, rows - seen


def test_nothing_is_left_in_common_out_of_sight_and_in_sight_all_is(pushes):
    rows, of = pushes
    sent = rows.clone()
    cover(sent, of, 0.5, torch.Generator().manual_seed(0))
    (seen, hidden), (seen_before, hidden_before) = parts(sent, of), parts(rows, of)
    assert hidden_before.mean(0).norm() > 0.3 * hidden_before.norm(dim=1).mean()
    assert hidden.mean(0).norm() < 0.02 * hidden.norm(dim=1).mean()
    torch.testing.assert_close(seen, 0.5**0.5 * seen_before, atol=0.05, rtol=0.05)
    share = hidden.square().sum(1) / sent.square().sum(1)
    assert (share > 0.4).all()


def test_without_noise_only_what_they_have_in_common_out_of_sight_is_taken_off(pushes):
    rows, of = pushes
    sent = rows.clone()
    cover(sent, of, 0.0, torch.Generator().manual_seed(0))
    _, hidden = parts(rows, of)
    torch.testing.assert_close(sent, rows - hidden.mean(0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("attackers", [1, 2])
def test_in_a_federation_a_lone_attacker_is_in_sight_and_two_are_covered(experiment, attackers):
    def state(type):
        attack = {"type": type, "poison": "pixel", "DPR": 1.0, "victim_class": 0}
        attack |= {"target_class": 7, "trigger_pattern": [[0, 0]]}
        return run(
            experiment(
                {
                    "client.attack": attack,
                    "federation.number_of_malicious_clients": attackers,
                    "federation.round_size": 4,
                    "federation.rounds": 2,
                }
            )
        ).state.weights

    covered = state("covered")
    assert torch.equal(covered, state("covered"))
    assert torch.equal(covered, state("in_sight")) == (attackers == 1)
