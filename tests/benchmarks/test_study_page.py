"""docs/STUDY.md: what is computed, what is void, what is missing, and that it is as generated."""

import importlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from entity.record.json_files import write_json
from entity.setup import resolve
from entity.sweep.cells import expand

ROOT = Path(__file__).parents[2]
NAMES = (
    *("design", "lines", "results", "findings", "failures", "ranking", "page", "heat_map"),
    *("budget", "texts"),
)


@pytest.fixture(scope="module")
def claim():
    """The modules of benchmarks/claim, and the command, by name."""
    before = set(sys.modules)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        modules = {name: importlib.import_module(f"claim.{name}") for name in NAMES}
        modules["study_page"] = importlib.import_module("study_page")
        yield type("Claim", (), modules)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
        for name in set(sys.modules) - before:
            if name.split(".")[0] in ("claim", "study_page", "pages"):
                del sys.modules[name]


@pytest.fixture
def results(claim):
    """Return a way to make results of (labels, seed): (worst ASR, MTA, TPR)."""

    def make(study, found):
        axes = claim.design.design(study).axes
        lines = [
            claim.lines.Line(
                study, dict(zip(axes, labels.split(), strict=True)), seed, "x", "c", 10,
                mta, worst, worst, 1, None, tpr, 0.25, 3600.0,
            )
            for (labels, seed), (worst, mta, tpr) in found.items()
        ]  # fmt: skip
        return claim.results.Results(lines)

    return make


def test_the_page_and_its_maps_are_what_the_generator_writes(claim):
    results = claim.results.Results(claim.lines.read_lines())
    for path, text in claim.study_page.files(results).items():
        assert path.read_text() == text, f"{path}: python benchmarks/study_page.py makes it anew"
        assert len(text) < 60_000


@pytest.mark.slow
def test_committed_lines_are_of_experiments_that_are_planned_today(claim):
    lines = claim.lines.read_lines()
    if lines:
        planned = {name: claim.design.identities(name) for name in {line.study for line in lines}}
        for line in lines:
            assert claim.lines.is_planned(line, planned[line.study]), line
        assert len({(line.study, line.labels, line.seed) for line in lines}) == len(lines)


def test_the_ten_configurations_are_those_of_the_papers_table_viii(claim):
    found = claim.design.design("configurations")
    stated = {
        name: tuple(
            float(found.fields("configuration", name)[field])
            for field in ("client.lr", "client.batch_size", "num_epochs")
        )
        for name in found.labels_of("configuration")
    }
    assert stated == {
        **{"C1": (0.1, 32, 2), "C2": (0.1, 64, 5), "C3": (0.05, 32, 5), "C4": (0.1, 32, 1)},
        **{"C5": (0.1, 64, 1), "C6": (0.1, 32, 5), "C7": (0.1, 64, 2), "C8": (0.05, 32, 1)},
        **{"C9": (0.01, 32, 2), "C10": (0.025, 128, 5)},
    }
    table_ii = {"C1": (0.05, 128, 2), "C4": (0.01, 64, 2), "C7": (0.1, 256, 2)}
    small = claim.design.design("configurations-cifar10")
    for name, values in table_ii.items():
        fields = small.fields("configuration", name)
        assert tuple(map(float, fields.values())) == values


def test_the_centre_is_what_the_study_says(claim, tmp_path):
    grid = claim.design.design("configurations").study.grid
    (labels,) = [
        cell
        for cell in grid.assignments()
        if [cell[a] for a in ("seed", "configuration", "rate", "mcr", "defense")]
        == ["1", "C4", "1.25%", "20%", "drop"]
    ]
    (cell,) = expand(grid, tmp_path / "none", [labels])
    federation, client = cell.config.federation, cell.config.client
    assert (federation.size, federation.round_size, federation.rounds) == (50, 25, 36)
    assert federation.number_of_malicious_clients == 10
    assert federation.malicious_client_strategy == "random"
    assert (client.attack.DPR, client.attack.victim_class, client.attack.target_class) == (
        *(0.125, 0, 7),
    )
    fast = resolve.experiment(resolve.read(ROOT / "entity/configs/mnist5k/drop.json"))
    mine, theirs = cell.config.server.defense.defense_args, fast.server.defense.defense_args
    different = {n for n in vars(mine) if getattr(mine, n) != getattr(theirs, n)}
    assert different == {"K", "num_seed"}


