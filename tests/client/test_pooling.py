import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entity.client.poisoning import choose, pool_evenly


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def federation(sizes: list[tuple[int, int]], seed: int) -> tuple[list, list]:
    """Give client k `sizes[k] = (samples, poisoned)`, its share in random order."""
    order = torch.randperm(sum(n for n, _ in sizes), generator=generator(seed)) + 100
    shares = list(order.split([n for n, _ in sizes]))
    targets = [torch.randperm(n, generator=generator(seed))[:bad].sort().values for n, bad in sizes]
    return shares, targets


SIZES = st.lists(
    st.integers(0, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), max_size=6
)


@given(sizes=SIZES, seed=st.integers(0, 9))
def test_no_sample_is_lost_or_held_twice_and_the_poisoned_ones_stay_the_poisoned_ones(sizes, seed):
    shares, targets = federation(sizes, seed)
    pooled = pool_evenly(shares, targets, generator(seed))
    everything = sorted(i for share in shares for i in share.tolist())
    poisoned = sorted(
        i for share, rows in zip(shares, targets, strict=True) for i in share[rows].tolist()
    )
    assert sorted(i for samples, _ in pooled for i in samples.tolist()) == everything
    assert sorted(i for samples, rows in pooled for i in samples[rows].tolist()) == poisoned


@given(sizes=SIZES, seed=st.integers(0, 9))
def test_parts_differ_by_one_at_most_and_every_client_keeps_its_clean_rest(sizes, seed):
    shares, targets = federation(sizes, seed)
    pooled = pool_evenly(shares, targets, generator(seed))
    parts = [len(rows) for _, rows in pooled]
    assert parts == sorted(parts, reverse=True)
    assert not parts or max(parts) - min(parts) <= 1
    for (samples, rows), share, own in zip(pooled, shares, targets, strict=True):
        rest = [i for row, i in enumerate(share.tolist()) if row not in own.tolist()]
        assert samples[: len(rest)].tolist() == rest
        assert rows.tolist() == list(range(len(rest), len(samples)))


def test_a_client_without_victim_samples_poisons_as_many_as_the_others():
    labels = torch.tensor([0] * 40 + [1] * 20)
    shares = [torch.arange(40), torch.arange(40, 60)]
    targets = [choose(labels[share], 0, 7, 0.5, generator(k)) for k, share in enumerate(shares)]
    assert [len(rows) for rows in targets] == [20, 0]
    pooled = pool_evenly(shares, targets, generator())
    assert [len(rows) for _, rows in pooled] == [10, 10]
    assert (labels[pooled[1].samples[pooled[1].targets]] == 0).all()


def test_the_pool_is_shuffled_and_reproducible():
    shares, targets = federation([(300, 200), (300, 200)], 0)
    first, again, other = (pool_evenly(shares, targets, generator(seed)) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.samples, b.samples)
    part = first[0].samples[first[0].targets]
    own = torch.isin(part, shares[0])
    assert own.double().mean().item() == pytest.approx(0.5, abs=0.1)
    assert not torch.equal(part, other[0].samples[other[0].targets])


def test_the_shares_given_are_left_as_they_are():
    shares, targets = federation([(5, 3), (4, 4)], 3)
    before = [t.clone() for t in [*shares, *targets]]
    pool_evenly(shares, targets, generator())
    assert all(torch.equal(a, b) for a, b in zip(before, [*shares, *targets], strict=True))


def test_without_malicious_clients_or_poison_nothing_changes():
    assert pool_evenly([], [], generator()) == []
    shares, targets = federation([(3, 0), (2, 0)], 0)
    pooled = pool_evenly(shares, targets, generator())
    assert all(
        torch.equal(samples, share) for (samples, _), share in zip(pooled, shares, strict=True)
    )
    assert all(len(rows) == 0 for _, rows in pooled)
