"""What every defense that looks inside or clusters must keep to, whatever it decides."""

from dataclasses import replace
from math import isnan

import pytest
import torch
from torch import nn

from entity.defenses.alignins import AlignIns, AlignInsArgs
from entity.defenses.backdoor_indicator import BackdoorIndicator, BackdoorIndicatorArgs
from entity.defenses.centered_clipping import CenteredClipping, CenteredClippingArgs
from entity.defenses.crfl import Crfl, CrflArgs
from entity.defenses.crowdguard import CrowdGuard, CrowdGuardArgs
from entity.defenses.deepsight import DeepSight, DeepSightArgs
from entity.defenses.dnc import Dnc, DncArgs
from entity.defenses.finetuning import Finetuning, FinetuningArgs
from entity.defenses.flame import Flame, FlameArgs
from entity.defenses.flare import Flare, FlareArgs
from entity.defenses.freqfed import FreqFed, FreqFedArgs
from entity.defenses.multi_metrics import MultiMetrics, MultiMetricsArgs
from entity.defenses.random_aggregation import RandomAggregation, RandomAggregationArgs
from entity.defenses.rflbat import Rflbat, RflbatArgs
from entity.defenses.signguard import SignGuard, SignGuardArgs
from entity.defenses.snowball import Snowball, SnowballArgs
from entity.models import Classifier
from entity.seeding import global_stream
from entity.server.contract import CleanData, Server

DEFENSES = {
    "flame": (Flame, FlameArgs()),
    "flame on updates": (Flame, FlameArgs(on="updates")),
    "flare": (Flare, FlareArgs(num_seed=8)),
    "deepsight": (DeepSight, DeepSightArgs(num_samples=8, min_cluster_size=2)),
    "rflbat": (Rflbat, RflbatArgs()),
    "multi_metrics": (MultiMetrics, MultiMetricsArgs()),
    "alignins": (AlignIns, AlignInsArgs()),
    "dnc": (Dnc, DncArgs()),
    "signguard": (SignGuard, SignGuardArgs()),
    "signguard with cosines": (SignGuard, SignGuardArgs(feature="cosine")),
    "centered_clipping": (CenteredClipping, CenteredClippingArgs()),
    "centered_clipping with momenta": (CenteredClipping, CenteredClippingArgs(momentum=0.9)),
    "backdoor_indicator": (
        BackdoorIndicator,
        BackdoorIndicatorArgs(num_indicator=6, epochs=1, batch_size=3),
    ),
    "snowball": (
        Snowball,
        SnowballArgs(
            top_down_from=1, vae_hidden=8, vae_latent=2, vae_initial=2, vae_tuning=1, v_step=0.5
        ),
    ),
    "crowdguard": (CrowdGuard, CrowdGuardArgs(voters=4, samples=6)),
    "freqfed": (FreqFed, FreqFedArgs()),
    "crfl": (Crfl, CrflArgs()),
    "finetuning": (Finetuning, FinetuningArgs(epochs=1)),
    "random_aggregation": (RandomAggregation, RandomAggregationArgs()),
    "random_aggregation by layer": (RandomAggregation, RandomAggregationArgs(granularity="layer")),
}
NOISY = {"flame", "flame on updates", "crfl", "finetuning", "backdoor_indicator"}
"""Those that change an aggregate of identical models."""


@pytest.fixture(scope="module")
def model() -> Classifier:
    features = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5), nn.ReLU())
    with global_stream(torch.Generator().manual_seed(0)):
        return Classifier(features, nn.Linear(5, 3))


@pytest.fixture(params=DEFENSES)
def name(request) -> str:
    return request.param


@pytest.fixture
def server(name, make_resources, model) -> Server:
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    kind, args = DEFENSES[name]
    clean = CleanData(x, torch.arange(8) % 3)
    return kind(args, make_resources(model, clean=clean, classes=3))


def rows(n: int, model: nn.Module, seed: int = 2) -> torch.Tensor:
    size = sum(parameter.numel() for parameter in model.parameters())
    return 0.1 * torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


def statistics(n: int) -> torch.Tensor:
    """Buffers of n clients: means, variances and the counter of the one BatchNorm layer."""
    table = torch.rand(n, 11, generator=torch.Generator().manual_seed(3))
    table[:, 10] = torch.arange(n) + 5.0
    return table


