import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entity.config import schema
from entity.config.fields import ClientConfig
from entity.config.schema import ConfigError
from entity.dataset import Shares, partition
from entity.dataset.partition import (
    MAX_DRAWS,
    SPLITS,
    dirichlet_class,
    dirichlet_client,
    drop_noniid,
    iid,
    quantity,
    shards,
)
from entity.dataset.shares import apportion, draw_per_class
from entity.seeding import Seeds

SEEDS = Seeds(71)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def config(**changes: object) -> ClientConfig:
    return ClientConfig(num_epochs=1, lr=0.1, batch_size=8, **changes)  # type: ignore[arg-type]


def dirichlet(alpha: float, min_samples: int = 1) -> ClientConfig:
    return config(dirichlet_alpha=alpha, min_samples=min_samples)


def cut(per_client: int, min_samples: int = 1) -> ClientConfig:
    return config(shards_per_client=per_client, min_samples=min_samples)


def histogram(shares: Shares, labels: torch.Tensor) -> np.ndarray:
    """(clients, classes) counts, from the shares as a reader of them sees them."""
    classes = int(labels.max()) + 1
    return np.stack([np.bincount(labels[share], minlength=classes) for share in shares])


def used_once(shares: Shares, samples: int) -> bool:
    return sorted(torch.cat(list(shares)).tolist()) == list(range(samples))


def balanced(per_class: int, classes: int = 10) -> torch.Tensor:
    labels = torch.arange(classes).repeat(per_class)
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]


many_labels = st.lists(st.integers(0, 4), min_size=12, max_size=80).map(torch.tensor)


