import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from entity.config.shipped import shipped
from entity.report import read_run
from entity.report.artifacts import Images
from entity.report.curves import draw_curves
from entity.report.dendrogram import draw_tree
from entity.report.entries import make_entries
from entity.report.generated_images import BUDGET, draw_sheet, draw_sheets
from entity.report.phases import draw_phases, seconds_by_phase
from entity.report.settings import compare
from entity.report.summary import verdict
from entity.report.verdict_map import draw_verdicts
from entity.results.formatting import NBSP
from entity.setup import resolve


def rewrite(path, lines, summary=None):
    (path / "rounds.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    if summary is None:
        (path / "summary.json").unlink(missing_ok=True)
    else:
        (path / "summary.json").write_text(json.dumps(summary))


def entry_of(path):
    return make_entries([read_run(path)])[0]


@pytest.fixture
def small(make_run):
    """Two rounds of clients 0, 1 (malicious) and 10, 9: every kind of verdict occurs."""
    path = make_run("small", "undefended", rounds=2, clients=4)
    rewrite(
        path,
        [
            {
                "round": 1,
                "mta": 0.5,
                "asr": 0.8,
                "selected": [0, 1, 10],
                "malicious": [0, 1],
                "refused": [1],
                "reasons": {"1": "norm <2>"},
                "scores": {"1": 3.14159},
                "weights": {"0": 0.5},
                "seconds": {"train": 3, "aggregate": 1},
            },
            {
                "round": 2,
                "mta": 0.7,
                "asr": None,
                "selected": [0, 9, 10],
                "malicious": [],
                "refused": [10],
                "seconds": {"train": 3, "aggregate": 1},
                "diagnostics": {"distilled": 1},
            },
        ],
    )
    return path


def test_an_outcome_without_summary_is_worked_out_from_the_rounds(small):
    outcome = entry_of(small).outcome
    assert (outcome.mta, outcome.asr, outcome.asr_max) == (pytest.approx(0.6), 0.8, 0.8)
    assert (outcome.refused, outcome.judged) == (2, 6)
    assert outcome.tpr == 1 / 2  # clients 0 and 1 poisoned, 1 was refused
    assert outcome.fpr == 1 / 4  # 10 twice, 0 and 9 were honest; 10 was refused once
    assert outcome.seconds == 8


def test_the_summary_goes_before_what_the_rounds_say(make_run):
    path = make_run("said", rounds=3)
    summary = {"mta": {"last10": 0.25}, "detection": {"tpr": 0.125}, "seconds": {"total": 99}}
    (path / "summary.json").write_text(json.dumps(summary))
    outcome = entry_of(path).outcome
    assert (outcome.mta, outcome.tpr, outcome.seconds) == (0.25, 0.125, 99)


def test_verdicts_stand_malicious_first_and_one_value_a_kind(small):
    drawn = draw_verdicts(entry_of(small))
    assert drawn is not None
    cells = drawn.figure.traces[0]
    assert drawn.figure.layout["yaxis"]["ticktext"] == ["◆ 0", "◆ 1", "9", "10"]
    assert cells["z"] == [[3, 0], [2, None], [None, 0], [0, 1]]
    assert drawn.counts == (3, 1, 1, 1)
    assert "norm &lt;2&gt;<br>score 3.14" in cells["customdata"][1][0]
    assert "weight 0.5" in cells["customdata"][0][0]


def test_poisoned_and_accepted_bears_a_cross_in_its_cell(small):
    _, crosses, rings = draw_verdicts(entry_of(small)).figure.traces
    assert (crosses["x"], crosses["y"], crosses["marker"]["symbol"]) == ([1], [0], "x-thin")
    assert (rings["x"], rings["y"]) == ([2], [3])


def test_rows_get_thinner_and_end_with_very_many_clients(make_run):
    few = draw_verdicts(entry_of(make_run("few", rounds=2, clients=10)))
    many = draw_verdicts(entry_of(make_run("many", rounds=2, clients=100, malicious=20)))
    most = draw_verdicts(entry_of(make_run("most", rounds=1, clients=500, malicious=20)))
    assert few.figure.height < many.figure.height < 700
    assert most.left_out == 100
    assert len(most.figure.traces[0]["z"]) == 400


def test_a_distillation_between_evaluations_is_marked_on_the_line(small):
    lines = [json.loads(line) for line in (small / "rounds.jsonl").read_text().splitlines()]
    rewrite(small, [*lines, {"round": 3, "asr": 0.4}])
    marks = [t for t in draw_curves([entry_of(small)]).traces if t["mode"] == "markers"]
    assert [(mark["x"], mark["y"]) for mark in marks] == [([2], [pytest.approx(0.6)])]


def test_without_any_asr_there_is_one_panel_and_no_empty_axis(make_run):
    path = make_run("clean", "undefended", rounds=2)
    rewrite(path, [{"round": 1, "mta": 0.3}, {"round": 2, "mta": 0.6}], {})
    figure = draw_curves([entry_of(path)])
    assert [key for key in figure.layout if key.startswith("yaxis")] == ["yaxis1"]


def test_phases_add_up_to_the_total_with_steps_in_place_of_their_aggregate(make_run):
    path = make_run("timed", rounds=1)
    seconds = {"train": 10, "aggregate": 5, "evaluate": 2, "total": 18, "distill": 3, "cluster": 1}
    (path / "summary.json").write_text(json.dumps({"seconds": seconds}))
    assert seconds_by_phase(read_run(path)) == {
        "train": 10,
        "distill": 3,
        "cluster": 1,
        "aggregate": 1,
        "evaluate": 2,
        "other": 1,
    }


def test_what_is_added_up_while_clients_train_is_no_time_beside_their_training(make_run):
    path = make_run("streamed", rounds=1)
    seconds = {"train": 4, "aggregate": 0.5, "evaluate": 0.5, "aggregate_accumulate": 3, "total": 5}
    (path / "summary.json").write_text(json.dumps({"seconds": seconds}))
    assert seconds_by_phase(read_run(path)) == {
        "train": 1,
        "accumulate": 3,
        "aggregate": 0.5,
        "evaluate": 0.5,
    }


def test_without_a_summary_a_round_takes_as_long_as_its_phases_and_not_their_parts_too(small):
    seconds = {"train": 4, "aggregate": 2, "evaluate": 1, "aggregate_distances": 1.5, "total": 7}
    rewrite(small, [{"round": n, "mta": 0.5, "seconds": seconds} for n in (1, 2)])
    assert entry_of(small).outcome.seconds == 14


def test_a_partial_run_takes_its_phases_from_the_rounds(small):
    assert seconds_by_phase(read_run(small)) == {"train": 6, "aggregate": 2}
    assert draw_phases([entry_of(small)]) is not None


def test_tiles_hold_the_pixels_of_the_images_with_a_gap_between():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 6, 4), dtype=np.uint8)
    sheet = draw_sheet(Images(7, pixels))
    decoded = base64.b64decode(sheet.src.removeprefix("data:image/png;base64,"))
    shown = np.asarray(Image.open(io.BytesIO(decoded)))
    assert shown.shape == (6 + 1 + 6, 4 * 4 + 3, 4)
    assert np.array_equal(shown[7:13, :4, :3], np.moveaxis(pixels[4], 0, -1))
    assert (shown[6, :, 3] == 0).all()  # transparent between the rows