def sane(answer, updates) -> None:
    assert answer.weights.shape == updates.global_weights.shape
    assert answer.weights.isfinite().all()
    assert answer.buffers.isfinite().all()
    assert (answer.buffers[5:10] >= 0).all()
    assert [verdict.client for verdict in answer.verdicts] == list(updates.client_ids)
    for verdict in answer.verdicts:
        assert verdict.accepted == (not verdict.reason)
        assert verdict.score is None or not isnan(verdict.score)
    shares = [verdict.weight for verdict in answer.verdicts]
    assert all(map(isnan, shares)) or 0 <= sum(shares) <= 1 + 1e-6


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_small_rounds_are_answered(name, server, make_updates, model, n):
    updates = make_updates(rows(n, model), model=model, buffers=statistics(n))
    sane(server.aggregate(updates), updates)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_clients_that_changed_nothing_are_answered(name, server, make_updates, model, n):
    updates = make_updates(0 * rows(n, model), model=model)
    answer = server.aggregate(updates)
    sane(answer, updates)
    if name not in NOISY:
        assert torch.equal(answer.weights, updates.global_weights)
        assert torch.equal(answer.buffers, updates.global_buffers)


def test_one_idle_client_among_others_is_answered(name, server, make_updates, model):
    deltas = rows(7, model)
    deltas[3] = 0
    updates = make_updates(deltas, model=model)
    sane(server.aggregate(updates), updates)


@pytest.mark.parametrize("n", [2, 5, 10])
def test_identical_models_are_their_own_aggregate(name, server, make_updates, model, n):
    updates = make_updates(
        rows(1, model).repeat(n, 1), model=model, buffers=statistics(1).repeat(n, 1)
    )
    answer = server.aggregate(updates)
    sane(answer, updates)
    if name not in NOISY:
        assert torch.equal(answer.weights, updates.weights[0])
        assert torch.equal(answer.buffers, updates.buffers[0])


@pytest.mark.parametrize("scale", [1e15, 1e37])
def test_an_enormous_client_leaves_numbers(name, server, make_updates, model, scale):
    deltas = rows(8, model)
    deltas[2] *= scale
    updates = make_updates(deltas, model=model)
    sane(server.aggregate(updates), updates)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_the_order_of_the_clients_does_not_matter(name, server, make_updates, model, seed):
    deltas = rows(9, model, seed)
    deltas[6:] = -1.5 * deltas[:1] + 0.01 * deltas[6:]
    deltas[4] = deltas[1]  # a tie
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed)).tolist()
    buffers = statistics(9)
    before = server.state_dict()
    first = server.aggregate(make_updates(deltas, model=model, buffers=buffers))
    server.load_state_dict(before)
    moved = make_updates(deltas[order], ids=order, model=model, buffers=buffers[order])
    second = server.aggregate(moved)
    decided = {verdict.client: verdict for verdict in second.verdicts}
    for verdict in first.verdicts:
        other = decided[verdict.client]
        assert verdict.accepted == other.accepted
        assert verdict.reason == other.reason
        assert verdict.weight == pytest.approx(other.weight, nan_ok=True)
        assert (verdict.score is None) == (other.score is None)
        assert verdict.score is None or verdict.score == pytest.approx(other.score, abs=1e-9)
    torch.testing.assert_close(first.weights, second.weights, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.buffers, second.buffers, rtol=1e-4, atol=1e-5)


def test_the_answer_survives_the_reuse_of_the_matrix(name, server, make_updates, model):
    updates = make_updates(rows(6, model), model=model, buffers=statistics(6))
    answer = server.aggregate(updates)
    weights, buffers = answer.weights.clone(), answer.buffers.clone()
    updates.weights.fill_(99)
    updates.buffers.fill_(99)
    assert torch.equal(answer.weights, weights)
    assert torch.equal(answer.buffers, buffers)


def test_the_global_stream_is_left_alone(name, server, make_updates, model):
    state = torch.random.get_rng_state()
    server.aggregate(make_updates(rows(5, model), model=model))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_counter_is_the_highest_and_never_a_mean(name, server, make_updates, model):
    updates = make_updates(rows(6, model), model=model, buffers=statistics(6))
    by_mean = replace(server.resources.averaging, bn_policy="weighted")
    server.resources = replace(server.resources, averaging=by_mean)
    answer = server.aggregate(updates)
    accepted = [row for row, verdict in enumerate(answer.verdicts) if verdict.accepted]
    trained = 1 if name == "finetuning" else 0
    counter = answer.buffers[10].item() - trained
    if name != "flare":  # which gives everybody a weight
        assert counter == max((updates.buffers[row, 10].item() for row in accepted), default=0)
    assert counter == int(counter)


def test_it_says_what_it_is(name, server):
    assert len(server.summary) <= 90
    assert server.paper
    assert server.hyperparameters is type(server.args)
    assert str(server.needs(server.args))
