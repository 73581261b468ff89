import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from entity.sgd import SGD


def trained(make, *, steps=6, late=False):
    """Train two layers; the second, if it is `late`, has no gradient in the first three steps."""
    rng = torch.Generator().manual_seed(1)
    first, second = nn.Linear(6, 5), nn.Linear(5, 3)
    frozen = nn.Linear(5, 3)
    layers = nn.ModuleList([first, second, frozen])
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
    frozen.requires_grad_(False)
    optimiser = make(layers.parameters())
    for step in range(steps):
        x = torch.randn(8, 6, generator=rng)
        y = torch.randint(3, (8,), generator=rng)
        answer = first(x)[:, :3] if late and step < 3 else second(first(x)) + frozen(first(x))
        loss = F.cross_entropy(answer, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return torch.cat([parameter.detach().flatten() for parameter in layers.parameters()])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 5e-4])
def test_it_is_pytorchs_to_the_bit(momentum, decay):
    ours = trained(lambda parameters: SGD(parameters, 0.1, momentum, decay))
    theirs = trained(
        lambda parameters: torch.optim.SGD(
            parameters, 0.1, momentum, weight_decay=decay, fused=True
        )
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_layer_that_comes_into_use_later_begins_its_momentum_then(momentum):
    """The fused step of PyTorch's class fails there, the plain one does not."""
    ours = trained(lambda parameters: SGD(parameters, 0.1, momentum, 0.0), late=True)
    plain = trained(
        lambda parameters: torch.optim.SGD(parameters, 0.1, momentum, foreach=False), late=True
    )
    torch.testing.assert_close(ours, plain)


def test_training_does_not_import_the_compiler():
    """Which takes as long as PyTorch itself, in every process that trains."""
    code = (
        "import sys, torch; from entity.training import Recipe, fit\n"
        "x, y = torch.randn(4, 3), torch.zeros(4).long()\n"
        "fit(torch.nn.Linear(3, 2), [(x, y)], Recipe(0.1, 0.9, 5e-4, 4, 1))\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
