import math

import numpy as np
import pytest
import torch
from torch import nn

import entity.sgd
from entity.training import Recipe, accuracy, autocast, fit, logits, shuffled


def recipe(**changes):
    fields = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 4, "epochs": 1}
    return Recipe(**(fields | changes))


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(samples=6, inputs=4, classes=3):
    generator = rng(3)
    x = torch.randn(samples, inputs, generator=generator)
    y = torch.randint(classes, (samples,), generator=generator)
    model = nn.Linear(inputs, classes)
    with torch.no_grad():
        model.weight.copy_(torch.randn(classes, inputs, generator=generator))
        model.bias.copy_(torch.randn(classes, generator=generator))
    return model, x, y


def cross_entropy_gradients(weight, bias, x, y):
    z = x @ weight.T + bias
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    p /= len(y)
    return p.T @ x, p.sum(0)


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.05)])
def test_fit_is_sgd_as_numpy_writes_it(momentum, decay):
    model, x, y = problem()
    values = [p.detach().double().numpy().copy() for p in model.parameters()]
    speeds = [0.0, 0.0]
    batches = [(x[:4], y[:4]), (x[4:], y[4:]), (x, y)]
    for bx, by in batches:
        gradients = cross_entropy_gradients(*values, bx.double().numpy(), by.numpy())
        for k, gradient in enumerate(gradients):
            speeds[k] = momentum * speeds[k] + gradient + decay * values[k]
            values[k] = values[k] - 0.1 * speeds[k]
    fit(model, batches, recipe(momentum=momentum, weight_decay=decay))
    for parameter, value in zip(model.parameters(), values, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), value, atol=1e-6)


def test_momentum_is_not_carried_from_one_fit_to_the_next():
    one, x, y = problem()
    two, _, _ = problem()
    fit(one, [(x, y), (x, y)], recipe(momentum=0.9))
    fit(two, [(x, y)], recipe(momentum=0.9))
    after_first = two.weight.detach().clone()
    fit(two, [(x, y)], recipe(momentum=0.9))
    assert not torch.equal(one.weight, two.weight)
    gradient, _ = cross_entropy_gradients(
        after_first.double().numpy(), two.bias.detach().double().numpy(), x.numpy(), y.numpy()
    )
    step = (after_first - two.weight.detach()).norm() / 0.1
    assert float(step) == pytest.approx(np.linalg.norm(gradient), rel=0.05)


def test_fit_trains_in_training_mode_and_calls_after_every_step():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    _, x, y = problem()
    calls = []
    fit(model, [(x, y)] * 3, recipe(), after_step=calls.append)
    assert calls == [model] * 3
    assert model[0].num_batches_tracked == 3


def test_after_step_acts_on_what_the_next_batch_starts_from():
    model, x, y = problem()

    def erase(module):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()

    fit(model, [(x, y)] * 3, recipe(), after_step=erase)
    assert not model.weight.any()


def test_another_loss_replaces_the_cross_entropy():
    model, x, y = problem()
    before = model.bias.detach().clone()
    fit(model, [(x, y)], recipe(lr=0.5), loss=lambda m, x, y: m(x)[:, 1].mean())
    expected = before - 0.5 * torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(model.bias.detach(), expected)


def test_bfloat16_rounds_the_forward_pass_and_keeps_weights_in_float32():
    full, x, y = problem(64)
    half, _, _ = problem(64)
    fit(full, [(x, y)], recipe())
    fit(half, [(x, y)], recipe(amp_enabled=True))
    assert half.weight.dtype == torch.float32
    assert not torch.equal(full.weight, half.weight)
    torch.testing.assert_close(full.weight, half.weight, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("size", "batch_size", "sizes"),
    [
        (10, 4, [4, 4, 2]),
        (8, 4, [4, 4]),
        (9, 4, [4, 4]),  # a last single sample would stop BatchNorm
        (3, 64, [3]),
        (1, 64, [1]),
        (4, 1, [1, 1, 1, 1]),  # whoever asks for single samples gets them all
        (0, 4, []),
    ],
)
def test_batches_of_a_pass(size, batch_size, sizes):
    batches = list(shuffled(size, batch_size, 1, rng()))
    assert [len(batch) for batch in batches if len(batch)] == sizes
    seen = torch.cat(batches).tolist() if batches else []
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(size))


def test_every_pass_has_all_samples_in_an_order_of_its_own():
    batches = list(shuffled(20, 5, 3, rng()))
    passes = [torch.cat(batches[k : k + 4]).tolist() for k in (0, 4, 8)]
    assert all(sorted(one) == list(range(20)) for one in passes)
    assert passes[0] != passes[1] != passes[2]
    assert passes[0] != list(range(20))
    again = torch.cat(list(shuffled(20, 5, 3, rng())))
    assert torch.equal(torch.cat(batches), again)


def test_logits_are_those_of_evaluation_mode_whatever_the_batches():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    x = torch.randn(7, 4, generator=rng())
    model(x)
    mean, var = model[0].running_mean.clone(), model[0].running_var.clone()
    expected = model[1]((x - mean) / (var + 1e-5).sqrt())
    model.train()
    for batch_size in (1, 3, 500):
        torch.testing.assert_close(logits(model, x, batch_size), expected.detach())
    assert model.training
    assert torch.equal(model[0].running_mean, mean)
    assert not logits(model, x).requires_grad
    model.eval()
    logits(model, x)
    assert not model.training


def test_accuracy_counts_what_is_classified_as_labelled():
    x = torch.tensor([[3.0, 1.0], [0.0, 1.0], [5.0, 4.0], [0.0, 9.0]])
    assert accuracy(nn.Identity(), x, torch.tensor([0, 1, 1, 1])) == 0.75
    assert math.isnan(accuracy(nn.Identity(), x[:0], torch.tensor([], dtype=torch.long)))


def test_an_answer_of_nan_is_wrong_and_not_class_0():
    answers = torch.tensor([[torch.nan, 0.0], [1.0, 0.0], [torch.nan, torch.nan]])
    zeros = torch.zeros(3, dtype=torch.long)
    assert accuracy(nn.Identity(), answers, zeros) == pytest.approx(1 / 3)


def test_autocast_is_told_the_kind_of_a_device_and_not_its_number():
    """The original code hands "cuda:0" to autocast and to the gradient scaler."""
    context = autocast(torch.device("cpu:0"), enabled=True)
    assert (context.device, context.fast_dtype) == ("cpu", torch.bfloat16)


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_one_optimiser_is_taken_on_every_device(device, monkeypatch):
    """Fused SGD rounds otherwise than plain SGD, so what is taken must never depend on a guess."""
    from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

    assert device in _get_fused_kernels_supported_devices()
    asked = []
    plain = entity.sgd.sgd

    def noting(*tensors, **options):
        asked.append(options)
        plain(*tensors, **options)

    monkeypatch.setattr(entity.sgd, "sgd", noting)
    model, x, y = problem()
    fit(model, [(x, y)], recipe())
    assert asked[0]["fused"] is True
