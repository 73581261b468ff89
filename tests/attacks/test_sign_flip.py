import pytest
import torch

from entity.attacks.sign_flip import SignFlip, SignFlipArgs


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_honest_update_is_sent_backwards(make_bench, scale):
    bench = make_bench(SignFlip, SignFlipArgs(flip_scale=scale))
    honest = bench.honest()
    sent = bench.fit()
    expected = bench.start.weights - scale * (honest.weights - bench.start.weights)
    torch.testing.assert_close(sent.weights, expected, rtol=1e-6, atol=1e-6)
    # Flipped statistics would be negative variances.
    assert torch.equal(sent.buffers, honest.buffers)


def test_it_trains_on_clean_data(make_bench):
    data = make_bench(SignFlip, SignFlipArgs()).client.poisoned()
    assert not data.poisoned.any()