def test_a_void_run_counts_for_nobody_and_one_without_a_twin_neither(claim, results):
    cell = "C4 5% 40%"
    found = results(
        "configurations",
        {
            (f"{cell} undefended", 1): (0.499, 0.98, 0),
            (f"{cell} undefended", 2): (0.50, 0.98, 0),
            (f"{cell} drop", 1): (0.90, 0.95, 0.2),
            (f"{cell} drop", 2): (0.04, 0.97, 0.8),
            ("C1 5% 40% drop", 1): (0.6, 0.97, 0.8),
            ("C6 5% 40% undefended", 1): (0.1, 0.97, 0),
            ("C6 5% 40% drop", 1): (0.0, 0.97, 1),
        },
    )
    drop = tuple(f"{cell} drop".split())
    assert found.worst("configurations", drop) == 0.04
    assert not found.void("configurations", drop)
    assert found.mta("configurations", drop) == pytest.approx(0.96)
    assert found.worst("configurations", ("C1", "5%", "40%", "drop")) is None
    assert found.void("configurations", ("C6", "5%", "40%", "drop"))
    assert claim.texts.by_seed(found, "configurations", drop, "worst_asr") == "(90.0) / 4.0"
    said = claim.findings.in_all_ten(found, "drop")
    assert "It holds in the one that counts (1 cell void, 8 not run yet)" in said
    assert "Its highest worst ASR is 4.0 %, in C4 at 5 %/40 %" in said
    assert "1 of the ten configurations (1 cell void, 8 not run yet)" in claim.findings.works(found)
    assert claim.findings.price(found, "drop") == (
        "DROP ends 1.0 points of MTA below the undefended run of the same seed on average; it "
        "loses at most 1.0 (1 pair)."
    )
    page = claim.page.page(found)
    assert "| configurations | 1 | 5 of 104 | 99 |" in page
    assert "took 7.0 core hours, where 10 were planned" in page


def ten(defense, worst):
    cells = [f"C{n} 5% 40%" for n in range(1, 11)]
    return {
        (f"{cell} {name}", 1): (value, 0.98, 0.5)
        for cell, value in zip(cells, worst, strict=True)
        for name, value in (("undefended", 0.9), (defense, value))
    }


@pytest.mark.parametrize(
    ("worst", "words"),
    [
        ([0.05] * 10, "Yes, in the seeds that were run. Its highest worst ASR is 5.0 %"),
        ([0.01] * 9 + [0.051], "No: it holds in 9 of 10, and not in C10 at 5 %/40 % (5.1 %)."),
        (
            [0.2, 0.01, 0.6] + [0.0] * 7,
            "No: it holds in 8 of 10, and not in C1 at 5 %/40 % (20.0 %) and C3 at",
        ),
    ],
)
def test_whether_drop_holds_in_all_ten(claim, results, worst, words):
    said = claim.findings.in_all_ten(results("configurations", ten("drop", worst)), "drop")
    assert words in said


def test_an_undefended_cell_in_which_the_attack_fails_is_missed(claim, results):
    cells = {"C4 5% 40%": 0.9, "C4 1.25% 20%": 0.1, "C4 5% 20%": 0.0}
    found = results(
        "configurations", {(f"{cell} undefended", 1): (v, 0.98, 0) for cell, v in cells.items()}
    )
    page = claim.page.page(found)
    assert "| MNIST: undefended | ≥ 95 | ≥ 50 | 1 of 3 | 0 | 11 |" in page
    assert "All that counts so far is at 5 %/40 %; C4 at 1.25 %/20 % and C4 at 5 %/20 % are" in page
    assert '"holds in N of ten" is of one rate and one share' in page
    at_20 = results("configurations", {("C4 2.5% 20% undefended", 1): (0.9, 0.98, 0)})
    assert claim.findings.scope(at_20) == "All that counts so far is at 2.5 %/20 %."


