import csv
import io
import json
import math
import re

import numpy as np
import pytest
from scipy import stats

from entity.cli import main
from entity.config.schema import ConfigError
from entity.report import TableRequest, read_run
from entity.report.entries import make_entries
from entity.report.page import render
from entity.report.paper_table_text import csv as to_csv
from entity.report.paper_table_text import latex, markdown
from entity.report.significance import holm, paired_p
from entity.report.summary import verdict
from entity.results.formatting import NBSP

ASR = {
    ("krum", "badnets"): (0.50, 0.60, 0.70),
    ("flame", "badnets"): (0.10, 0.21, 0.29),
    ("krum", "dba_like"): (0.20, 0.20, 0.20),
    ("flame", "dba_like"): (0.20, 0.25, 0.21),
}


def seeded(*values):
    return {str(seed): value for seed, value in enumerate(values)}


@pytest.fixture
def entries(make_recorded):
    """Two defenses by two attacks by three seeds whose numbers are those of `ASR`."""
    paths = []
    for (defense, attack), values in ASR.items():
        for seed, value in enumerate(values):
            path = make_recorded(f"{defense}-{attack}-{seed}", defense, seed=seed, rounds=1)
            config, summary = (
                json.loads((path / name).read_text()) for name in ("config.json", "summary.json")
            )
            config["client"]["attack"]["type"] = summary["attack"] = attack
            summary["asr"]["last10"], summary["mta"]["last10"] = value, 0.9
            (path / "config.json").write_text(json.dumps(config))
            (path / "summary.json").write_text(json.dumps(summary))
            paths.append(path)
    return make_entries([read_run(path) for path in paths])


def test_a_paired_test_by_hand():
    # Differences 1, 2, 3: mean 2, sd 1, t = 2 sqrt(3) = 3.4641 with 2 degrees of freedom, where
    # p = 1 - t / sqrt(2 + t^2) = 1 - 3.4641 / sqrt(14).
    by_hand = 1 - 2 * math.sqrt(3) / math.sqrt(14)
    assert paired_p(seeded(2, 4, 6), seeded(1, 2, 3)) == pytest.approx(by_hand)


def test_a_paired_test_against_the_one_sample_test_of_the_differences():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 7))
    expected = stats.ttest_1samp(ours - theirs, 0).pvalue
    assert paired_p(seeded(*ours), seeded(*theirs)) == pytest.approx(expected)


def test_only_shared_seeds_count_and_fewer_than_three_are_no_test():
    first = {"1": 0.1, "2": 0.3, "3": 0.2, "9": 100.0}
    second = {"1": 0.2, "2": 0.5, "3": 0.5, "8": -100.0}
    assert paired_p(first, second) == pytest.approx(1 - 2 * math.sqrt(3) / math.sqrt(14))
    assert paired_p({"1": 0.0, "2": 1.0}, {"1": 5.0, "2": 7.0}) is None
    assert paired_p(seeded(1, 2, 3), {"7": 1.0, "8": 2.0, "9": 3.0}) is None


def test_differences_without_a_spread_are_no_difference_or_no_test():
    assert paired_p(seeded(0.1, 0.2, 0.3), seeded(0.1, 0.2, 0.3)) == 1.0
    assert paired_p(seeded(1.1, 1.2, 1.3), seeded(0.1, 0.2, 0.3)) is None


def test_holm_by_the_definition():
    p = [0.02, 0.001, 0.3, 0.015, 0.9]
    ranked = sorted(p)
    for value, adjusted in zip(p, holm(p), strict=True):
        rank = ranked.index(value)
        assert adjusted == min(1, max((5 - i) * ranked[i] for i in range(rank + 1)))
    assert holm([]) == []


