import math
from collections import Counter
from dataclasses import replace

import pytest

from entity.config.fields import AttackConfig, FederationConfig
from entity.federation import malicious_clients, poisons_in, select
from entity.seeding import Seeds

ATTACK = AttackConfig("badnets", target_class=7)
FEDERATION = FederationConfig(size=50, number_of_malicious_clients=10, round_size=25)


def test_without_an_attack_nobody_is_malicious_whatever_the_number():
    assert malicious_clients(FEDERATION, None, Seeds(1)) == set()


def test_the_malicious_clients_are_drawn_uniformly_and_once():
    drawn = [malicious_clients(FEDERATION, ATTACK, Seeds(seed)) for seed in range(400)]
    assert all(len(bad) == 10 and bad <= set(range(50)) for bad in drawn)
    counts = Counter(client for bad in drawn for client in bad)
    sd = math.sqrt(400 * 0.2 * 0.8)
    assert all(abs(counts[client] - 80) < 4.5 * sd for client in range(50))
    assert malicious_clients(FEDERATION, ATTACK, Seeds(7)) == drawn[7]


def test_who_is_malicious_depends_on_no_other_stream():
    seeds = Seeds(7)
    bad = malicious_clients(FEDERATION, ATTACK, seeds)
    for number in range(5):
        select(FEDERATION, bad, number, seeds)
    another = replace(FEDERATION, round_size=3, rounds=9, malicious_client_strategy="enforced")
    assert malicious_clients(another, replace(ATTACK, DPR=0.1), seeds) == bad
    more = replace(FEDERATION, number_of_malicious_clients=12)
    assert bad < malicious_clients(more, ATTACK, seeds)  # a larger share keeps those it had


def test_who_is_malicious_says_nothing_about_who_is_selected():
    """Over the seeds, each early round has the hypergeometric mean of 5 malicious clients."""
    for number in (0, 1, 2):
        counts = []
        for seed in range(300):
            bad = malicious_clients(FEDERATION, ATTACK, Seeds(seed))
            counts.append(len(bad & set(select(FEDERATION, bad, number, Seeds(seed)))))
        assert abs(sum(counts) / 300 - 5) < 4 * math.sqrt(2.041 / 300)


def test_selection_is_distinct_increasing_and_a_function_of_seed_and_round():
    bad = malicious_clients(FEDERATION, ATTACK, Seeds(7))
    for number in range(1, 30):
        chosen = select(FEDERATION, bad, number, Seeds(7))
        assert len(set(chosen)) == 25
        assert list(chosen) == sorted(chosen)
        assert set(chosen) <= set(range(50))
        assert chosen == select(FEDERATION, bad, number, Seeds(7))
        assert chosen == select(FEDERATION, set(), number, Seeds(7))  # blind to who is malicious
    assert select(FEDERATION, bad, 1, Seeds(7)) != select(FEDERATION, bad, 2, Seeds(7))
    assert select(FEDERATION, bad, 1, Seeds(7)) != select(FEDERATION, bad, 1, Seeds(8))


def test_random_selection_draws_a_hypergeometric_number_of_malicious_clients():
    # N = 50, M = 10, n = 25: mean 5, variance n (M/N)(1 - M/N)(N - n)/(N - 1) = 2.041.
    bad = malicious_clients(FEDERATION, ATTACK, Seeds(3))
    rounds = 3000
    counts = [len(bad & set(select(FEDERATION, bad, t, Seeds(3)))) for t in range(rounds)]
    mean = sum(counts) / rounds
    variance = sum((count - mean) ** 2 for count in counts) / rounds
    assert abs(mean - 5) < 4 * math.sqrt(2.041 / rounds)
    assert abs(variance - 2.041) < 0.2
    appearances = Counter(c for t in range(rounds) for c in select(FEDERATION, bad, t, Seeds(3)))
    assert all(abs(appearances[c] - rounds / 2) < 5 * math.sqrt(rounds / 4) for c in range(50))


@pytest.mark.parametrize(
    ("size", "bad", "n", "quota"), [(50, 10, 25, 5), (10, 4, 5, 2), (6, 6, 3, 3)]
)
def test_enforced_selection_has_the_exact_share_in_every_round(size, bad, n, quota):
    config = FederationConfig(size, bad, n, malicious_client_strategy="enforced")
    malicious = malicious_clients(config, ATTACK, Seeds(3))
    seen = Counter()
    for number in range(200):
        chosen = select(config, malicious, number, Seeds(3))
        assert len(set(chosen)) == n
        assert list(chosen) == sorted(chosen)
        assert len(malicious & set(chosen)) == quota
        seen.update(chosen)
    assert set(seen) == set(range(size))  # the others change from round to round


def test_enforced_selection_without_an_attack_selects_as_many():
    config = replace(FEDERATION, malicious_client_strategy="enforced")
    assert len(select(config, set(), 1, Seeds(3))) == 25


@pytest.mark.parametrize(
    ("strategy", "start", "end", "poisoned"),
    [
        ("consistent", None, None, [1, 2, 3, 4, 5, 6]),
        ("consistent", 3, 4, [1, 2, 3, 4, 5, 6]),  # the window belongs to the other strategy
        ("after_convergence", 3, 5, [3, 4]),  # the end is exclusive
        ("after_convergence", 3, 4, [3]),  # single shot
        ("after_convergence", 4, None, [4, 5, 6]),
        ("after_convergence", 1, 2, [1]),
    ],
)
def test_the_poisoning_window(strategy, start, end, poisoned):
    attack = replace(
        ATTACK,
        participation_strategy=strategy,
        poisoning_start_round=start,
        poisoning_end_round=end,
    )
    assert [t for t in range(1, 7) if poisons_in(attack, t)] == poisoned


@pytest.mark.parametrize(
    ("strategy", "every", "poisoned"),
    [
        ("consistent", 3, [1, 4, 7]),
        ("consistent", 100, [1]),
        ("after_convergence", 2, [3, 5]),
        ("never", 2, []),
    ],
)
def test_attackers_that_stay_out_of_rounds(strategy, every, poisoned):
    attack = replace(
        ATTACK,
        participation_strategy=strategy,
        poisoning_start_round=3,
        poisoning_end_round=7,
        poisoning_every=every,
    )
    assert [t for t in range(1, 8) if poisons_in(attack, t)] == poisoned