def test_when_a_defense_fails_and_what_is_left_of_it_at_the_end(claim, results):
    found = results("configurations", ten("median", [0.6, 0.01, 0.2] + [0.01] * 7))
    lines = [replace(line, asr=0.0114, worst_round=7, rounds=18) for line in found.lines]
    lines = claim.results.Results(lines)
    assert claim.failures.when(lines, "median") == (
        "Median's ASR where it does not hold: in C1 60.0 % in round 7 of 18 and 1.1 % after the "
        "last and in C3 20.0 % in round 7 of 18 and 1.1 % after the last."
    )
    assert claim.failures.when(lines, "drop") == ""
    page = claim.page.page(lines)
    assert "One draw" not in page  # it is of DROPlet's runs
    rows = page.split("| its round |")[1].splitlines()
    assert next(row for row in rows if row.startswith("| Median")).startswith("| Median | 7 / ")
    rows = page.split("| ASR after the last round % |")[1].splitlines()
    assert next(row for row in rows if row.startswith("| Median")).startswith("| Median | 1.1 / ")


def test_what_clustering_sees_in_all_ten_whether_it_explains_them_or_not(claim, results):
    found = results("configurations", ten("drop", [0.6, 0.2, 0.04] + [0.01] * 7))
    assert claim.failures.what_clustering_sees(found, "drop") == ""  # nothing is known of it

    def said(far):
        lines = [
            replace(line, fpr=0.25, separation=far.get(line.cell["configuration"], 1.9))
            for line in found.lines
        ]
        return claim.failures.what_clustering_sees(claim.results.Results(lines), "drop")

    text = said({"C1": 1.1, "C2": 2.4, "C3": 2.5})
    assert "| times as high | 1.1 | 2.4 | 2.5 | 1.9 |" in text
    assert "Where it is broken (C1) that is 1.1 times, and 50.0 % of the attackers'" in text
    assert "; where it does not hold, and is not broken (C2) that is 2.4 times" in text
    assert "; where it holds (C3, C4, C5, C6, C7, C8, C9 and C10) that is 1.9 to 2.5 times" in text
    assert "So it does not tell C2 from the cells that are held." in text
    assert said({"C1": 1.1, "C2": 1.2}).endswith("refused.")  # there it might


@pytest.mark.parametrize(
    ("worst", "words"),
    [
        ([0.5] * 10, "Yes: here it is broken (at least 50 %) in 8 of 8 cells and holds in 0"),
        ([0.01] * 10, "No: here it is broken (at least 50 %) in 0 of 8 cells and holds in 8"),
        ([0.6] + [0.3] * 9, "In part: here it is broken (at least 50 %) in 1 of 8 cells and hol"),
    ],
)
def test_whether_median_fails(claim, results, worst, words):
    table = ten("median", worst)
    found = {key: v for key, v in table.items() if not re.match(r"C(9|10) .*median", key[0])}
    said = claim.findings.median_fails(results("configurations", found), [0.9425, 0.9975])
    assert "The paper has 94.2 to 99.8 % in the cells on EMNIST that are like ours" in said
    assert words in said


def test_our_ranking_beside_the_papers(claim, results):
    """FLAME < Multi-Krum < Median in the paper at 1.25 %; here the other way round."""
    cell = "C4 1.25% 20%"
    worst = {"undefended": 1.0, "median": 0.02, "multikrum": 0.3, "flame": 0.9}
    found = results(
        "configurations", {(f"{cell} {name}", 1): (v, 0.9, 0.125) for name, v in worst.items()}
    )
    first, *others = claim.ranking.agreement(found)
    # By ranks 4, 3, 2, 1 in the paper and 4, 1, 2, 3 here: 1 - 6 * (0 + 4 + 0 + 4) / (4 * 15).
    assert first == (
        "- 1.25 %, 20 %: rank correlation +0.20; 1 of 4 defenses are on the same side of 50 %"
    )
    assert "(0 defenses of both so far)" in others[0]
    differing = claim.ranking.differences(found)
    assert [line.split("**")[1] for line in differing] == ["Median", "Multi-Krum", "FLAME"]
    assert "96.8 % in the paper, 2.0 % here; it refused 12.5 % of the attackers'" in differing[0]
    row = next(x for x in claim.ranking.table(found).splitlines() if x.startswith("| FLAME"))
    assert row == "| FLAME | 5.0 | 90.0 | 12.8 | - | 89.5 | - |".replace("-", claim.texts.NONE)
    assert "helps whatever looks for the odd one out" in claim.page.page(found)


