"""How the training images are shared out among the clients.

- `iid`: every client gets every class alike.
- `dirichlet_class` (convention A; Bagdasaryan et al., "How To Backdoor Federated Learning",
  AISTATS 2020, 1807.00459, and Li et al., 2102.02079, section on label skew by distribution, which
  DROP's paper follows): every class is split over the clients by a Dirichlet draw; sizes differ.
- `dirichlet_client` (convention B; Hsu et al., "Measuring the Effects of Non-Identical Data
  Distribution for Federated Visual Classification", 2019, 1909.06335): every client draws its
  mix of classes; sizes are equal.
- `drop_noniid`: DROP's code; convention A from as much of every class as the rarest one has.
- `shards` (McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
  Data", AISTATS 2017, 1602.05629): samples sorted by class and cut into shards; every client gets
  some.
- `natural`: every client is one of the data set's own, as FEMNIST's writers are; which ones is
  drawn, and the samples of all others are used by nobody.
- `quantity` (Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE
  2022, 2102.02079): the sizes are a Dirichlet draw; every client has the classes alike.

Equal alphas of them are not comparable. Unlike DROP's code, which drops what does not divide and
cuts every class to the rarest one's size, all but `drop_noniid` and `natural` use every sample
exactly once.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from entity.config.fields import ClientConfig
from entity.config.schema import ConfigError
from entity.dataset.shares import Ints, Shares, apportion, draw_per_class
from entity.seeding import Seeds

MAX_DRAWS = 100
"""Dirichlet splits drawn before a minimal size is held to be out of reach."""

SplitRule = Callable[[Tensor, int, ClientConfig, np.random.Generator], Shares]
"""(labels, clients, config, generator) -> shares, as the splits below take them:

