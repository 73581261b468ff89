"""Blocks, ranks and the Pareto front of made-up runs."""

import pytest

from entity.report.blocks import blocks
from entity.report.entries import make_entries
from entity.report.pareto import Offer, draw_pareto, front, offers
from entity.report.point_names import places
from entity.report.rank_figure import draw_ranks, ranked
from entity.report.runs import Round, RunRecord

ROUND = {"selected": (), "malicious": frozenset(), "refused": frozenset(), "distilled": False}


def run(defense, attack, seed, mta, worst, seconds=0.1, arguments=None, model="cnn", **server):
    config = {
        "model": model,
        "client": {"attack": {"type": attack}},
        "federation": {"rounds": 1},
        "server": {"defense": {"type": defense, "defense_args": arguments or {}}, "held_out": 300}
        | server,
        "settings": {"seed": seed, "cuda": len(defense)},
        "name": f"{defense}-{attack}-{seed}",
    }
    summary = {
        "mta": {"last10": mta},
        "asr": {"last10": worst},
        "consistency": {"worst_asr": worst},
        "rounds": 1,
    }
    one = Round(
        1, mta, worst, reasons={}, weights={}, scores={}, seconds={"aggregate": seconds}, **ROUND
    )
    return RunRecord(config["name"], config, (one,), summary, None, ())


def many():
    found = []
    for attack, works in (("badnets", 0.9), ("dba", 0.8), ("weak", 0.2)):
        for seed in (1, 2):
            found += [
                run("undefended", attack, seed, 0.97, works, 0.01),
                run("median", attack, seed, 0.95, 0.6, 0.02),
                run("drop", attack, seed, 0.93, 0.03, 0.5),
                run("krum", attack, seed, 0.90, 0.7, 0.04),
            ]
    return make_entries(found)


def test_a_block_is_what_differs_by_the_defense_alone():
    found = blocks(many())
    assert len(found) == 6
    assert all(set(each.runs) == {"Undefended", "Median", "DROP", "Krum"} for each in found)
    assert sum(each.attacked for each in found) == 4  # not where nobody is attacked undefended


def test_where_nobody_attacks_no_attack_works():
    """Its trigger is judged, as a floor for its attacked twin."""
    entries = make_entries([run(name, "badnets", 1, 0.9, 0.1) for name in ("drop", "median")])
    for entry in entries:
        entry.run.config["client"]["attack"]["participation_strategy"] = "never"
    (block,) = blocks(entries)
    assert not block.attacked


def test_one_defense_with_two_settings_counts_as_two():
    runs = [run("drop", "badnets", 1, 0.9, 0.1, arguments={"K": K}) for K in (5, 10)]
    (block,) = blocks(make_entries([*runs, run("median", "badnets", 1, 0.9, 0.1)]))
    assert len(block.runs) == 3
    assert block.undefended is None
    assert block.attacked


def test_settings_of_a_defense_are_one_method_over_all_attacks_and_seeds():
    runs = [
        run(defense, attack, seed, 0.9, asr, arguments=arguments)
        for attack, seeds in (("badnets", (1,)), ("dba", (1, 2)))
        for seed in seeds
        for defense, asr, arguments in (
            ("undefended", 0.9, None),
            ("droplet", 0.5, None),
            ("drop", 0.1, {"K": 5}),
            ("drop", 0.2, {"K": 10}),
        )
    ]
    found = blocks(make_entries(runs))
    assert len(found) == 3
    methods = {"Undefended", "DROPlet", "DROP, K 5", "DROP, K 10"}
    assert all({*block.runs} == methods for block in found)
    (ranking,) = [each.ranking for each in ranked(found) if each.metric == "worst_asr"]
    assert ({*ranking.methods}, ranking.blocks) == (methods, 3)