@settings(max_examples=40, deadline=None)
@given(labels=many_labels, clients=st.integers(1, 12), seed=st.integers(0, 9))
def test_every_split_uses_every_sample_once_and_leaves_no_client_empty(labels, clients, seed):
    for shares in (
        iid(labels, clients, rng(seed)),
        dirichlet_client(labels, clients, dirichlet(0.3), rng(seed)),
        dirichlet_class(labels, min(clients, 3), dirichlet(5.0), rng(seed)),
        quantity(labels, min(clients, 3), dirichlet(5.0), rng(seed)),
        shards(labels, clients, cut(1 + seed % max(1, len(labels) // clients)), rng(seed)),
    ):
        assert used_once(shares, len(labels))
        assert shares.sizes.min() >= 1
        assert shares.sizes.tolist() == [len(share) for share in shares]


@settings(max_examples=40, deadline=None)
@given(labels=many_labels, clients=st.integers(1, 12))
def test_iid_class_counts_and_sizes_differ_by_at_most_one(labels, clients):
    shares = iid(labels, clients, rng())
    assert np.ptp(histogram(shares, labels), axis=0).max() <= 1
    assert np.ptp(shares.sizes.numpy()) <= 1


def test_iid_takes_random_samples_of_each_class():
    labels = balanced(100)
    first = iid(labels, 10, rng())[0]
    assert first.max() > 500
    assert first.min() < 500
    assert len(set(first.diff().tolist())) > 10


DIRICHLET = [name for name in SPLITS if name != "shards"]


@pytest.mark.parametrize("split", DIRICHLET)
def test_a_huge_alpha_gives_the_iid_proportions_within_two_percent(split):
    labels = balanced(2000)
    changes = config(IID=False, partition=split, dirichlet_alpha=1e6)
    shares = SPLITS[split](labels, 10, changes, rng())
    assert np.abs(histogram(shares, labels) - 200).max() <= 0.02 * 200


def test_a_small_alpha_skews_classes_over_clients_and_clients_over_classes():
    labels = balanced(500)
    by_class = histogram(dirichlet_class(labels, 10, dirichlet(0.3), rng()), labels)
    assert np.median(by_class.max(axis=0)) > 150
    by_client = histogram(dirichlet_client(labels, 10, dirichlet(0.05), rng()), labels)
    assert by_client[0].max() > 400


@pytest.mark.parametrize("split", ["class", "client"])
def test_dirichlet_shares_are_random_samples_of_a_class(split):
    labels = torch.zeros(1000, dtype=torch.int64)
    if split == "class":
        shares = dirichlet_class(labels, 2, dirichlet(100.0), rng())
    else:
        shares = dirichlet_client(labels, 2, dirichlet(100.0), rng())
    means = [float(share.float().mean()) for share in shares]
    assert means == pytest.approx([499.5, 499.5], rel=0.1)


def test_dirichlet_class_sizes_differ_and_hold_the_minimum():
    shares = dirichlet_class(balanced(500), 20, dirichlet(0.5, 100), rng())
    assert shares.sizes.min() >= 100
    assert np.ptp(shares.sizes.numpy()) > 50


def test_dirichlet_client_sizes_are_equal_and_leftovers_go_one_each():
    assert (
        sorted(dirichlet_client(balanced(10), 7, dirichlet(0.1), rng()).sizes.tolist())
        == [14] * 5 + [15] * 2
    )


@pytest.mark.parametrize("split", [dirichlet_class, drop_noniid, quantity])
def test_a_minimum_out_of_reach_names_alpha_and_the_mend(split):
    with pytest.raises(ConfigError) as caught:
        split(balanced(10), 10, dirichlet(0.01, 9), rng())
    text = str(caught.value)
    assert text.startswith("client.dirichlet_alpha = 0.01:")
    assert str(MAX_DRAWS) in text
    assert "raise dirichlet_alpha" in text


@pytest.mark.parametrize("convention", SPLITS)
def test_a_minimum_that_no_split_can_hold_is_refused_at_once(convention):
    with pytest.raises(ConfigError, match=r"^client\.min_samples = 11: allowed is at most 10,"):
        partition(balanced(10), 10, config(IID=False, partition=convention, min_samples=11), SEEDS)


# --- DROP's convention

UNEVEN = torch.tensor([0] * 40 + [1] * 100 + [3] * 60)
"""Class 2 has no sample at all."""


@settings(max_examples=40, deadline=None)
@given(clients=st.integers(1, 6), alpha=st.sampled_from([0.5, 1.0, 5.0]), seed=st.integers(0, 99))
def test_drop_noniid_uses_no_sample_twice_and_no_class_beyond_the_rarest(clients, alpha, seed):
    shares = drop_noniid(UNEVEN, clients, dirichlet(alpha), rng(seed))
    used = torch.cat(list(shares)).tolist()
    assert len(used) == len(set(used))
    of_class = histogram(shares, UNEVEN).sum(axis=0)
    # floor() loses up to one sample a client.
    assert all(40 - clients <= of_class[c] <= 40 for c in (0, 1, 3))
    assert of_class[2] == 0
    assert shares.sizes.min() >= 1


def test_drop_noniid_is_the_floor_of_the_rarest_class_times_the_draw():
    shares = drop_noniid(UNEVEN, 3, dirichlet(1.0), rng(5))
    p = rng(5).dirichlet(np.ones(3), size=4)
    expected = np.floor(p * 40).T
    expected[:, 2] = 0
    assert histogram(shares, UNEVEN).tolist() == expected.tolist()


def test_drop_noniid_takes_random_samples_of_a_class():
    labels = torch.tensor([0] * 1000 + [1] * 100)
    shares = drop_noniid(labels, 2, dirichlet(50.0), rng())
    of_the_larger = torch.cat(list(shares))
    of_the_larger = of_the_larger[of_the_larger < 1000]
    assert of_the_larger.float().mean() == pytest.approx(499.5, rel=0.15)


def test_drop_noniid_draws_anew_where_the_original_leaves_a_client_empty():
    """With one sample of a class and many clients floor() leaves nothing to anybody."""
    labels = torch.tensor([0] + [1] * 50)
    with pytest.raises(ConfigError, match=r"^client\.dirichlet_alpha = 1: in 100 draws"):
        drop_noniid(labels, 4, dirichlet(1.0), rng())
    first_draw = np.floor(rng(1).dirichlet(np.full(8, 0.3), size=3) * 20)
    assert first_draw.sum(axis=0).min() == 0
    assert drop_noniid(balanced(20, classes=3), 8, dirichlet(0.3), rng(1)).sizes.min() >= 1


# --- shards


def test_two_shards_of_balanced_classes_are_two_classes_or_one_twice():
    """20 clients on 10 classes of 40: 40 shards of 10, none across a border."""
    labels = balanced(40)
    counts = histogram(shards(labels, 20, cut(2), rng()), labels)
    assert (counts.sum(axis=1) == 20).all()
    assert set(counts.flatten()) == {0, 10, 20}


@settings(max_examples=40, deadline=None)
@given(labels=many_labels, clients=st.integers(1, 6), per_client=st.integers(1, 4))
def test_shards_hold_at_most_two_classes_where_no_class_is_smaller(labels, clients, per_client):
    number = clients * per_client
    if len(labels) < number:
        return
    shares = shards(labels, clients, cut(per_client), rng())
    sizes = torch.bincount(labels)
    if sizes[sizes > 0].min() >= -(-len(labels) // number):
        assert (histogram(shares, labels) > 0).sum(axis=1).max() <= 2 * per_client
    # Each of a client's shards is of one size or one more.
    assert np.ptp(shares.sizes.numpy()) <= per_client


def test_as_many_shards_as_classes_can_give_every_client_its_own():
    labels = balanced(10, classes=4)
    counts = histogram(shards(labels, 4, cut(1), rng()), labels)
    assert sorted(counts.argmax(axis=1)) == [0, 1, 2, 3]
    assert (counts.max(axis=1) == 10).all()


def test_shards_take_random_samples_of_a_class():
    share = shards(torch.zeros(1000, dtype=torch.int64), 4, cut(1), rng())[0]
    assert share.float().mean() == pytest.approx(499.5, rel=0.15)


def test_more_shards_than_samples_are_refused():
    with pytest.raises(ConfigError, match=r"^client\.shards_per_client = 6: allowed is at most 5,"):
        shards(balanced(5), 10, cut(6), rng())


def test_shards_too_small_for_the_minimum_are_refused():
    # 30 shards of 3 or 4 samples, 20 of them of 3.
    with pytest.raises(ConfigError, match=r"^client\.min_samples = 10: allowed is at most 9, what"):
        shards(balanced(10), 10, cut(3, 10), rng())


# --- quantity


@settings(max_examples=40, deadline=None)
@given(clients=st.integers(1, 8), seed=st.integers(0, 99))
def test_quantity_skews_sizes_and_leaves_the_classes_alike(clients, seed):
    labels = balanced(100)
    counts = histogram(quantity(labels, clients, dirichlet(1.0), rng(seed)), labels)
    shares = counts.sum(axis=1, keepdims=True) / 1000
    # A border between classes is off by less than one place a client, and a client's own by one.
    assert (np.abs(counts - shares * 100) <= 2 * clients * shares + 2).all()


def test_quantity_gives_small_clients_any_class():
    labels = balanced(100)
    counts = histogram(quantity(labels, 300, dirichlet(3.0), rng()), labels)
    small = counts[counts.sum(axis=1) <= 3]
    assert len(small) > 80
    held = small.sum(axis=0)
    assert held.min() > 0.5 * held.mean()


def test_quantity_sizes_are_the_draw_rounded():
    labels = balanced(100)
    sizes = quantity(labels, 5, dirichlet(0.7), rng(2)).sizes.numpy()
    assert np.abs(sizes - rng(2).dirichlet(np.full(5, 0.7)) * 1000).max() < 1
    assert np.ptp(sizes) > 100


def test_fewer_samples_than_clients_is_refused():
    with pytest.raises(ConfigError, match=r"^federation\.size = 101: allowed is at most 100,"):
        partition(balanced(10), 101, config(), SEEDS)
    with pytest.raises(ConfigError, match=r"^federation\.size = 1: allowed is at most 0,"):
        partition(balanced(10), 1, config(ADR=0.0), SEEDS)


KINDS = [{}, *({"IID": False, "dirichlet_alpha": 0.7, "partition": split} for split in SPLITS)]
USE_ALL = [kind for kind in KINDS if kind.get("partition") != "drop_noniid"]


def test_the_schema_names_every_split():
    named = schema.hints(ClientConfig)["partition"]
    assert set(schema.get_args(named)) == {*SPLITS, "natural"}


def test_iid_goes_before_the_partition():
    labels = balanced(20)
    plain = partition(labels, 5, config(), SEEDS)
    for split in SPLITS:
        assert torch.equal(partition(labels, 5, config(partition=split), SEEDS).index, plain.index)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adr", [1.0, 0.3])
def test_same_seed_same_shares_and_another_seed_others(kind, adr):
    labels = balanced(100)
    a, b, c = (
        partition(labels, 5, config(**kind, ADR=adr), seeds) for seeds in (SEEDS, SEEDS, Seeds(1))
    )
    assert torch.equal(a.index, b.index)
    assert torch.equal(a.offsets, b.offsets)
    assert not torch.equal(a.index, c.index)


@pytest.mark.parametrize("kind", USE_ALL)
def test_adr_uses_that_share_of_every_class_at_random(kind):
    labels = balanced(100)
    shares = partition(labels, 5, config(**kind, ADR=0.3), SEEDS)
    used = torch.cat(list(shares))
    assert len(set(used.tolist())) == len(used) == 300
    assert np.bincount(labels[used]).tolist() == [30] * 10
    assert used.max() > 900


def test_the_smallest_dirichlet_share_is_given_after_the_cut():
    shares = partition(
        balanced(100), 5, config(IID=False, dirichlet_alpha=0.7, min_samples=30, ADR=0.3), SEEDS
    )
    assert shares.sizes.min() >= 30


@pytest.mark.parametrize("kind", USE_ALL)
def test_ten_thousand_clients_are_served_in_seconds(kind):
    labels = balanced(6000)
    kind = {**kind, "dirichlet_alpha": 100.0, "min_samples": 1}
    start = time.perf_counter()
    shares = partition(labels, 10_000, config(**kind), SEEDS)
    assert time.perf_counter() - start < 5
    assert len(shares) == 10_000
    assert shares.sizes.sum() == len(labels)
    assert shares.sizes.min() >= 1
    assert torch.equal(shares.index.sort().values, torch.arange(len(labels)))


def test_shares_end_where_clients_end_and_can_be_shared():
    shares = Shares.of_owners(np.array([2, 0, 2]), clients=4)
    assert [share.tolist() for share in shares] == [[1], [], [0, 2], []]
    for outside in (-1, 4):
        with pytest.raises(IndexError):
            shares[outside]
    assert shares.share_memory() is shares
    assert shares.index.is_shared()
    assert shares.offsets.is_shared()


@given(
    weights=st.lists(st.floats(0, 100), min_size=1, max_size=30).filter(lambda w: sum(w) > 1e-3),
    total=st.integers(0, 10_000),
)
def test_apportion_adds_up_and_stays_within_one_of_the_exact_share(weights, total):
    w = np.array(weights)
    counts = apportion(w, total)
    assert counts.sum() == total
    assert np.abs(counts - w / w.sum() * total).max() < 1 + 1e-6


def test_apportion_gives_leftovers_to_the_largest_remainders():
    assert apportion(np.array([1.5, 2.6, 2.9]), 7).tolist() == [1, 3, 3]


def test_draw_per_class_draws_each_class_its_count():
    labels = balanced(20, classes=3)
    drawn = draw_per_class(labels, np.array([0, 20, 7]), rng())
    assert np.bincount(labels[drawn], minlength=3).tolist() == [0, 20, 7]
    assert len(set(drawn.tolist())) == 27


@pytest.mark.parametrize("alpha", [1.0, 10.0, 100.0])
def test_dirichlet_class_is_the_rule_of_2102_02079_in_numpy(alpha):
    """For each class k: p_k ~ Dir_N(alpha), and client j gets p_kj of the class's samples.

    At the size of DROP's table VII: CIFAR-10 less the server's 1,000 samples, 50 clients.
    """
    labels = torch.arange(49_000) % 10
    config = ClientConfig(1, 0.1, 8, IID=False, dirichlet_alpha=alpha)
    shares = dirichlet_class(labels, 50, config, np.random.default_rng(5))
    generator = np.random.default_rng(5)
    p = np.stack([generator.dirichlet([alpha] * 50) for _ in range(10)])
    exact = 4900 * p
    counts = np.stack([np.bincount(labels[shares[j]].numpy(), minlength=10) for j in range(50)], 1)
    assert np.abs(counts - exact).max() < 1  # rounded, and no sample lost
    assert (counts.sum(1) == 4900).all()
    # The paper's skew: E p = 1 / N, Var p = (1 / N) (1 - 1 / N) / (N alpha + 1).
    expected = math.sqrt((1 / 50) * (1 - 1 / 50) / (50 * alpha + 1))
    assert (counts / 4900).std() == pytest.approx(expected, rel=0.15)
