import json

import numpy as np
import pytest

from entity.metrics import lifespan
from entity.report import read_run
from entity.report.captions import captions
from entity.report.curves import draw_curves
from entity.report.durability import after_stop, draw_durability, durabilities, last_poisoned
from entity.report.entries import make_entries
from entity.report.heat import draw_heat, heats
from entity.report.seed_bands import over_seeds, series


def entries_of(paths):
    return make_entries([read_run(path) for path in paths])


def test_bands_are_means_and_sample_deviations_of_the_seeds(make_recorded):
    entries = entries_of([make_recorded(f"{s}", seed=s) for s in (1, 2, 3)])
    values = np.array([[each.asr for each in entry.run.rounds] for entry in entries])
    band = over_seeds([series(entry.run, "asr") for entry in entries])
    assert [point.at for point in band] == list(range(1, 13))
    assert [point.mean for point in band] == pytest.approx(values.mean(axis=0))
    assert [point.sd for point in band] == pytest.approx(values.std(axis=0, ddof=1))
    figure = draw_curves(entries)
    shade, line = (trace for trace in figure.traces if trace["yaxis"] == "y2")
    assert shade["fill"] == "toself"
    assert line["y"] == pytest.approx(values.mean(axis=0), abs=1e-5)
    upper = np.minimum(1, values.mean(axis=0) + values.std(axis=0, ddof=1))
    assert shade["y"][:12] == pytest.approx(upper, abs=1e-5)


def test_a_run_that_ended_early_counts_as_far_as_it_goes(make_recorded):
    entries = entries_of([make_recorded("a", seed=1), make_recorded("b", seed=2, stop=5)])
    band = over_seeds([series(entry.run, "mta") for entry in entries])
    assert [point.n for point in band] == [2] * 5 + [1] * 7
    assert band[-1].sd is None


def test_runs_of_other_engines_are_one_group_and_of_other_rates_are_two(make_recorded):
    entries = entries_of(
        [make_recorded("a"), make_recorded("b", seed=2), make_recorded("c", dpr=0.25)]
    )
    assert [entry.group.index for entry in entries] == [0, 0, 1]
    assert entries[0].group.label == "DPR 0.5"
    assert len({entry.label for entry in entries}) == 3


def test_a_run_from_before_a_field_is_one_with_it_at_its_default(make_recorded):
    paths = [make_recorded("new"), make_recorded("old", seed=2), make_recorded("other", seed=3)]
    configs = [json.loads((path / "config.json").read_text()) for path in paths]
    configs[0]["client"]["prox_mu"] = 0.0
    configs[1]["client"].pop("prox_mu", None)
    configs[2]["client"]["prox_mu"] = 0.5
    for path, config in zip(paths, configs, strict=True):
        (path / "config.json").write_text(json.dumps(config))
    assert [entry.group.index for entry in entries_of(paths)] == [0, 0, 1]


def test_durability_is_counted_from_the_last_poisoned_round(make_recorded):
    paths = [make_recorded(f"{s}", "undefended", seed=s, rounds=20, window=(3, 8)) for s in (1, 2)]
    entries = entries_of([*paths, make_recorded("ever", "undefended", rounds=20)])
    (found,) = durabilities(entries)
    asr = [[each.asr for each in entry.run.rounds] for entry in entries[:2]]
    assert after_stop(entries[0].run)[0] == asr[0][7 - 1]  # round 7 is the last poisoned one
    assert [point.at for point in found.band] == list(range(14))
    assert found.lifespan.mean == np.mean([lifespan(one[7:]) for one in asr])
    assert not found.outlives
    assert draw_durability([found]) is not None


def test_a_backdoor_that_is_still_there_at_the_end_is_said_to_live_at_least_so_long(make_recorded):
    entries = entries_of([make_recorded("a", "undefended", rounds=9, window=(1, 8))])
    (found,) = durabilities(entries)
    assert found.outlives
    assert found.lifespan.mean == 2


