"""A variational autoencoder of the differences between updates, as Snowball trains one.

Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv 1312.6114; layers, losses
and optimiser are those of Snowball's code (Qin et al., AAAI 2024, arXiv 2309.16456). Differences
go through a logistic function and are reconstructed in its range.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entity.seeding import global_stream

_BATCH = 8
"""Differences in a batch of training; the authors'."""
_DRAWS = 10
"""Codes that are drawn of a difference to judge its reconstruction; the authors'."""


class DifferenceVae(nn.Module):
    """Encoder and decoder with two hidden layers each.

    Parameters
    ----------
    size
        Entries of a difference.
    hidden
        Width of the hidden layers.
    latent
        Entries of a code.
    rng
        Draws the first weights, codes and the order of training.
    device
        Where it computes.
    """

    def __init__(
        self, size: int, hidden: int, latent: int, rng: torch.Generator, device: torch.device
    ) -> None:
        super().__init__()
        with global_stream(rng):
            self.encoder = nn.Sequential(
                nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
            )
            self.mean = nn.Linear(hidden, latent)
            self.spread = nn.Linear(hidden, latent)
            self.decoder = nn.Sequential(
                *(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()),
                *(nn.Linear(hidden, size), nn.Sigmoid()),
            )
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.rng, self.latent, self.device = rng, latent, device
        self.to(device)

    def code(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (b, latent) of the codes of x (b, size) in [0, 1]."""
        inner = self.encoder(x)
        return self.mean(inner), F.softplus(self.spread(inner))

    def drawn(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Return codes (b, latent), drawn from their distributions."""
        noise = torch.randn(mean.shape, generator=self.rng).to(mean.device)
        return mean + noise * (log_variance / 2).exp()

    def learn(self, differences: Tensor, epochs: int) -> None:
        """Train on differences (m, size) with Adam, from a fresh state of the optimiser."""
        optimiser = torch.optim.Adam(self.parameters())
        x = differences.sigmoid()
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=self.rng).split(_BATCH):
                batch = x[rows].to(self.device)
                mean, log_variance = self.code(batch)
                rebuilt = self.decoder(self.drawn(mean, log_variance))
                error = (rebuilt - batch).square().sum()
                divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2
                optimiser.zero_grad()
                (error + divergence).backward()
                optimiser.step()

    @torch.no_grad()
    def errors(self, differences: Tensor) -> Tensor:
        """Return the mean squared errors (m,), summed over entries, of reconstructions."""
        x = differences.sigmoid().to(self.device)
        mean, log_variance = self.code(x)
        total = torch.zeros(len(x), device=self.device)
        for _ in range(_DRAWS):
            total += (self.decoder(self.drawn(mean, log_variance)) - x).square().sum(1)
        return total.cpu() / _DRAWS