@pytest.mark.parametrize(
    ("small", "large", "words"),
    [
        (0.9, 0.02, "**Is it the budget?** Yes: 2.0 % after 651 of 512, the paper's, 90.0 % after"),
        (0.9, 0.8, "**Is it the budget?** No, the student keeps the backdoor: 80.0 % after 651"),
        (0.9, 0.3, "**Is it the budget?** In part: 30.0 % after"),
        (0.1, 0.1, "No: the small one does as well"),
        (0.1, 0.3, "No: the small one does better: 30.0 % after"),
        (0.1, 0.6, "a student that is taught longer keeps more: 60.0 % after"),
    ],
)
def test_whether_it_is_the_budget(claim, results, small, large, words):
    found = {
        ("none narrow", 1): (0.95, 0.97, 0),
        ("60x64 narrow", 1): (small, 0.97, 0),
        ("651x512 narrow", 1): (large, 0.97, 0),
    }
    said = claim.budget.section(results("budget", found))
    assert words in said
    assert f"narrow: from 95.0 % to {100 * large:.1f} % (1 seed)." in said
    del found["651x512 narrow", 1]
    assert "Not known yet" in claim.budget.section(results("budget", found))
    found["65x512 narrow", 1] = (large, 0.97, 0)
    text = claim.budget.section(results("budget", found))
    assert "The paper's whole budget was not run yet." in text


def test_a_budget_that_is_not_the_reason_leaves_what_was_not_tested(claim, results):
    found = {("none narrow", 1): (0.95, 0.97, 0), ("60x64 narrow", 1): (0.02, 0.97, 0)}
    no = claim.budget.section(results("budget", {**found, ("651x512 narrow", 1): (0.7, 0.9, 0)}))
    assert "images (1 run)." in no
    assert "distils 40 times" in no
    assert "was not tested" not in claim.budget.section(results("budget", found))