def test_a_seed_that_was_run_again_has_one_life(make_recorded):
    paths = [make_recorded(name, rounds=20, window=(1, 8), seed=1) for name in ("a", "again")]
    (once,), (twice,) = durabilities(entries_of(paths[:1])), durabilities(entries_of(paths))
    assert twice.lifespan == once.lifespan
    assert twice.band == once.band


def test_without_an_end_of_the_attack_or_before_it_there_is_no_durability(make_recorded):
    cut = make_recorded("cut", rounds=20, window=(3, 8), stop=6)
    assert durabilities(entries_of([make_recorded("ever"), cut])) == []


def test_a_heat_map_holds_means_over_seeds_at_their_place(make_recorded):
    kinds = [(dpr, bad, seed) for dpr in (0.5, 0.1) for bad in (2, 4) for seed in (1, 2)]
    paths = [
        make_recorded(f"{dpr}-{bad}-{seed}", "flame", dpr=dpr, malicious=bad, seed=seed, rounds=4)
        for dpr, bad, seed in kinds
    ]
    entries = entries_of(paths)
    (heat,) = heats(entries)
    assert (heat.dprs, heat.shares) == ((0.1, 0.5), (0.2, 0.4))
    for row, bad in enumerate((2, 4)):
        for column, dpr in enumerate((0.1, 0.5)):
            values = [
                entry.outcome.asr
                for entry, kind in zip(entries, kinds, strict=True)
                if kind[:2] == (dpr, bad)
            ]
            assert heat.asr[row][column].mean == pytest.approx(np.mean(values))
            assert heat.asr[row][column].n == 2
    cells = draw_heat(heat).traces[0]
    assert cells["z"][1][0] == round(heat.asr[1][0].mean, 4)


def test_a_heat_map_is_of_finished_runs_alone(make_recorded):
    paths = [
        make_recorded(f"{dpr}-{bad}-{seed}", "flame", dpr=dpr, malicious=bad, seed=seed, **more)
        for dpr in (0.5, 0.1)
        for bad in (2, 4)
        for seed, more in ((1, {"rounds": 4}), (2, {"rounds": 4, "stop": 2}))
    ]
    entries = entries_of(paths)
    (heat,) = heats(entries)
    assert {cell.n for row in heat.asr for cell in row} == {1}
    assert captions(entries, ["heat"])["heat"].endswith("Unfinished runs are left out: 4.")


def test_captions_say_how_many_seeds_lines_have(make_recorded):
    paths = [make_recorded(f"a{seed}", "krum", seed=seed) for seed in (1, 2, 3)]
    paths += [make_recorded("b", "flame", seed=1)]
    assert "Lines are means over 1 to 3 seeds;" in captions(entries_of(paths), ["asr"])["asr"]


def test_there_is_a_heat_map_for_every_defense_and_only_if_both_axes_vary(make_recorded):
    def some(defense, dprs):
        return [
            make_recorded(f"{defense}{dpr}{bad}", defense, dpr=dpr, malicious=bad, rounds=1)
            for dpr in dprs
            for bad in (2, 4)
        ]

    entries = entries_of([*some("flame", (0.1, 0.5)), *some("krum", (0.1, 0.5))])
    assert [heat.label for heat in heats(entries)] == ["FLAME", "Krum"]
    assert heats(entries_of(some("drop", (0.5,)))) == []


def test_the_last_poisoned_round_is_one_of_those_that_are(make_recorded):
    (entry,) = entries_of([make_recorded("a", rounds=12, window=(1, 10))])
    attack = entry.run.config["client"]["attack"]
    assert last_poisoned(entry.run) == 9
    attack["poisoning_every"] = 5
    assert last_poisoned(entry.run) == 6  # rounds 1 and 6 are poisoned
    assert 0 in after_stop(entry.run)
    attack["poisoning_end_round"] = 1
    assert last_poisoned(entry.run) is None