- labels: (N,) int64, the classes of the training samples;
- clients: their number;
- config: its `dirichlet_alpha`, `shards_per_client` and `min_samples`;
- generator: where the split is drawn from.
"""


def partition(
    labels: Tensor,
    clients: int,
    config: ClientConfig,
    seeds: Seeds,
    owners: Tensor | None = None,
) -> Shares:
    """Share the training samples out as configured, after the cut to the share `ADR` of them.

    Parameters
    ----------
    labels
        (N,) classes of the training images.
    clients
        Number of clients.
    config
        `IID`, `partition` and its settings, and `ADR`.
    seeds
        Of the experiment.
    owners
        (N,) whose each image is, for the split `natural`.

    Raises
    ------
    ConfigError
        If some client would get no sample, or, unless IID, fewer than `min_samples`.
    """
    generator = seeds.numpy("partition")
    used: Tensor | None = None
    if config.ADR < 1:
        per_class = apportion(np.bincount(labels.numpy()), int(config.ADR * len(labels) + 0.5))
        used = draw_per_class(labels, per_class, generator)
        labels = labels[used]
        owners = None if owners is None else owners[used]
    if len(labels) < clients:
        raise ConfigError(
            f"federation.size = {clients}: allowed is at most {len(labels)}, the number of "
            f"training samples in use (client.ADR = {config.ADR:g}), as every client needs one."
        )
    if config.IID:
        shares = iid(labels, clients, generator)
    elif config.partition == "natural":
        assert owners is not None, "setup refuses data sets without clients of their own"
        shares = natural(owners, clients, config, generator)
    else:
        _check_min_samples(len(labels), clients, config.min_samples)
        shares = SPLITS[config.partition](labels, clients, config, generator)
    return shares if used is None else shares.among(used)


def iid(labels: Tensor, clients: int, generator: np.random.Generator) -> Shares:
    """Deal the samples, shuffled and sorted by class, to the clients in turn.

    Every client's count of any class, and its size, differs from any other's by at most one.

    Parameters
    ----------
    labels, clients, generator
        As of `SplitRule`.
    """
    by_class = _by_class(labels, generator)
    owner = np.empty(len(labels), dtype=np.int64)
    # Permuted, so that clients with neighbouring ids are not those that get the same classes.
    owner[by_class] = np.resize(generator.permutation(clients), len(labels))
    return Shares.of_owners(owner, clients)


def dirichlet_class(
    labels: Tensor, clients: int, config: ClientConfig, generator: np.random.Generator
) -> Shares:
    """Split each class c over the clients by p_c ~ Dir(alpha, ..., alpha), every sample used.

    The split is drawn anew until every client has `min_samples`, 10 as in Li et al.'s code. (That
    code gives nothing of a class to clients that have their even share of all samples already,
    which their paper does not say; DBA's rounds in the clients' order, which starves the late ones;
    here the largest remainders get the leftovers.)

    Parameters
    ----------
    labels, clients, config, generator
        As of `SplitRule`; alpha is `dirichlet_alpha`.

    Raises
    ------
    ConfigError
        If no draw of `MAX_DRAWS` gives every client `min_samples`.
    """
    y = labels.numpy()
    totals = np.bincount(y)

    def draw() -> Ints:
        p = generator.dirichlet(np.full(clients, config.dirichlet_alpha), size=len(totals))
        return np.stack([apportion(p[c], int(totals[c])) for c in range(len(totals))])

    counts = _redrawn(draw, clients, config)
    return Shares.of_owners(_deal(y, counts, generator), clients)


def dirichlet_client(
    labels: Tensor, clients: int, config: ClientConfig, generator: np.random.Generator
) -> Shares:
    """Give each client i its equal share of the samples, mixed as q_i ~ Dir(alpha, ..., alpha).

    Samples are taken without replacement; when a class runs out, q_i is renormalised over the
    others. So late clients deviate from their q_i, as in the paper.

    Parameters
    ----------
    labels, clients, config, generator
        As of `SplitRule`; alpha is `dirichlet_alpha`.
    """
    y = labels.numpy()
    left = np.bincount(y)
    mixes = generator.dirichlet(np.full(len(left), config.dirichlet_alpha), size=clients)
    sizes = apportion(np.ones(clients), len(y))
    counts = np.zeros((len(left), clients), dtype=np.int64)
    for client in range(clients):
        while missing := int(sizes[client] - counts[:, client].sum()):
            q = mixes[client] * (left > 0)
            q = q if q.sum() > 0 else left.astype(float)
            taken = np.minimum(apportion(q, missing), left)
            counts[:, client] += taken
            left -= taken
    return Shares.of_owners(_deal(y, counts, generator), clients)


def drop_noniid(
    labels: Tensor, clients: int, config: ClientConfig, generator: np.random.Generator
) -> Shares:
    """Split as `dirichlet_class`, but floor(p_c m) samples of each class, m those of the rarest.

    What that leaves of the classes is used by nobody. (In DROP's code a client may end up with
    nothing, which crashes; here the split is drawn anew as in `dirichlet_class`.)

    Parameters
    ----------
    labels, clients, config, generator
        As of `SplitRule`; alpha is `dirichlet_alpha`.

    Raises
    ------
    ConfigError
        If no draw of `MAX_DRAWS` gives every client `min_samples`.
    """
    totals = np.bincount(labels.numpy())
    rarest = totals[totals > 0].min()

    def draw() -> Ints:
        p = generator.dirichlet(np.full(clients, config.dirichlet_alpha), size=len(totals))
        return np.floor(p * rarest).astype(np.int64) * (totals > 0)[:, None]

    counts = _redrawn(draw, clients, config)
    used = draw_per_class(labels, counts.sum(axis=1), generator)
    owner = _deal(labels[used].numpy(), counts, generator)
    return Shares.of_owners(owner, clients).among(used)


def shards(
    labels: Tensor, clients: int, config: ClientConfig, generator: np.random.Generator
) -> Shares:
    """Cut the samples, sorted by class, into `clients * shards_per_client` shards and deal them.

    Sizes of shards differ by at most one. A shard that lies across a border holds two classes,
    so a client of s shards holds s classes as a rule, up to 2 s at most where classes are not
    smaller than shards.

    Parameters
    ----------
    labels, clients, config, generator
        As of `SplitRule`.

    Raises
    ------
    ConfigError
        If there are fewer samples than shards, or some client has fewer than `min_samples`.
    """
    per_client = config.shards_per_client
    number = clients * per_client
    most = len(labels) // clients
    if per_client > most:
        raise ConfigError(
            f"client.shards_per_client = {per_client}: allowed is at most {most}, as {clients} "
            f"clients share {len(labels)} samples."
        )
    dealt = generator.permutation(number) // per_client
    owner = np.empty(len(labels), dtype=np.int64)
    owner[_by_class(labels, generator)] = np.repeat(dealt, apportion(np.ones(number), len(labels)))
    shares = Shares.of_owners(owner, clients)
    if (fewest := int(shares.sizes.min())) < config.min_samples:
        raise ConfigError(
            f"client.min_samples = {config.min_samples}: allowed is at most {fewest}, what "
            f"{per_client} of {number} shards of {len(labels)} samples hold."
        )
    return shares


def quantity(
    labels: Tensor, clients: int, config: ClientConfig, generator: np.random.Generator
) -> Shares:
    """Give client i about p_i of every class, p ~ Dir(alpha, ..., alpha), every sample used.

    Its size n_i is p_i of all samples, rounded. All samples are sorted by class, and the client's
    are n_i evenly spaced ones from a random start, so that it has its part of every class, but
    for rounding. (Li et al. draw them at random.)

    Parameters
    ----------
    labels, clients, config, generator
        As of `SplitRule`; alpha is `dirichlet_alpha`.

    Raises
    ------
    ConfigError
        If no draw of `MAX_DRAWS` gives every client `min_samples`.
    """

    def draw() -> Ints:
        return apportion(
            generator.dirichlet(np.full(clients, config.dirichlet_alpha)), len(labels)
        )[None]

    sizes = _redrawn(draw, clients, config)[0]
    starts = generator.random(clients)
    positions = [(np.arange(n) + u) / n for n, u in zip(sizes.tolist(), starts, strict=True)]
    in_order = np.argsort(np.concatenate(positions), kind="stable")
    owner = np.empty(len(labels), dtype=np.int64)
    owner[_by_class(labels, generator)] = np.repeat(np.arange(clients), sizes)[in_order]
    return Shares.of_owners(owner, clients)


def natural(
    owners: Tensor, clients: int, config: ClientConfig, generator: np.random.Generator
) -> Shares:
    """Make each client one of the data set's own, drawn from those with `min_samples` or more.

    Parameters
    ----------
    owners
        (N,) whose each sample is.
    clients, config, generator
        As of `SplitRule`.

    Raises
    ------
    ConfigError
        If there are fewer such owners than clients.
    """
    whose = owners.numpy()
    sizes = np.bincount(whose)
    able = np.flatnonzero(sizes >= max(1, config.min_samples))
    if len(able) < clients:
        raise ConfigError(
            f"federation.size = {clients}: allowed is at most {len(able)}, as so many of the data "
            f"set's own {np.count_nonzero(sizes)} clients have client.min_samples = "
            f"{config.min_samples} training samples; lower min_samples, take more of the data set, "
            "or choose another client.partition, which shares samples out."
        )
    chosen = np.sort(generator.choice(able, clients, replace=False))
    number = np.full(len(sizes), -1)
    number[chosen] = np.arange(clients)
    used = np.flatnonzero(number[whose] >= 0)
    return Shares.of_owners(number[whose[used]], clients).among(torch.from_numpy(used))


SPLITS: dict[str, SplitRule] = {
    "dirichlet_class": dirichlet_class,
    "dirichlet_client": dirichlet_client,
    "drop_noniid": drop_noniid,
    "shards": shards,
    "quantity": quantity,
}
"""The splits that `client.partition` names, when not IID, beside `natural`."""


def _by_class(labels: Tensor, generator: np.random.Generator) -> Ints:
    """Return the samples sorted by class, those of a class in random order."""
    shuffled = generator.permutation(len(labels))
    return shuffled[np.argsort(labels.numpy()[shuffled], kind="stable")]


def _deal(y: Ints, counts: Ints, generator: np.random.Generator) -> Ints:
    """Give client i `counts[c, i]` random samples of class c; return each sample's owner."""
    owner = np.empty(len(y), dtype=np.int64)
    for c, of_class in enumerate(counts):
        members = generator.permutation(np.flatnonzero(y == c))
        owner[members] = np.repeat(np.arange(len(of_class)), of_class)
    return owner


def _redrawn(draw: Callable[[], Ints], clients: int, config: ClientConfig) -> Ints:
    """Draw counts (classes, clients) until every client has enough."""
    for _ in range(MAX_DRAWS):
        counts = draw()
        if counts.sum(axis=0).min() >= config.min_samples:
            return counts
    raise ConfigError(
        f"client.dirichlet_alpha = {config.dirichlet_alpha:g}: in {MAX_DRAWS} draws some client "
        f"always had fewer than client.min_samples = {config.min_samples} samples; raise "
        f"dirichlet_alpha, or lower min_samples or federation.size = {clients}."
    )


def _check_min_samples(samples: int, clients: int, min_samples: int) -> None:
    if clients * min_samples > samples:
        raise ConfigError(
            f"client.min_samples = {min_samples}: allowed is at most {samples // clients}, as "
            f"{clients} clients share {samples} samples."
        )