def test_many_sheets_show_fewer_tiles_to_keep_the_page_small():
    noise = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8)
    sheets = draw_sheets([Images(1, noise)] * 6 + [None])
    assert sheets[-1] is None
    assert 4 <= sheets[0].shown < 64
    assert sum(len(sheet.src) for sheet in sheets[:-1]) <= BUDGET


def test_only_branches_of_malicious_clients_alone_are_heavy(make_run):
    path = make_run("tree", "droplet", rounds=2)
    entry = entry_of(path)
    drawn = draw_tree(entry, entry.run.tree)
    mixed, pure, *_ = drawn.figure.traces
    assert drawn.malicious == 4
    # The made-up clouds are far apart: 4 malicious leaves take 3 joins among themselves.
    assert pure["x"].count(None) == 3
    assert mixed["x"].count(None) == 9 - 3


def test_settings_are_parted_into_shared_and_differing(make_run):
    runs = [make_run("a", "drop", rounds=2), make_run("b", "droplet", rounds=2)]
    settings = compare(make_entries([read_run(one) for one in runs]))
    assert ("lr", "0.05") in settings.common["client"]
    assert settings.differing.head == ["field", "DROP", "DROPlet"]
    assert ["server.defense.type", "drop", "droplet"] in settings.differing.rows
    distill = ["server.defense.defense_args.distill_every", "5", "–"]  # noqa: RUF001
    assert distill in settings.differing.rows  # no field of DROP has a default of that name
    assert not any("federation" in row[0] for row in settings.differing.rows)


def test_what_nobody_chose_is_folded(tmp_path):
    """`K` is 5 in DROP's paper and 10 in the shipped configuration; 7 is somebody's choice."""
    runs = []
    for name, defense, changes in (
        ("a", "drop", {}),
        ("b", "drop_plus", {}),
        ("c", "drop", {"K": 7, "seed": 3}),
    ):
        config = resolve.experiment(
            resolve.read(shipped(f"mnist5k/{defense}")), list(changes.items())
        )
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(resolve.to_json(config)))
        runs.append(tmp_path / name)
    two = compare(make_entries([read_run(run) for run in runs[:2]]))
    assert [row[0] for row in two.differing.rows] == ["server.defense.type"]
    folded = {row[0]: row[1:] for row in two.differing_defaults.rows}
    assert folded["server.defense.defense_args.K"] == ["10", "–"]  # noqa: RUF001
    assert two.differing_defaults.fields == len(folded) > 10
    shared = {name for fields in two.common.values() for name, _ in fields}
    defaults = {name for fields in two.common_defaults.values() for name, _ in fields}
    assert {"dataset", "rounds"} <= shared
    assert {"IID", "attack.DPR"} <= defaults  # 0.5, which the shipped ones leave as it is
    assert not shared & defaults
    three = compare(make_entries([read_run(run) for run in runs]))
    chosen = {row[0] for row in three.differing.rows}
    names = {"server.defense.type", "server.defense.defense_args.K", "settings.seed"}
    assert chosen == names


