"""After the last round: how large an attack leaves the final model's predictions as they are.

Only for defenses that certify, which is CRFL. The numbers go into `summary.json` and the report.
"""

from collections.abc import Iterator
from math import ceil
from typing import Any

from torch import nn

from entity.config.fields import ExperimentConfig
from entity.federation import poisons_in
from entity.server.certificate import CertifyingServer, Threat
from entity.setup.assembly import World
from entity.setup.roster import Roster


def certificate(world: World, model: nn.Module) -> dict[str, Any] | None:
    """Certify predictions of the final model on clean test images.

    Returns
    -------
    dict or None
        `images` that were certified, `accuracy` of their predictions, `radii` of those that are
        right and certified (decreasing), the supposed `attacker`, and `departures` from the
        theorem. None for a defense without a certificate.
    """
    server = world.server
    if not isinstance(server, CertifyingServer) or server.certified_images == 0:
        return None
    rng = world.roster.seeds.generator("certified images")
    x, y = world.judge.sample(server.certified_images, rng)
    threat = strongest_client(world.config, world.roster)
    predicted, radii = server.certify(model, x, threat)
    right = predicted == y.cpu()
    certified = radii[right & (radii > 0)].sort(descending=True).values
    return {
        "images": len(y),
        "accuracy": float(right.double().mean()) if len(y) else None,
        "radii": [float(f"{radius:.6g}") for radius in certified.tolist()],
        "attacker": threat._asdict(),
        "departures": [*departures(world.config, world.roster), *server.departures],
    }


def strongest_client(config: ExperimentConfig, roster: Roster) -> Threat:
    """Return the client with the most samples as an attacker who poisons whole batches.

    It trains as everybody does and does not scale its update. The radius for R such attackers who
    scale by g and poison a share s of a batch is this one's, divided by R g s.
    """
    sizes = roster.num_samples(tuple(range(config.federation.size))).double()
    n, largest = config.federation.round_size, float(sizes.max())
    share = 1 / n
    if config.server.weighting == "samples":  # beside those that weigh least
        share = largest / (largest + float(sizes.sort().values[: n - 1].sum()))
    client = config.client
    return Threat(
        share=config.server.server_lr * share,
        scale=1.0,
        steps=client.num_epochs * ceil(largest / client.batch_size),
        lr=client.lr,
        poisoned=1.0,
    )


def departures(config: ExperimentConfig, roster: Roster) -> Iterator[str]:
    """Yield the assumptions of CRFL's theorem that a run breaks; its radii are then estimates."""
    federation, attack = config.federation, config.client.attack
    if config.client.momentum or config.client.weight_decay:
        yield (
            f"clients train with momentum {config.client.momentum:g} and weight decay "
            f"{config.client.weight_decay:g} (theorem: plain SGD)"
        )
    if config.client.prox_mu:
        yield f"clients train with the proximal term of FedProx, mu {config.client.prox_mu:g}"
    if config.client.dp_clip is not None:
        yield "clients clip and noise what they learn (theorem: plain SGD)"
    if config.server.optimiser != "none":
        yield f"the server steps by {config.server.optimiser} (theorem: the mean is taken)"
    if federation.round_size < federation.size:
        yield (
            f"{federation.round_size} of {federation.size} clients take part in a round "
            "(theorem: all)"
        )
    rounds = range(1, federation.rounds + 1)
    attacked = sum(poisons_in(attack, number) for number in rounds) if attack else 0
    if attacked > 1:
        yield f"{attacked} rounds are attacked (theorem: one)"
    if roster.spec.num_buffers:
        yield "BatchNorm statistics are neither clipped nor noised (theorem: everything is)"


__all__ = ["certificate"]
