import pytest
import torch
from torch import nn
from torch.nn import functional as F

from entity.config.schema import ConfigError
from entity.defenses.finetuning import Finetuning, FinetuningArgs
from entity.defenses.undefended import Undefended, UndefendedArgs
from entity.server import OptimiserArgs, admit
from entity.server.contract import CleanData, Setting


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator(1)))
    return net


@pytest.fixture(scope="module")
def clean() -> CleanData:
    x = torch.rand(60, 1, 4, 4, generator=generator(2)) * 2 - 1
    return CleanData(x, (x.flatten(1)[:, 0] > 0).long())


@pytest.fixture
def updates(make_updates, model):
    size = sum(parameter.numel() for parameter in model.parameters())
    return make_updates(0.1 * torch.randn(4, size, generator=generator(3)), model=model)


def run(updates, resources, **args):
    return Finetuning(FinetuningArgs(**args), resources).aggregate(updates)


def loss(resources, state, clean) -> float:
    with torch.no_grad():
        return F.cross_entropy(resources.module(state).eval()(clean.x), clean.y).item()


@pytest.mark.parametrize("args", [{"epochs": 0}, {"every": 2}, {"every": 0, "final_round": 9}])
def test_without_an_epoch_or_before_its_round_it_is_fedavg(
    updates, make_resources, model, clean, args
):
    resources = make_resources(model, clean=clean)
    answer = run(updates, resources, **args)
    plain = Undefended(UndefendedArgs(), resources).aggregate(updates)
    assert torch.equal(answer.weights, plain.weights)
    assert torch.equal(answer.buffers, plain.buffers)
    assert answer.verdicts == plain.verdicts


@pytest.mark.parametrize(
    ("every", "final", "rounds"),
    [(1, None, [1, 2, 3, 4, 5, 6]), (3, None, [3, 6]), (0, 5, [5]), (3, 4, [3, 4, 6])],
)
def test_it_tunes_in_the_rounds_that_are_asked_for(
    make_updates, make_resources, model, clean, every, final, rounds
):
    size = sum(parameter.numel() for parameter in model.parameters())
    tuned = []
    for number in range(1, 7):
        updates = make_updates(torch.zeros(1, size), model=model, round=number)
        answer = run(
            updates, make_resources(model, clean=clean), every=every, final_round=final, epochs=1
        )
        changed = not torch.equal(answer.weights, updates.global_weights)
        assert changed == bool(answer.diagnostics["finetuned"])
        tuned += [number] if changed else []
    assert tuned == rounds


def test_it_starts_from_the_aggregate_and_learns_the_clean_data(
    updates, make_resources, model, clean
):
    """Regression: the original's fine-tuning option trains weights that are then thrown away."""
    resources = make_resources(model, clean=clean)
    plain = Undefended(UndefendedArgs(), resources).aggregate(updates)
    answer = run(updates, resources, lr=0.05, epochs=10)
    assert loss(resources, answer.state, clean) < 0.7 * loss(resources, plain.state, clean)
    crawl = run(updates, resources, lr=1e-8, epochs=1)
    torch.testing.assert_close(crawl.weights, plain.weights)
    counter = resources.spec.counters
    assert answer.buffers[counter].item() == 10  # one batch of 60 in each of ten epochs


@pytest.mark.parametrize("optimiser", ["fedavgm", "fedadam"])
def test_under_an_optimiser_the_stepped_model_is_tuned(
    updates, make_resources, model, clean, optimiser
):
    given = {"server_lr": 0.01, "optimiser": OptimiserArgs(optimiser)}
    resources = make_resources(model, clean=clean, **given)
    stepped = admit(Undefended(UndefendedArgs(), resources), updates).state
    tuned = admit(Finetuning(FinetuningArgs(), resources), updates)
    assert tuned.diagnostics["finetuned"] == 1
    again = make_resources(model, clean=clean)
    alone = Finetuning(FinetuningArgs(), again)._finetuned(stepped, updates.round)
    assert torch.equal(tuned.weights, alone.weights)
    assert loss(resources, tuned.state, clean) < loss(resources, stepped, clean)


def test_one_plain_step_by_hand(updates, make_resources, model, clean):
    resources = make_resources(model, clean=clean)
    plain = Undefended(UndefendedArgs(), resources).aggregate(updates)
    answer = run(updates, resources, lr=0.5, momentum=0.0, weight_decay=0.0, epochs=1)
    net = resources.module(plain.state).train()
    F.cross_entropy(net(clean.x), clean.y).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in net.parameters()])
    torch.testing.assert_close(answer.weights, plain.weights - 0.5 * gradient)


def test_the_samples_and_their_augmentation_are_those_asked_for(
    updates, make_resources, model, clean
):
    seen = []

    def augment(x, rng):
        seen.append(x)
        return torch.zeros_like(x)

    resources = make_resources(model, clean=clean, augment=augment)
    args = {"num_seed": 12, "batch_size": 5, "epochs": 2}
    first = run(updates, resources, **args)
    assert [len(x) for x in seen] == [5, 5, 2] * 2
    used = torch.cat(seen[:3]).flatten(1)
    assert len(used.unique(dim=0)) == 12
    seen.clear()
    plain = run(updates, resources, augment=False, **args)
    assert not seen
    assert not torch.equal(first.weights, plain.weights)
    assert torch.equal(plain.weights, run(updates, resources, augment=False, **args).weights)


def test_impossible_settings_are_refused_with_the_mend():
    with pytest.raises(ConfigError, match=r"needs 2 clean samples .* raise server.held_out"):
        Finetuning.check(FinetuningArgs(), Setting(5, 0, (1, 4)))
    with pytest.raises(ConfigError, match="needs 50 clean samples and the server holds 49"):
        Finetuning.check(FinetuningArgs(num_seed=50), Setting(5, 49, (1, 4)))
    with pytest.raises(ConfigError, match="never fine-tunes; set final_round"):
        Finetuning.check(FinetuningArgs(every=0), Setting(5, 50, (1, 4)))
    Finetuning.check(FinetuningArgs(every=0, final_round=3), Setting(1, 50, (1, 4)))


def test_dropout_draws_from_the_experiment_s_stream(make_updates, make_resources):
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    size = sum(parameter.numel() for parameter in net.parameters())
    updates = make_updates(torch.zeros(3, size), model=net)
    x = torch.randn(20, 4, generator=generator())
    resources = make_resources(net, clean=CleanData(x, torch.arange(20) % 2))
    found = []
    for stream in (1, 2):
        torch.manual_seed(stream)
        found.append(run(updates, resources, augment=False).weights)
    assert torch.equal(*found)