def test_runs_of_one_name_are_told_apart_and_seeds_share_a_colour(make_run):
    kinds = [("drop", 0), ("drop", 1), ("droplet", 0), ("droplet", 0)]
    paths = [
        make_run(f"{index}", kind, seed=seed, rounds=1, name="same")
        for index, (kind, seed) in enumerate(kinds)
    ]
    entries = make_entries([read_run(path) for path in paths])
    labels = [entry.label for entry in entries]
    assert len(set(labels)) == 4
    assert labels[:2] == ["same, DROP, seed 0", "same, DROP, seed 1"]
    colours = [entry.group.colour for entry in entries]
    assert colours[0] == colours[1] != colours[2] == colours[3]


def test_the_opening_names_the_best_and_the_worst_run(three_runs):
    sentence = verdict(make_entries([read_run(path) for path in three_runs]))
    assert sentence.startswith("DROP has the lowest attack success rate")
    assert "Undefended has the highest" in sentence


def test_the_opening_compares_finished_runs_under_attack(make_recorded):
    made = {
        "undefended": make_recorded("a", "undefended"),
        "drop": make_recorded("b", "drop"),
        "none": make_recorded("c", "undefended", attack=None),
        "half": make_recorded("d", "krum", stop=1),
    }
    summary = json.loads((made["none"] / "summary.json").read_text())
    summary["asr"]["last10"] = 0.004  # as a twin that never attacks is judged on its trigger
    (made["none"] / "summary.json").write_text(json.dumps(summary))

    def said(*names):
        runs = make_entries([read_run(made[name]) for name in names])
        return verdict(runs).replace(NBSP, " ")

    assert " has the lowest attack success rate of the 2 runs, " in said("undefended", "drop")
    told = said("undefended", "none", "drop", "half")
    assert " has the lowest attack success rate of the 2 finished attacked runs, " in told
    assert told.split(" has the lowest")[0].endswith("drop-badnets-seed1")
    assert "of the 2 attacked runs" in said("undefended", "drop", "none")
    assert "no-attack-seed1 ends with an attack success rate of 0.4 %" in said("none")
    told = said("half", "none")
    assert "no-attack-seed1 has the lowest attack success rate of the 2 runs" in told


def test_the_opening_names_all_that_are_equally_good(make_run):
    kinds = ("undefended", "droplet", "drop", "flame", "krum", "median", "rfa")
    runs = []
    for place, kind in enumerate(kinds):
        path = make_run(kind, "undefended", rounds=1, name=kind)
        config = json.loads((path / "config.json").read_text())
        config["server"]["defense"]["type"] = kind
        (path / "config.json").write_text(json.dumps(config))
        asr = 0.9 if kind == "undefended" else 0.0001 * place
        summary = {"asr": {"last10": asr}, "mta": {"last10": 0.95 + place / 1000}, "defense": kind}
        summary["consistency"] = {"worst_asr": asr}
        (path / "summary.json").write_text(json.dumps(summary))
        runs.append(make_entries([read_run(path)])[0].run)

    def said(*which):
        return verdict(make_entries([runs[one] for one in which])).replace(NBSP, " ")

    assert said(0, 1, 2) == (
        "DROPlet and DROP share the lowest attack success rate of the 3 runs, 0.0 %, with "
        "main-task accuracies from 95.1 % to 95.2 %; Undefended has the highest, 90.0 %, with a "
        "main-task accuracy of 95.0 %."
    )
    runs[2].summary["consistency"] = {"worst_asr": 0.269}
    assert "of the 2 runs, 0.0 % (worst 26.9 %), with a main-task" in said(0, 2)
    assert "of the 3 runs, 0.0 % (worst up to 26.9 %), with main-task" in said(0, 1, 2)
    assert "DROP ends with an attack success rate of 0.0 % (worst 26.9 %) and" in said(2)
    assert "attack success rate of 0.0 % (worst up to 26.9 %), with main-" in said(1, 2)
    runs[2].summary["consistency"] = {"worst_asr": 0.0002}
    assert said(0, 2, 3, 1).startswith("DROP, FLAME and DROPlet share the lowest")
    assert said(1, 2).startswith("Both runs end with an attack success rate of 0.0 %, with main-")
    assert said(0, 4, 5).startswith("Krum has the lowest")  # 0.04 % reads 0.0 %, 0.05 % does not
    runs[5].summary["asr"]["last10"] = runs[6].summary["asr"]["last10"] = 0.0
    assert said(*range(7)).startswith("DROPlet, DROP, FLAME, Krum and 2 more share the lowest")
