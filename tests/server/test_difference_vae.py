import torch

from entity.server.difference_vae import DifferenceVae

CPU = torch.device("cpu")


def vae(seed: int = 0) -> DifferenceVae:
    return DifferenceVae(12, 16, 3, torch.Generator().manual_seed(seed), CPU)


def differences(m: int, seed: int = 1) -> torch.Tensor:
    """One difference, with noise."""
    rng = torch.Generator().manual_seed(seed)
    return torch.linspace(-4, 4, 12) + 0.1 * torch.randn(m, 12, generator=rng)


def test_it_learns_what_it_is_shown_and_rebuilds_nothing_else_as_well():
    model = vae()
    before = model.errors(differences(20, 2)).mean()
    model.learn(differences(16), 60)
    known = model.errors(differences(20, 2))
    strange = model.errors(differences(20, 2).roll(5, 1))
    assert known.mean() < 0.5 * before
    assert known.max() < strange.min()


def test_it_draws_from_its_generator_alone():
    state = torch.random.get_rng_state()
    one, two = vae(), vae()
    for model in (one, two):
        model.learn(differences(9), 2)
    assert torch.equal(one.errors(differences(3)), two.errors(differences(3)))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_infinite_differences_have_an_error_that_is_a_number():
    assert vae().errors(torch.full((1, 12), -torch.inf)).isfinite().all()