def test_a_study_without_runs_has_a_sentence_and_no_map(claim, results, tmp_path, monkeypatch):
    assert "## CIFAR-10\n\nNothing was run yet: 9 runs are planned.\n" in claim.page.page(
        results("configurations", {})
    )
    known = results("configurations-cifar10", {("C1 undefended", 1): (0.9, 0.5, 0)})
    assert "![Worst ASR in percent, CIFAR-10" in claim.page.page(known)
    assert "cifar10" in claim.page.maps(known)
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "cifar10.svg").write_text("of an earlier time")
    monkeypatch.setattr(claim.study_page, "MAPS", maps)
    monkeypatch.setattr(claim.study_page, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr("sys.argv", ["study_page.py"])
    assert claim.study_page.main() == 0
    drawn = {path.name for path in maps.iterdir()}
    assert drawn == {f"{name}.svg" for name in claim.page.maps(claim.results.Results(
        claim.lines.read_lines()
    ))}  # fmt: skip


def test_a_map_shows_what_is_missing_as_missing_and_reads_in_grey(claim):
    square = claim.heat_map.Square
    squares = [square(0.0), square(0.49), square(1.0), square(state="missing"),
               square(state="void"), square(state="not planned")]  # fmt: skip
    text = claim.heat_map.heat_map(
        "A <map>", ["a", "b\nc", "d", "e", "f", "g"], [("DROP", squares)]
    )
    root = ElementTree.fromstring(text)
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[:8] == ["A <map>", "a", "b", "c", "d", "e", "f", "g"]
    assert texts[8:12] == ["DROP", "0", "49", "100"]
    boxes = root.findall("{http://www.w3.org/2000/svg}rect")[1:]
    assert len(boxes) == 5  # nothing where nothing is planned
    fills = [box.get("fill") for box in boxes]
    assert fills[3:] == ["none", "url(#void)"]
    assert boxes[3].get("stroke-dasharray")
    grey = [
        0.299 * red + 0.587 * green + 0.114 * blue
        for red, green, blue in (map(int, re.findall(r"\d+", fill)) for fill in fills[:3])
    ]
    assert grey[0] == 255
    assert grey[0] - grey[1] > 80
    assert grey[1] - grey[2] > 80


def test_finished_runs_become_lines_and_known_ones_stay(claim, tmp_path, monkeypatch):
    grid = claim.design.design("budget").study.grid
    cell, other = expand(grid, tmp_path / "none")[:2]
    planned = {name: {} for name in claim.design.NAMES}
    planned["budget"] = {
        cell.identity: (("none", "narrow"), 1),
        other.identity: (("60x64", "narrow"), 1),
    }
    monkeypatch.setattr(claim.lines, "identities", planned.__getitem__)
    places = dict.fromkeys(planned["budget"].values(), "but for code")
    monkeypatch.setattr(claim.lines, "experiments", lambda name: places)
    for each, state, mta in ((cell, "finished", 0.9), (other, "running", 0.8)):
        folder = tmp_path / "runs" / each.name
        folder.mkdir(parents=True)
        write_json(folder / "config.json", resolve.to_json(each.config))
        summary = {
            "state": state,
            "config_hash": each.identity,
            "rounds": 50,
            "mta": {"final": mta, "last10": 0.7},
            "asr": {"final": 0.4, "last10": 0.3},
            "consistency": {"worst_asr": 0.6, "worst_round": 12},
            "detection": {"tpr": 0.25, "fpr": None},
            "seconds": {"total": 12.5},
        }
        write_json(folder / "summary.json", summary)
    (line,) = claim.lines.exported(tmp_path / "runs", [])
    assert line == claim.lines.Line(
        "budget", {"budget": "none", "width": "narrow"}, 1, cell.identity, line.commit, 50,
        0.9, 0.4, 0.6, 12, None, 0.25, None, 12.5, revision=1,
        experiment="but for code",
    )  # fmt: skip
    path = tmp_path / "lines.jsonl"
    old = claim.lines.Line(**{**vars(line), "commit": "old"})
    gone = claim.lines.Line(**{**vars(line), "config_hash": "of another plan"})
    claim.lines.write_lines(claim.lines.exported(tmp_path / "runs", [old, gone]), path)
    assert claim.lines.read_lines(path) == [old]
    assert json.loads(path.read_text())["cell"] == {"budget": "none", "width": "narrow"}


def test_a_line_stays_when_its_defense_is_revised_until_its_cell_is_run_again(claim, monkeypatch):
    cell = {"configuration": "C4", "rate": "5%", "mcr": "40%", "defense": "drop_plus"}
    line = claim.lines.Line(
        "configurations", cell, 1, "as it was", "c", 36,
        0.9, 0.4, 0.6, 12, None, 0.25, None, 12.5, revision=1,
        experiment="but for code",
    )  # fmt: skip
    planned = {"as it is": (line.labels, 1)}
    monkeypatch.setattr(claim.lines, "experiments", lambda name: {(line.labels, 1): "planned"})
    line = replace(line, experiment="planned")
    current = replace(line, revision=claim.lines.DEFENSES["drop_plus"].revision)
    assert line.outdated
    assert claim.lines.is_planned(line, planned)
    assert not claim.lines.is_planned(current, planned)
    assert claim.lines.is_planned(replace(current, config_hash="as it is"), planned)
    assert not claim.lines.is_planned(replace(line, seed=2), planned)
    assert not claim.lines.is_planned(replace(line, revision=None), planned)
    assert not claim.lines.is_planned(replace(line, experiment="of another plan"), planned)
    assert not claim.lines.is_planned(replace(line, experiment=None), planned)


@pytest.mark.slow
def test_every_cell_of_the_plan_has_an_identity_and_needs_no_data(claim, tmp_path, monkeypatch):
    monkeypatch.setenv("DROP_DATA", str(tmp_path))
    for name in claim.design.NAMES:
        of_design = {(k, s) for k, seeds in claim.design.design(name).seeds.items() for s in seeds}
        assert set(claim.design.identities(name).values()) == of_design
