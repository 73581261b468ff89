"""Consistency: the worst ASR of the rounds in which training may end."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entity.experiment import run
from entity.record.consistency import consistency

SHARES = st.none() | st.integers(0, 10_000)
"""In ten thousandths, as of so many test images."""


def test_rounds_of_poor_accuracy_do_not_count_by_hand():
    """The backdoor of round 1 is in a useless model; that of round 3 in one that would do."""
    rounds = [(1, 0.2, 1.0), (2, 0.7, 0.3), (3, 0.75, 0.6), (4, 0.8, 0.1)]
    found = consistency(rounds)
    assert (found.mta_at_least, found.rounds) == (pytest.approx(0.72), 2)
    assert (found.worst_asr, found.worst_round) == (0.6, 3)
    assert consistency(rounds, 0.7).rounds == 3
    assert consistency(rounds, 0.0).worst_asr == 1.0
    assert consistency(rounds, 0.99).worst_asr is None


def test_rounds_without_evaluation_and_runs_without_attack():
    assert consistency([]) is None
    assert consistency([(1, None, None)]) is None
    assert consistency([(1, 0.5, None), (2, 0.5, None)]).worst_asr is None
    found = consistency([(1, 0.9, None), (2, 0.9, 0.2)])
    assert (found.rounds, found.worst_asr, found.worst_round) == (2, 0.2, 2)


def test_a_round_at_the_level_counts_and_the_first_of_equals_is_named():
    found = consistency([(1, 0.81, 0.5), (2, 0.81, 0.5), (3, 0.9, 0.0)])  # 0.9 * 0.9 < 0.81 + 1 ulp
    assert (found.rounds, found.worst_round) == (3, 1)


@pytest.mark.parametrize("images", [700, 1_000, 10_000, 12_630, 18_800, 26_030])
def test_a_round_at_exactly_nine_tenths_counts_whatever_the_number_of_images(images):
    for tens in range(1, images // 10, 7):
        rounds = [(1, 9 * tens / images, 1.0), (2, 10 * tens / images, 0.0)]
        assert consistency(rounds).worst_asr == 1.0
        below = [(1, (9 * tens - 1) / images, 1.0), (2, 10 * tens / images, 0.0)]
        assert consistency(below).worst_asr == 0.0


@given(st.lists(st.tuples(SHARES, SHARES), max_size=12))
def test_it_is_the_largest_of_those_that_whole_numbers_find(pairs):
    def share(number):
        return None if number is None else number / 10_000

    found = consistency((i, share(m), share(a)) for i, (m, a) in enumerate(pairs, 1))
    known = [(m, a) for m, a in pairs if m is not None]
    if not known:
        assert found is None
        return
    acceptable = [a for m, a in known if 10 * m >= 9 * known[-1][0]]
    assert found.rounds == len(acceptable)
    judged = [a for a in acceptable if a is not None]
    assert found.worst_asr == share(max(judged, default=None))


def test_a_summary_has_it_and_the_victims_and_both_rates(experiment, tmp_path):
    changes = {"federation.rounds": 3, "client.attack.DPR": 0.5, "client.ADR": 0.2}
    summary = run(experiment(changes), tmp_path).summary
    lines = [json.loads(x) for x in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    found = consistency((x["round"], x["mta"], x["asr"]) for x in lines)
    assert summary["consistency"]["worst_asr"] == found.worst_asr
    assert summary["victim_accuracy"]["final"] == lines[-1]["metrics"]["victim_accuracy"]
    # 800 digits of 10 classes shared by 4 clients, all balanced: half of 20 zeros of 200.
    assert summary["dpr"]["of_victims"] == 0.5
    assert summary["dpr"]["of_all"] == pytest.approx(0.05, abs=0.003)


def test_a_run_that_nobody_attacks_has_neither_rate(experiment):
    for changes in (
        {"client.attack": None},
        {"client.attack.participation_strategy": "never"},
    ):
        summary = run(experiment(changes)).summary
        assert summary["dpr"] == {"of_victims": None, "of_all": None}
    assert run(experiment({"client.attack.type": "sign_flip"})).summary["dpr"]["of_all"] is None
