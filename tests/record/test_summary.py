"""A run in numbers."""

from statistics import fmean

import pytest

from entity.experiment import run
from entity.record.summary import peak_memory_mb, tail_statistics, total_seconds
from entity.report.entries import outcome
from entity.report.runs import read_run


def test_statistics_of_the_last_rounds_by_hand():
    rounds = [{"asr": value} for value in [1.0, 0.9, *[0.1 * n for n in range(10)]]]
    found = tail_statistics(rounds, "asr")
    assert found["final"] == pytest.approx(0.9)
    assert found["last10"] == pytest.approx(0.45)
    assert found["max_last10"] == pytest.approx(0.9)  # not the 1.0 of before


def test_rounds_that_were_not_evaluated_do_not_count():
    gaps = [{"asr": None}, {"asr": 0.2}, {"asr": None}, {"asr": 0.4}]
    assert tail_statistics(gaps, "asr") == pytest.approx(
        {"final": 0.4, "last10": 0.3, "max_last10": 0.4}
    )
    empty = {"final": None, "last10": None, "max_last10": None}
    assert tail_statistics([], "asr") == tail_statistics([{"asr": None}], "asr") == empty


def test_seconds_add_up_by_phase():
    rounds = [{"seconds": {"train": 1.5, "evaluate": 0.25}}, {"seconds": {"train": 2.0}}]
    assert total_seconds(rounds) == {"train": 3.5, "evaluate": 0.25}


def test_peak_memory_is_in_megabytes():
    assert 50 < peak_memory_mb() < 1e6
    assert 0 <= peak_memory_mb(of_workers=True) < 1e6


def test_with_eval_every_3_the_last_ten_evaluated_rounds_reach_back_over_all_thirty(
    experiment, tmp_path
):
    """A finished run's summary, an unfinished one's page and `drop watch` say the same."""
    result = run(
        experiment({"federation.rounds": 30, "settings.eval_every": 3, "client.ADR": 0.02}),
        tmp_path,
    )
    lines = [line for line in result.rounds if line["mta"] is not None]
    assert [line["round"] for line in lines] == [*range(3, 31, 3)]
    evaluated = [line["mta"] for line in lines]
    assert result.summary["mta"]["last10"] == pytest.approx(fmean(evaluated))
    assert fmean(evaluated) != pytest.approx(fmean(evaluated[-4:]))  # those of the last ten rounds
    (tmp_path / "summary.json").unlink()
    assert outcome(read_run(tmp_path)).mta == pytest.approx(fmean(evaluated))
    assert tail_statistics(result.rounds, "mta") == result.summary["mta"]
