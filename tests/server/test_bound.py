import pytest

from entity.config.schema import ConfigError, load
from entity.defenses.bulyan import Bulyan, BulyanArgs
from entity.defenses.krum import Krum, KrumArgs, MultiKrum, MultiKrumArgs
from entity.defenses.trimmed_mean import TrimmedMean, TrimmedMeanArgs
from entity.server.bound import BoundArgs, Condition
from entity.server.contract import Setting


def setting(n, malicious=0, federation=0):
    return Setting(n, 0, (1, 4), malicious, federation)


@pytest.mark.parametrize("condition", [Condition(2, 3), Condition(4, 3), Condition(2, 1)])
def test_the_largest_bound_holds_and_one_more_does_not(condition):
    for n in range(condition.spare, 60):
        assert condition.holds(n, condition.largest(n))
        assert not condition.holds(n, condition.largest(n) + 1)


def test_the_estimate_never_looks_at_the_true_number(make_updates, make_resources):
    updates = make_updates([[float(i)] for i in range(11)])
    for malicious in (0, 1, 5, None):
        resources = make_resources(updates, malicious_count=malicious, federation_size=11)
        assert Krum(KrumArgs(), resources).bound(11) == 4
        assert Bulyan(BulyanArgs(), resources).bound(11) == 2


def test_the_oracle_rounds_the_true_share_up_and_says_what_it_needs(make_updates, make_resources):
    updates = make_updates([[0.0]])
    resources = make_resources(updates, malicious_count=10, federation_size=50)
    args = KrumArgs(f="oracle")
    assert [Krum(args, resources).bound(n) for n in (25, 24, 5, 1)] == [5, 5, 1, 1]
    assert Krum.needs(args).true_malicious_count
    assert not Krum.needs(args).malicious_bound
    assert not Krum.needs(KrumArgs()).true_malicious_count
    assert Krum.needs(KrumArgs()).malicious_bound


def test_an_oracle_that_was_told_nothing_is_a_bug_not_a_zero(make_updates, make_resources):
    updates = make_updates([[0.0], [1.0]])
    with pytest.raises(AssertionError, match="true count"):
        Krum(KrumArgs(f="oracle"), make_resources(updates)).aggregate(updates)


@pytest.mark.parametrize(
    ("server", "args", "n", "remedy"),
    [
        (Krum, KrumArgs(f=3), 8, r"n >= 2f \+ 3 .* n = 8, f = 3: lower .*\.f or raise"),
        (MultiKrum, MultiKrumArgs(f=3), 8, "lower"),
        (Bulyan, BulyanArgs(f=2), 10, r"n >= 4f \+ 3"),
        (TrimmedMean, TrimmedMeanArgs(f=2, beta=None), 4, r"n >= 2f \+ 1"),
        (Krum, KrumArgs(), 2, r"f = 1: raise federation.round_size"),
        (MultiKrum, MultiKrumArgs(multi_k=8, f=3), 10, "n - f = 7"),
        (TrimmedMean, TrimmedMeanArgs(f=2), 9, "set beta to null"),
    ],
)
def test_an_impossible_bound_is_refused_with_a_remedy(server, args, n, remedy):
    with pytest.raises(ConfigError, match=remedy):
        server.check(args, setting(n))


def test_an_oracle_beyond_the_condition_is_refused():
    with pytest.raises(ConfigError, match=r"set .*f to estimate"):
        Krum.check(KrumArgs(f="oracle"), setting(10, malicious=25, federation=50))
    Krum.check(KrumArgs(f="oracle"), setting(25, malicious=10, federation=50))


def test_bounds_are_read_from_a_config():
    assert load(BoundArgs, {"f": 3}).f == 3
    assert load(BoundArgs, {"f": "oracle"}).f == "oracle"
    for wrong in (-1, 1.5, "true", None):
        with pytest.raises(ConfigError):
            load(BoundArgs, {"f": wrong})


def test_the_originals_multi_k_false_is_read_as_n_minus_f(make_updates, make_resources):
    args = load(MultiKrumArgs, {"multi_k": False, "f": 1})
    updates = make_updates([[float(i)] for i in range(6)])
    assert MultiKrum(args, make_resources(updates)).selected(6, 1) == 5