@pytest.mark.parametrize(("model", "apart"), [("cnn", 1), ("resnet8", 2)])
def test_a_field_that_does_nothing_makes_no_other_block_and_no_other_group(model, apart):
    runs = [
        run(defense, "badnets", 1, 0.9, 0.1, model=model, bn_policy=policy)
        for policy in ("auto", "weighted")
        for defense in ("drop", "median")
    ]
    entries = make_entries(runs)  # the cnn has no BatchNorm statistics
    assert len({entry.group.index for entry in entries}) == 2 * apart
    assert len(blocks([entries[0], entries[3]])) == 2 - apart


def test_a_lone_run_is_no_block():
    assert blocks(make_entries([run("drop", "badnets", 1, 0.9, 0.1)])) == []


def test_ranks_by_asr_of_the_attacks_that_work_and_by_accuracy_of_all():
    asr, mta = ranked(blocks(many()))
    assert (asr.metric, asr.void, asr.ranking.blocks) == ("worst_asr", 2, 4)
    assert asr.ranking.methods == ("DROP", "Median", "Krum", "Undefended")
    assert (mta.metric, mta.void, mta.ranking.blocks) == ("mta", 0, 6)
    assert mta.ranking.methods == ("Undefended", "Median", "DROP", "Krum")
    figure = draw_ranks(asr)
    (dots,) = figure.traces
    assert dots["x"] == [1, 2, 3, 4]
    assert dots["error_x"]["value"] == pytest.approx(asr.ranking.critical / 2)
    assert "DROP 1.00" in figure.alt
    assert asr.ranking.said().startswith("DROP is first (p < 0.0001); not")


def test_costs_are_means_beside_the_undefended_run_of_the_block():
    found = offers(blocks(many()))
    drop = next(each for each in found if each.defense == "DROP")
    assert (drop.worst_asr, drop.seconds, drop.blocks) == (pytest.approx(0.03), 0.5, 4)
    assert drop.lost == pytest.approx(0.04)
    assert [each.defense for each in front(found, "lost")] == ["DROP", "Median", "Undefended"]
    figure = draw_pareto(found, "seconds")
    assert figure.layout["xaxis"]["type"] == "log"
    named = [text for trace in figure.traces for text in trace["text"]]
    assert sorted(named) == ["DROP", "Krum", "Median", "Undefended"]


def test_equal_offers_are_all_on_the_front():
    alike = [Offer(name, 0.1, 0.0, 1.0, 2) for name in "ab"]
    assert front(alike, "lost") == alike
    assert front([*alike, Offer("c", 0.1, 0.01, 0.5, 2)], "lost") == alike


def test_without_an_undefended_run_there_is_nothing_to_lose_to():
    runs = [run(name, "badnets", 1, 0.9, 0.1) for name in ("drop", "median")]
    assert offers(blocks(make_entries(runs))) == []


def test_names_of_points_cover_neither_points_nor_each_other_and_stay_inside():
    ends = (0.0, 1.0)
    assert places([(0.5, 0.5)], ["one"], ends, ends) == ["top center"]
    assert places([(0.01, 0.5)], ["one"], ends, ends) == ["middle right"]
    assert places([(0.01, 0.5)], ["one"], ends, ends, (2000, 400)) == ["top center"]
    assert places([(0.99, 0.99)], ["one"], ends, ends) == ["bottom left"]
    sides = ["top center", "middle right", "middle left", "bottom center"]
    assert places([(0.5, 0.5)] * 5, ["name"] * 5, ends, ends) == [*sides, ""]
    close = [(0.5, 0.5), (0.56, 0.5), (0.44, 0.5)]
    assert places(close, ["one", "two", "three"], ends, ends) == [
        "top center",
        "middle right",
        "middle left",
    ]


def test_defenses_without_room_for_their_name_are_told_by_hovering():
    many = [Offer(f"a long name {n}", 0.5, 0.01 + n / 1e5, 1.0, 2) for n in range(30)]
    figure = draw_pareto([*many, Offer("best", 0.1, 0.0, 1.0, 2)], "lost")
    (best, others) = figure.traces
    assert best["text"] == ["best"]
    assert "" in others["text"]
    assert len(others["customdata"]) == len(others["textposition"]) == 30