def test_cells_are_means_and_sample_deviations_of_their_seeds(entries):
    table = TableRequest().table(entries)
    assert [axis.path for axis in table.layout.rows] == ["defense"]
    assert [axis.path for axis in table.layout.columns] == ["attack"]
    for row, cells in zip(table.rows, table.cells, strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            if column.metric == "asr":
                values = ASR[(*row, *column.values)]
                assert cell.spread.mean == pytest.approx(np.mean(values))
                assert cell.spread.sd == pytest.approx(np.std(values, ddof=1))
                assert cell.spread.n == 3


def test_bold_is_the_lowest_asr_and_the_dagger_follows_the_test(entries):
    text = markdown(TableRequest().table(entries))
    krum = next(line for line in text.splitlines() if line.startswith("| Krum"))
    flame = next(line for line in text.splitlines() if line.startswith("| FLAME"))
    # badnets: differences 0.40, 0.39, 0.41; t = 0.4 / (0.01 / sqrt 3) = 69.3, one pair: p = 0.0002
    assert "60.0 ± 10.0 †" in krum
    assert "**20.0** ± 9.5 |" in flame
    # the other attack: differences 0, 0.05, 0.01 are no evidence
    assert "**20.0** ± 0.0 |" in krum
    assert "22.0 ± 2.6 |" in flame
    assert krum.count("**90.0**") == flame.count("**90.0**") == 2  # what reads alike is bold alike
    assert "n = 3" in text
    assert "sample standard deviation" in text
    assert "paired t-test" in text


def test_all_pairs_of_a_column_are_corrected_for_but_only_those_with_a_named_row(make_recorded):
    names = ("krum", "flame", "droplet")
    runs = [
        make_recorded(f"{name}{seed}", name, seed=seed, rounds=3)
        for name in names
        for seed in range(4)
    ]
    entries = make_entries([read_run(run) for run in runs])
    values = {
        name: {
            e.run.setting("settings.seed"): e.outcome.asr for e in entries if e.run.defense == name
        }
        for name in names
    }
    raw = {
        pair: stats.ttest_rel(
            *([values[name][s] for s in sorted(values[name])] for name in pair)
        ).pvalue
        for pair in (("krum", "flame"), ("krum", "droplet"), ("flame", "droplet"))
    }
    best = min(names, key=lambda name: np.mean(list(values[name].values())))
    assert best == "droplet"
    asr = 1
    free = TableRequest().table(entries)
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    assert free.cells[0][asr].p == pytest.approx(adjusted["krum", "droplet"])
    assert free.cells[1][asr].p == pytest.approx(adjusted["flame", "droplet"])
    assert free.cells[2][asr].p is None
    fixed = TableRequest(against="krum").table(entries)
    two = holm([raw["krum", "flame"], raw["krum", "droplet"]])
    assert [fixed.cells[row][asr].p for row in (1, 2)] == pytest.approx(two)
    assert "differs from Krum" in fixed.note()


def test_what_differs_by_the_same_in_all_seeds_has_a_mark_of_its_own(make_recorded):
    """0 and 100 % in every seed: the clearest difference, of which no paired test can be made."""
    entries = asr_of(make_recorded, {"krum": [1.0] * 3, "flame": [0.0] * 3})
    table = TableRequest().table(entries)
    assert '<span class="mark">‡</span>' in render(entries, "t", table)
    text = markdown(table)
    assert "100.0 ± 0.0 ‡" in text
    assert "**0.0** ± 0.0 |" in text
    assert "No test was made" not in text
    assert "‡" not in text.split("Percent")[1]
    assert "A double dagger marks what differs from the bold one by the same in all" in text
    assert r"\ddagger" in latex(table, "t")


def test_pairs_that_cannot_be_tested_count_in_holms_family(make_recorded):
    asr = {"krum": [1.0, 1.0, 1.0], "flame": [0.0, 0.0, 0.0], "rfa": [0.5, 0.51, 0.52]}
    table = TableRequest().table(asr_of(make_recorded, asr))
    place = [column.metric for column in table.columns].index("asr")
    rows = {row[0]: cells[place] for row, cells in zip(table.rows, table.cells, strict=True)}
    assert rows["krum"].p is None
    assert rows["krum"].alike
    untold = paired_p(seeded(*asr["rfa"]), seeded(*asr["flame"]))
    assert rows["rfa"].p == pytest.approx(min(1, 3 * untold))


def test_a_seed_that_was_run_again_counts_once(make_recorded):
    paths = [
        make_recorded(name, "krum", seed=seed, rounds=1)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    for path, asr, threads in zip(paths, (0.2, 0.6, 0.5), (1, 4, 1), strict=True):
        change(path, "summary.json", lambda found, asr=asr: found["asr"].update(last10=asr))
        change(
            path, "config.json", lambda found, n=threads: found["settings"].update(num_threads=n)
        )
    found = make_entries([read_run(path) for path in paths])
    assert {entry.group.index for entry in found} == {0}
    table = TableRequest().table(found)
    (cells,) = table.cells
    cell = cells[[column.metric for column in table.columns].index("asr")]
    assert cell.seeds == {"1": pytest.approx(0.4), "2": 0.5}
    assert "1 run repeats a seed of a cell: a seed counts once, by its mean." in table.note()
    assert f"attack success rate of 45.0{NBSP}%" in verdict(found)


def test_runs_that_are_evaluated_in_other_rounds_are_other_experiments(make_recorded):
    paths = [make_recorded(name, "krum", seed=seed) for name, seed in (("a", 1), ("b", 2))]
    change(paths[1], "config.json", lambda found: found["settings"].update(eval_every=5))
    found = make_entries([read_run(path) for path in paths])
    assert [entry.group.index for entry in found] == [0, 1]


def asr_of(make_recorded, values):
    """Return a run for each defense and seed, with these ASR."""
    paths = []
    for defense, several in values.items():
        for seed, asr in enumerate(several):
            paths.append(make_recorded(f"{defense}-{seed}", defense, seed=seed, rounds=1))
            change(
                paths[-1], "summary.json", lambda found, asr=asr: found["asr"].update(last10=asr)
            )
    return make_entries([read_run(path) for path in paths])


def change(path, name, how):
    found = json.loads((path / name).read_text())
    how(found)
    (path / name).write_text(json.dumps(found))


def test_two_seeds_get_no_mark_and_the_note_says_so(entries):
    table = TableRequest().table([e for e in entries if e.run.setting("settings.seed") != "2"])
    assert not table.tested
    assert "†" not in markdown(table)
    assert "No test was made: it takes 3 shared seeds" in table.note()


def test_the_latex_is_whole_escaped_and_as_wide_as_it_says(entries):
    text = latex(TableRequest().table(entries), "results")
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1]
    assert columns == "lrrrrrr"
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    for line in lines:
        spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
        assert line.count("&") + 1 + sum(n - 1 for n in spans) == 7, line
    for environment in ("table", "tabular"):
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 1
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    for special in "_%#":
        assert not re.search(rf"(?<!\\){special}", prose), special
    assert r"dba\_like" in text
    assert r"\cmidrule(lr){2-4} \cmidrule(lr){5-7}" in text
    assert r"60.0 $\pm$ 10.0\rlap{$^{\dagger}$}" in text
    assert r"\textbf{20.0} $\pm$ \phantom{0}9.5" in text  # digits below digits


def test_the_csv_has_every_cell_unrounded(entries):
    rows = list(csv.DictReader(io.StringIO(to_csv(TableRequest().table(entries)))))
    assert len(rows) == 2 * 2 * 3
    found = {(r["defense"], r["attack"]): r for r in rows if r["metric"] == "asr"}
    for key, values in ASR.items():
        row = found[key]
        assert float(row["mean"]) == pytest.approx(np.mean(values), abs=1e-15)
        assert float(row["sd"]) == pytest.approx(np.std(values, ddof=1), abs=1e-15)
        assert (row["n"], row["seeds"]) == ("3", "0 1 2")
    assert found["krum", "badnets"]["differs"] == "true"
    assert (
        float(found["krum", "badnets"]["p_holm"])
        < 0.05
        <= float(found["flame", "dba_like"]["p_holm"])
    )


def test_any_fields_can_be_rows_and_columns(make_recorded):
    runs = [
        make_recorded(f"{dpr}-{bad}-{defense}", defense, dpr=dpr, malicious=bad, rounds=1)
        for dpr in (0.5, 0.25)
        for bad in (2, 4)
        for defense in ("krum", "flame")
    ]
    entries = make_entries([read_run(run) for run in runs])
    whole = TableRequest(["DPR"], ["number_of_malicious_clients", "defense"]).table(entries)
    assert whole.rows == (("0.25",), ("0.5",))  # numbers by size
    assert [words for words, _ in whole.spans()[0]] == ["malicious 2", "malicious 4"]
    assert [len(cells) for cells in whole.cells] == [12, 12]
    rest = TableRequest(rows=["client.attack.DPR"]).table(entries)
    assert [axis.path for axis in rest.layout.columns] == [
        "defense",
        "federation.number_of_malicious_clients",
    ]
    with pytest.raises(ConfigError, match=r"differ in federation\.number_of_malicious_clients"):
        TableRequest(["defense"], ["DPR"]).table(entries)
    with pytest.raises(ConfigError, match="is a field of none"):
        TableRequest(["colour"]).table(entries)
    with pytest.raises(ConfigError, match="is what a cell sums up"):
        TableRequest(["seed"]).table(entries)
    with pytest.raises(ConfigError, match='no row is called "fedavg"; rows are krum; flame'):
        TableRequest(against="fedavg").table(entries)
    unfinished = make_entries([read_run(make_recorded("half", stop=1))])
    with pytest.raises(ConfigError, match='called "x"; without a finished run there is none'):
        TableRequest(against="x").table(unfinished)


def test_unfinished_runs_are_in_no_cell_and_counted(make_recorded):
    runs = [make_recorded("a", rounds=4), make_recorded("b", rounds=4, seed=2, stop=2)]
    table = TableRequest().table(make_entries([read_run(run) for run in runs]))
    assert table.seeds == (1, 1)
    assert table.left_out == 1
    assert "1 unfinished run is left out" in table.note()
    nothing = TableRequest().table(make_entries([read_run(runs[1])]))
    assert (nothing.rows, nothing.columns) == ((), ())
    assert markdown(nothing) == "No run is finished.\n"


def test_the_worst_round_of_acceptable_accuracy_has_a_column_and_the_floor_is_noted(
    make_recorded, tmp_path
):
    """By hand: MTA 20, 80, 85, 90 %, so that rounds from 81 % on count: ASR 30, not 99 or 60."""
    attacked, clean = make_recorded("attacked", rounds=4), make_recorded("clean", rounds=4)
    for path, asrs in ((attacked, (0.99, 0.6, 0.3, 0.1)), (clean, (0.5, 0.02, 0.02, 0.02))):
        lines = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]
        for line, mta, asr in zip(lines, (0.2, 0.8, 0.85, 0.9), asrs, strict=True):
            line |= {"mta": mta, "asr": asr}
        (path / "rounds.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        summary = json.loads((path / "summary.json").read_text())
        summary["asr"] = {"last10": sum(asrs) / 4}
        (path / "summary.json").write_text(json.dumps(summary))
    config = json.loads((clean / "config.json").read_text())
    config["client"]["attack"]["participation_strategy"] = "never"
    (clean / "config.json").write_text(json.dumps(config))
    summary = json.loads((clean / "summary.json").read_text())
    (clean / "summary.json").write_text(json.dumps({**summary, "attack": None}))
    entries = make_entries([read_run(attacked), read_run(clean)])
    assert [each.run.attack for each in entries] == ["badnets", "none"]
    assert [each.outcome.worst_asr for each in entries] == [0.3, 0.02]
    assert [each.outcome.floor for each in entries] == [pytest.approx(0.14), None]
    table = TableRequest(columns=["attack"]).table(entries)
    assert "| 30.0 |" in markdown(table)
    assert "Without attack the ASR of these runs is 14.0." in table.note()
    assert "at least 90 % of the run's last" in table.note()
    assert "worst ASR (\\%)" in latex(table, "x")
    lower = make_entries([read_run(attacked), read_run(clean)], mta_at_least=0.8)
    assert [each.outcome.worst_asr for each in lower] == [0.6, 0.02]
    assert "whose MTA is at least 80 %." in TableRequest(columns=["attack"]).table(lower).note()
    assert "(worst 60.0 %)" in verdict(lower).replace(NBSP, " ")
    page = tmp_path / "page.html"
    assert main(["report", str(attacked), "--out", str(page), "--acceptable", "0.8"]) == 0
    assert page.read_text().count("is at least 80 %") == 2  # heading and caption
