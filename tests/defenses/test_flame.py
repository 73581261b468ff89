import pytest
import torch
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses.flame import Flame, FlameArgs, model_gram
from entity.server.contract import Setting


def setting(round_size: int) -> Setting:
    return Setting(round_size, 0, (1, 4))


def run(updates, resources, **args):
    return Flame(FlameArgs(**args), resources).aggregate(updates)


def accepted(answer) -> list:
    return [verdict.client for verdict in answer.verdicts if verdict.accepted]


def test_six_equal_updates_beat_four_opposite_ones(make_updates, make_resources):
    updates = make_updates([[1, 2, 0]] * 4 + [[-1, -2, 0]] * 4 + [[1, 2, 0]] * 2)
    for on in ("updates", "weights"):
        answer = run(updates, make_resources(updates), noise_sigma=0.0, on=on)
        assert accepted(answer) == [0, 1, 2, 3, 8, 9]
        torch.testing.assert_close(
            answer.weights - updates.global_weights, torch.tensor([1.0, 2, 0])
        )
        assert [v.reason for v in answer.verdicts[4:8]] == ["outside the majority cluster"] * 4


def test_equal_norms_without_noise_are_the_mean_of_the_cluster(make_updates, make_resources):
    updates = make_updates([[3, 4, 0], [4, 3, 0], [3, 4, 0], [4, 3, 0], [0, 0, -5]])
    answer = run(updates, make_resources(updates), noise_sigma=0.0, on="updates")
    assert accepted(answer) == [0, 1, 2, 3]
    torch.testing.assert_close(answer.weights, updates.global_weights + torch.tensor([3.5, 3.5, 0]))


def test_updates_are_clipped_and_not_models(make_updates, make_resources):
    """Regression: the original code multiplies whole models by S / norm, towards zero."""
    updates = make_updates([[1, 0], [2, 0], [3, 0], [4, 0]], origin=[100.0, -100.0])
    answer = run(updates, make_resources(updates), noise_sigma=0.0, on="updates")
    # S = 2.5, the mean of the middle two; the mean of 1, 2, 2.5 and 2.5 is 2.
    torch.testing.assert_close(answer.weights, torch.tensor([102.0, -100.0]))
    assert answer.diagnostics["clip_norm"] == 2.5
    assert answer.diagnostics["clipped"] == 2
    assert [v.weight for v in answer.verdicts] == pytest.approx([0.25, 0.25, 2.5 / 12, 2.5 / 16])


def test_the_median_is_over_all_clients_and_not_the_admitted(make_updates, make_resources):
    """Regression: published codes take it over the admitted, or mix up their rows."""
    rows = [[-0.5, 0]] * 4 + [[float(k), 0] for k in range(1, 7)]
    updates = make_updates(rows)
    answer = run(updates, make_resources(updates), noise_sigma=0.0, on="updates")
    assert accepted(answer) == [4, 5, 6, 7, 8, 9]
    assert answer.diagnostics["clip_norm"] == 1.5
    moved = answer.weights - updates.global_weights
    torch.testing.assert_close(moved, torch.tensor([(1 + 5 * 1.5) / 6, 0]))


@pytest.mark.parametrize(("noise_sigma", "norm"), [(0.5, 4.0), (0.1, 0.2)])
def test_the_noise_is_lambda_times_the_median_norm(make_updates, make_resources, noise_sigma, norm):
    """Regression: the original code's standard deviation is the square of this."""
    delta = torch.zeros(4, 100_000)
    delta[:, 0] = norm
    updates = make_updates(delta, origin=[0.0] * 100_000)
    answer = run(updates, make_resources(updates), noise_sigma=noise_sigma, on="updates")
    noise = answer.weights[1:]
    assert noise.std().item() == pytest.approx(noise_sigma * norm, rel=0.02)
    assert abs(noise.mean().item()) < 0.02 * noise_sigma * norm
    again = run(updates, make_resources(updates), noise_sigma=noise_sigma, on="updates")
    assert torch.equal(answer.weights, again.weights)
    other = run(updates, make_resources(updates, seed=1), noise_sigma=noise_sigma, on="updates")
    assert not torch.equal(answer.weights, other.weights)


def test_batchnorm_statistics_are_neither_clustered_nor_noised(make_updates, make_resources):
    """Regression: published codes noise running variances and cluster by them."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    size = sum(parameter.numel() for parameter in model.parameters())
    deltas = torch.randn(6, size, generator=torch.Generator().manual_seed(0))
    calm = make_updates(deltas, model=model)
    wild = calm.buffers.clone()
    wild[0, :3] = 1e6
    upset = make_updates(deltas, model=model, buffers=wild)
    answers = [run(u, make_resources(model), noise_sigma=10.0) for u in (calm, upset)]
    assert accepted(answers[0]) == accepted(answers[1])
    assert torch.equal(answers[0].weights, answers[1].weights)
    assert torch.equal(answers[0].buffers, calm.global_buffers)


def test_cosines_of_models_and_of_updates_are_different_rules(make_updates, make_resources):
    rows = [[0, 1.0], [0, 1.1], [0, 0.9], [0, -1.0], [0, 30.0]]
    updates = make_updates(rows, origin=[10.0, 0.0])
    weights, deltas = (
        run(updates, make_resources(updates), noise_sigma=0.0, on=on)
        for on in ("weights", "updates")
    )
    assert accepted(weights) == [0, 1, 2]
    assert accepted(deltas) == [0, 1, 2, 4]


def test_the_gram_matrix_of_the_models_is_exact(make_updates):
    updates = make_updates(torch.randn(5, 70_000, generator=torch.Generator().manual_seed(1)))
    rows = updates.weights.double()
    torch.testing.assert_close(model_gram(updates), rows @ rows.T)


def test_small_rounds_are_refused_with_the_mend():
    with pytest.raises(ConfigError, match=r"flame needs at least 4 clients .* raise it"):
        Flame.check(FlameArgs(), setting(3))
    Flame.check(FlameArgs(), setting(4))
