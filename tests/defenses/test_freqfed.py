import numpy as np
import pytest
import torch
from scipy.fft import idctn
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses.freqfed import FreqFed, FreqFedArgs, low_frequencies, low_pass, spectral_gram
from entity.server.contract import Setting


def dct_matrix(n: int) -> np.ndarray:
    """The orthonormal DCT-II as its definition gives it."""
    k, x = np.mgrid[:n, :n]
    basis = np.cos(np.pi * (2 * x + 1) * k / (2 * n)) * np.sqrt(2 / n)
    basis[0] /= np.sqrt(2)
    return basis


def triangle(rows: int, columns: int) -> np.ndarray:
    return np.array([[i / rows + j / columns <= 0.5 for j in range(columns)] for i in range(rows)])


def layers() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 6))


def random_deltas(n: int, model: nn.Module, seed: int = 0) -> torch.Tensor:
    size = sum(parameter.numel() for parameter in model.parameters())
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


def run(updates, resources):
    return FreqFed(FreqFedArgs(), resources).aggregate(updates)


@pytest.mark.parametrize("shape", [(8, 8), (4, 18), (6, 1), (1, 1), (5, 7)])
def test_the_low_frequencies_are_those_of_the_definition(shape):
    matrix = np.random.default_rng(0).normal(size=shape)
    spectrum = dct_matrix(shape[0]) @ matrix @ dct_matrix(shape[1]).T
    np.testing.assert_allclose(low_frequencies(matrix), spectrum[triangle(*shape)], atol=1e-12)


@pytest.mark.parametrize("size", [2, 8, 9])
def test_a_square_matrix_keeps_the_papers_triangle(size):
    i, j = np.mgrid[:size, :size]
    assert np.array_equal(low_pass(size, size), i + j <= size // 2)


def test_the_gram_matrix_is_that_of_the_concatenated_spectra(make_updates):
    model = layers()
    deltas = random_deltas(4, model)
    updates = make_updates(deltas, model=model)
    features = []
    for slot in updates.spec.parameters:
        parts = deltas[:, slot.start : slot.stop].double().numpy()
        features.append([low_frequencies(part.reshape(slot.shape[0], -1)) for part in parts])
    joined = np.concatenate([np.array(part) for part in features], 1)
    np.testing.assert_allclose(spectral_gram(updates), joined @ joined.T, rtol=1e-4, atol=1e-4)


def test_the_highest_frequency_changes_nothing(make_updates, make_resources):
    model = nn.Linear(8, 8, bias=False)
    common = random_deltas(1, model, 1)
    deltas = common + 0.3 * random_deltas(9, model, 2)
    deltas[6:] -= 2 * common
    spike = np.zeros((8, 8))
    spike[7, 7] = 1000
    wave = torch.from_numpy(np.asarray(idctn(spike, norm="ortho"))).float().flatten()
    noisy = deltas.clone()
    noisy[2] += wave
    before, after = (make_updates(d, model=model) for d in (deltas, noisy))
    first, second = (run(updates, make_resources(model)) for updates in (before, after))
    kept = [verdict.accepted for verdict in first.verdicts]
    assert kept == [verdict.accepted for verdict in second.verdicts]
    assert not any(kept[6:])
    assert sum(kept) >= 5
    scores = [[v.score for v in answer.verdicts] for answer in (first, second)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    # On the updates themselves that client is an outlier.
    assert before.cosines[2, 0] > 0.5 > after.cosines[2, 0]


def test_the_majority_in_the_low_frequencies_is_averaged(make_updates, make_resources):
    model = layers()
    good, bad = random_deltas(2, model, 3)
    updates = make_updates(torch.stack([good] * 6 + [bad] * 4), model=model)
    answer = run(updates, make_resources(model))
    assert [verdict.accepted for verdict in answer.verdicts] == [True] * 6 + [False] * 4
    torch.testing.assert_close(answer.weights, updates.global_weights + good)
    assert answer.verdicts[9].reason == "outside the majority cluster"


def test_small_rounds_are_refused_with_the_mend():
    with pytest.raises(ConfigError, match=r"freqfed needs at least 4 clients .* raise it"):
        FreqFed.check(FreqFedArgs(), Setting(3, 0, (1, 4)))
