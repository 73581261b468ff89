import numpy as np
import pytest
import torch
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses.flare import Flare, FlareArgs, median_distance, mmd, penultimate, votes
from entity.models import Classifier
from entity.server.contract import CleanData, Setting


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def naive_mmd(x: np.ndarray, y: np.ndarray, width: float) -> float:
    def k(a, b):
        return np.exp(-np.sum((a - b) ** 2) / (2 * width**2))

    m = len(x)
    within = sum(k(z[i], z[j]) for z in (x, y) for i in range(m) for j in range(m) if i != j) / (
        m * (m - 1)
    )
    return within - 2 * np.mean([k(a, b) for a in x for b in y])


@pytest.fixture(scope="module")
def model() -> Classifier:
    head = nn.Linear(16, 2)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(9)))
    return Classifier(nn.Sequential(nn.Flatten(), Scale(16)), head)


class Scale(nn.Module):
    """Features whose every entry the clients may scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


@pytest.fixture(scope="module")
def clean() -> CleanData:
    x = torch.rand(40, 1, 4, 4, generator=generator(7)) * 2 - 1
    return CleanData(x, torch.zeros(40, dtype=torch.long))


def groups(*scales: float) -> torch.Tensor:
    """A client for each scale, which its features are multiplied by."""
    deltas = torch.zeros(len(scales), 16 + 34)
    deltas[:, :16] = torch.tensor(scales)[:, None] - 1
    return deltas


def server(make_resources, model, clean, **args):
    settings = {"num_seed": 20, "batch_size": 8} | args
    return Flare(FlareArgs(**settings), make_resources(model, clean=clean))


def test_the_discrepancies_are_those_of_the_definition():
    latent = torch.randn(3, 6, 4, generator=generator()).double()
    latent[2] += 1
    found = mmd(latent, 1.7)
    for i in range(3):
        assert found[i, i] == 0
        for j in range(3):
            if i != j:
                expected = naive_mmd(latent[i].numpy(), latent[j].numpy(), 1.7)
                assert found[i, j].item() == pytest.approx(expected)


def test_the_discrepancy_of_equal_distributions_is_zero_on_average():
    """Regression: a port keeps the diagonals and divides by m (m - 1): an offset of 2 / m."""
    values = [
        mmd(torch.randn(2, 10, 3, generator=generator(seed)).double(), 2.0)[0, 1]
        for seed in range(200)
    ]
    assert abs(torch.stack(values).mean().item()) < 0.01
    assert min(values) < 0


def test_the_median_width_tells_wide_layers_apart_where_one_does_not():
    """Regression: at width 1 the kernel of 512 activations is zero, and all distances tie."""
    latent = torch.randn(4, 20, 512, generator=generator(1)).double()
    latent[3] += 1
    width = median_distance(latent)
    assert 30 < width < 40
    found = mmd(latent, width)
    assert found[0, 3] > 10 * found[0, 1].abs()
    assert mmd(latent, 1.0).abs().max() < 1e-100


def test_the_median_of_equal_activations_is_one():
    assert median_distance(torch.ones(3, 5, 2).double()) == 1


def test_the_votes_go_to_the_nearest_half_and_not_to_oneself():
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0], [20.0]])
    # In turn: {1, 2}, {0, 2}, {1, 0}, {2, 1}, {3, 2}.
    assert votes(torch.cdist(points, points)).tolist() == [2, 3, 4, 1, 0]


@pytest.mark.parametrize(("n", "total"), [(1, 0), (2, 2), (3, 3), (4, 8), (7, 21)])
def test_everybody_gives_half_as_many_votes_as_there_are_clients(n, total):
    distances = torch.rand(n, n, generator=generator(n))
    assert votes(distances + distances.T).sum().item() == pytest.approx(total)
    assert votes(torch.zeros(n, n)).tolist() == pytest.approx([total / n] * n)


def test_activations_are_what_enters_the_head(model, clean):
    found = penultimate(model, clean.x, 7)
    torch.testing.assert_close(found, clean.x.flatten(1).double())
    assert not model.head._forward_pre_hooks


def test_activations_that_overflow_stay_numbers(model, clean):
    broken = Classifier(nn.Sequential(nn.Flatten(), Scale(16)), model.head)
    with torch.no_grad():
        broken.features[1].factor.fill_(torch.inf)
    found = penultimate(broken, clean.x * 0, 40)
    assert found.isfinite().all()


def test_the_majority_is_trusted_equally_and_more(make_updates, make_resources, model, clean):
    updates = make_updates(groups(*[1.0] * 6, *[9.0] * 4), model=model)
    flare = server(make_resources, model, clean)
    answer = flare.aggregate(updates)
    weights = [verdict.weight for verdict in answer.verdicts]
    # Six give each other 5 votes; four give 3 to each other and share 2 among the six.
    assert [v.score for v in answer.verdicts] == pytest.approx([5 + 8 / 6] * 6 + [3] * 4)
    odds = np.exp([5 + 8 / 6] * 6 + [3] * 4)
    refused = odds < 0.5 * (odds**2).sum() / odds.sum()
    assert refused.tolist() == [False] * 6 + [True] * 4
    assert weights == pytest.approx([1 / 6] * 6 + [0] * 4)
    assert [verdict.accepted for verdict in answer.verdicts] == [True] * 6 + [False] * 4
    assert answer.verdicts[9].reason == "trust below half of an even share"
    expected = (updates.weights * torch.tensor(weights)[:, None]).sum(0)
    torch.testing.assert_close(answer.weights, expected)
    assert answer.diagnostics["effective_clients"] == pytest.approx(6)


def test_a_high_temperature_is_the_plain_mean(make_updates, make_resources, model, clean):
    updates = make_updates(groups(1, 1.1, 1.2, 5, 9), model=model)
    cold, hot = (
        server(make_resources, model, clean, temperature=t).aggregate(updates) for t in (0.1, 1e9)
    )
    assert [v.weight for v in hot.verdicts] == pytest.approx([0.2] * 5)
    assert all(verdict.accepted for verdict in hot.verdicts)
    torch.testing.assert_close(hot.weights, updates.weights.mean(0))
    assert cold.diagnostics["effective_clients"] < 3


def test_the_order_of_the_clients_does_not_matter(make_updates, make_resources, model, clean):
    deltas = groups(1, 1, 1.3, 1.3, 2, 6)
    order = [3, 5, 1, 0, 4, 2]
    flare = server(make_resources, model, clean)
    first = flare.aggregate(make_updates(deltas, model=model))
    second = flare.aggregate(make_updates(deltas[order], ids=order, model=model))
    moved = {verdict.client: verdict.weight for verdict in second.verdicts}
    assert [v.weight for v in first.verdicts] == pytest.approx([moved[i] for i in range(6)])


def test_one_client_and_an_overflowing_one(make_updates, make_resources, model, clean):
    flare = server(make_resources, model, clean)
    alone = flare.aggregate(make_updates(groups(2.0), model=model))
    assert [verdict.weight for verdict in alone.verdicts] == [1]
    answer = flare.aggregate(make_updates(groups(1, 1.1, 1.2, 1e38), model=model))
    assert answer.weights.isfinite().all()
    assert not answer.verdicts[3].accepted
    assert answer.verdicts[3].weight < 0.1


def test_impossible_settings_are_refused_with_the_mend():
    with pytest.raises(ConfigError, match="flare needs at least 3 clients"):
        Flare.check(FlareArgs(), Setting(2, 500, (1, 4)))
    with pytest.raises(ConfigError, match=r"num_seed = 100: .* 99 clean .* raise server.held_out"):
        Flare.check(FlareArgs(), Setting(3, 99, (1, 4)))
    assert Flare.needs(FlareArgs()).clean_data
    assert not Flare.needs(FlareArgs()).clean_labels
