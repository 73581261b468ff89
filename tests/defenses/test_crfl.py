import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from entity.defenses.crfl import Crfl, CrflArgs, clip_to_norm
from entity.experiment import run as run_experiment
from entity.server import OptimiserArgs, admit
from entity.server.certificate import Threat, smoothed_votes, vote_bounds


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(updates, resources, **args):
    return Crfl(CrflArgs(**args), resources).aggregate(updates)


def test_the_clipped_mean_by_hand(make_updates, make_resources):
    updates = make_updates([[6, 8], [0, 0]], origin=[0.0, 0.0])
    answer = run(updates, make_resources(updates), rho_start=0.9, rho_growth=0.1, sigma=0.0)
    torch.testing.assert_close(answer.weights, torch.tensor([0.6, 0.8]))
    assert answer.diagnostics == {"model_norm": 5, "rho": 1, "noise_std": 0}
    assert [verdict.weight for verdict in answer.verdicts] == [0.5, 0.5]
    large = run(updates, make_resources(updates), rho_start=5.0, sigma=0.0)
    assert large.weights.tolist() == [3, 4]


@pytest.mark.parametrize("optimiser", [None, "fedavgm"])
def test_a_last_model_that_was_not_finite_leaves_the_noise_of_the_one_before(
    optimiser, make_updates, make_resources
):
    first = make_updates([[1.0, 0.0], [0.0, 1.0]], origin=[0.0, 0.0])
    huge = make_updates([[3e38, 0.0], [3e38, 0.0]], origin=[0.0, 0.0], round=2)
    changes = {} if optimiser is None else {"optimiser": OptimiserArgs(optimiser)}
    server = Crfl(CrflArgs(), make_resources(first, rounds=2, server_lr=2.0, **changes))
    admit(server, first)
    assert admit(server, huge).diagnostics["kept_global"] == 1
    assert server.noise == 0.01
    (said,) = server.departures
    assert "noise of 0.01" in said
    admit(server, make_updates([[1.0, 0.0], [0.0, 1.0]], origin=[0.0, 0.0], round=2))
    assert server.departures == ()


@given(size=st.floats(1e-3, 1e6), bound=st.floats(1e-3, 1e3))
def test_the_norm_never_exceeds_the_bound(size, bound):
    weights = torch.randn(50, generator=generator())
    clipped = clip_to_norm(size * weights, bound)
    assert clipped.norm() <= bound * (1 + 1e-5)
    assert torch.nn.functional.cosine_similarity(clipped, weights, 0) > 0.999


def test_rho_grows_to_its_maximum(make_updates, make_resources):
    updates = make_updates([[1.0]])
    server = Crfl(CrflArgs(rho_start=2.0, rho_growth=0.1, rho_max=3.0), make_resources(updates))
    assert [server.bound(t) for t in (1, 5, 10, 99)] == pytest.approx([2.1, 2.5, 3, 3])


def test_auto_starts_from_the_first_model_and_survives_a_resume(make_updates, make_resources):
    first = make_updates([[1.0, 0]], origin=[3.0, 4.0])
    later = make_updates([[1.0, 0]], origin=[300.0, 400.0], round=2)
    server = Crfl(CrflArgs(rho_growth=0.0, sigma=0.0), make_resources(first))
    server.aggregate(first)
    other = Crfl(CrflArgs(rho_growth=0.0, sigma=0.0), make_resources(first))
    other.load_state_dict(server.state_dict())
    for resumed in (server, other):
        assert resumed.aggregate(later).weights.norm().item() == pytest.approx(7.5)


def test_the_noise_is_on_parameters_alone_and_not_in_the_final_round(make_updates, make_resources):
    """Regression: the published code adds it to the whole state, running variances included."""
    size = 50_000
    updates = make_updates(
        torch.zeros(2, size), buffers=[[1.0, 2.0]] * 2, global_buffers=[1.0, 2.0], round=7
    )
    args = {"sigma": 0.01, "rho_start": 1e9}
    noisy = run(updates, make_resources(updates), **args)
    noise = noisy.weights - updates.global_weights
    assert noise.std().item() == pytest.approx(0.01, rel=0.02)
    assert noisy.buffers.tolist() == [1, 2]
    assert torch.equal(noisy.weights, run(updates, make_resources(updates), **args).weights)
    released = run(updates, make_resources(updates), final_round=7, **args)
    assert torch.equal(released.weights, updates.global_weights)
    last, earlier = (run(updates, make_resources(updates, rounds=n), **args) for n in (7, 8))
    assert torch.equal(last.weights, updates.global_weights)
    assert torch.equal(earlier.weights, noisy.weights)


def test_an_experiment_releases_a_clipped_model_without_noise(experiment, tmp_path):
    # Every parameter gets noise of 0.1, which alone is longer than 1: a clipped model is not.
    crfl = {"type": "crfl", "defense_args": {"rho_start": 1.0, "rho_growth": 0.0, "sigma": 0.1}}
    config = experiment({"server.defense": crfl, "federation.rounds": 2, "client.ADR": 0.02})
    result = run_experiment(config, tmp_path / "run")
    assert [line["diagnostics"]["noise_std"] for line in result.rounds] == [0.1, 0]
    final = load_file(tmp_path / "run" / "model.safetensors")
    assert sum(float(tensor.square().sum()) for tensor in final.values()) == pytest.approx(1)


def test_predictions_are_the_votes_and_radii_those_of_their_bounds(make_resources):
    with torch.no_grad():
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(2)))
    x = torch.randn(30, 1, 4, 4, generator=generator(3))
    resources = make_resources(model, classes=3)
    threat = Threat(share=0.1, scale=2.0, steps=4, lr=0.05, poisoned=0.5)
    server = Crfl(CrflArgs(sigma=0.3, certified_votes=50), resources)
    predicted, radii = server.certify(model, x, threat)
    rng = resources.seeds.generator("crfl votes")
    votes = smoothed_votes(model, x, 3, 0.3, 50, rng)
    assert torch.equal(predicted, votes.argmax(1))
    lower, upper = vote_bounds(votes)
    gap = (lower.sqrt() - upper.sqrt()) ** 2
    # By the formula, for one attacker: sqrt(-ln(1 - gap) / 2) sigma / (p gamma tau eta q / n).
    expected = (-(1 - gap).log() / 2).sqrt() * 0.3 / (0.1 * 2 * 4 * 0.05 * 0.5)
    certified = lower > upper
    torch.testing.assert_close(radii[certified], expected[certified])
    assert (radii[~certified] == 0).all()
    assert 0 < int(certified.sum()) < 30


def test_without_noise_nothing_is_certified(make_updates, make_resources):
    resources = make_resources(make_updates([[1.0]]))
    assert Crfl(CrflArgs(), resources).certified_images == 100
    assert Crfl(CrflArgs(sigma=0.0), resources).certified_images == 0
    assert Crfl(CrflArgs(certified_images=0), resources).certified_images == 0
