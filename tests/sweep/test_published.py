"""The figures of a paper's tables, and verdicts within a tolerance of them."""

from dataclasses import replace
from pathlib import Path

import pytest

from entity.config.schema import ConfigError
from entity.dataset import source_of
from entity.record.json_files import write_json
from entity.results.store import Run
from entity.setup import resolve
from entity.sweep import gpu_hours
from entity.sweep.cells import expand
from entity.sweep.grid_file import parse
from entity.sweep.guess import guess
from entity.sweep.published import Figure, Tolerance, published
from entity.sweep.setting import setting
from entity.sweep.study import find, load, names
from entity.sweep.verdict_table import remarks, verdict_table
from entity.sweep.verdicts import judge

AXES = {"defense": {"a": {"DPR": 1}, "b": {"DPR": 0.5}}, "rate": {"1%": {"lr": 1}, "2%": {"lr": 2}}}
TABLE = {
    "rows": ["defense"],
    "columns": "rate",
    "tolerance": {"mta": 3, "asr": 10, "low_asr": 5},
    "mta": {"a": [80, 81], "b": [70, None]},
    "asr": {"a": [90, 95.5], "b": [1.5, None]},
    "uncertain": [
        {"cells": {"defense": "a", "rate": "1%"}, "asr": 60, "why": "the text says 60"},
        {"cells": {"defense": "a"}, "like": {"rate": "2%"}, "why": "swapped"},
    ],
}


def read(changes=None):
    return published({**TABLE, **(changes or {})}, parse({"axes": AXES}, Path("grid.yaml")))


def test_figures_by_hand():
    found = read()
    cell = {"defense": "a", "rate": "1%"}
    assert found.figure("mta", cell) == Figure(0.8, (0.81,))
    assert found.figure("asr", cell) == Figure(0.9, (0.6, 0.955))
    assert found.figure("asr", {"defense": "a", "rate": "2%"}) == Figure(0.955)
    assert found.figure("mta", {"defense": "b", "rate": "2%"}) is None
    assert found.reasons(cell) == ["the text says 60", "swapped"]
    assert found.reasons({"defense": "b", "rate": "1%"}) == []


def test_a_figure_may_be_doubtful_without_another_that_it_may_be():
    found = read({"uncertain": [{"cells": {"defense": "b"}, "why": "as another table's"}]})
    cell = {"defense": "b", "rate": "1%"}
    assert found.figure("asr", cell) == Figure(0.015, (), doubtful=True)
    assert str(found.figure("asr", cell)) == "1.50?"
    assert str(found.figure("asr", {"defense": "a", "rate": "1%"})) == "90.00"
    assert found.reasons(cell) == ["as another table's"]
    assert found.agrees(cell, {"asr": 0.02})
    assert not found.agrees(cell, {"asr": 0.2})


def test_cells_of_table_vii_that_are_other_tables_to_the_digit_are_marked(studies):
    """A figure that one cell has of another rate or configuration is no second measurement."""
    study, cells = studies["paper/table-7-emnist"]
    marked = {
        cell.labels["defense"]
        for cell in cells
        if cell.labels["alpha"] == "infinity"
        and str(study.published.figure("asr", cell.labels)).endswith("?")
    }
    assert marked == {"undefended", "droplet", "flip"}
    vi, at_2_5 = studies["paper/table-6-emnist"]
    at_20 = {cell.labels["defense"]: cell.labels for cell in at_2_5 if cell.labels["mcr"] == "20%"}
    alike = {
        cell.labels["defense"]
        for cell in cells
        if cell.labels["alpha"] == "infinity"
        and all(
            study.published.figure(metric, cell.labels).value
            == vi.published.figure(metric, at_20[cell.labels["defense"]]).value
            for metric in ("mta", "asr")
        )
    }
    assert alike == {"undefended", "droplet"}


def test_a_label_may_be_what_yaml_reads_as_a_number():
    axes = {"alpha": {1: {"IID": True}, 0.5: {"IID": False}}, "rate": AXES["rate"]}
    figures = {1: [80, 81], 0.5: [70, None]}
    changes = {"rows": ["alpha"], "mta": figures, "asr": figures, "uncertain": []}
    found = published({**TABLE, **changes}, parse({"axes": axes}, Path("grid.yaml")))
    assert found.figure("mta", {"alpha": "1", "rate": "2%"}) == Figure(0.81)
    assert found.figure("asr", {"alpha": "0.5", "rate": "1%"}) == Figure(0.7)


@pytest.mark.parametrize(
    ("metric", "cell", "measured", "near"),
    [
        ("mta", ("b", "1%"), 0.73, True),
        ("mta", ("b", "1%"), 0.731, False),
        ("mta", ("b", "1%"), 0.67, True),
        ("asr", ("b", "1%"), 0.065, True),  # 5 points where the paper has at most 10 %
        ("asr", ("b", "1%"), 0.066, False),
        ("asr", ("a", "2%"), 0.855, True),
        ("asr", ("a", "2%"), 0.854, False),
        ("asr", ("a", "1%"), 0.5, True),  # near what the text says
        ("asr", ("a", "1%"), 0.75, False),  # between the two is near none
    ],
)
def test_the_ends_of_a_tolerance_belong_to_it_and_each_reading_of_a_figure_has_its_own(
    metric, cell, measured, near
):
    labels = dict(zip(("defense", "rate"), cell, strict=True))
    assert read().agrees(labels, {metric: measured}) is near


@pytest.mark.parametrize(
    ("mta", "asr", "near"),
    [
        (0.80, 0.90, True),
        (0.80, 0.60, True),  # as the text says
        (0.91, 0.20, True),  # those of the other cell, both
        (0.80, 0.20, False),  # one of each is neither
        (0.91, 0.90, False),
        (0.91, 0.60, False),
    ],
)
def test_of_cells_that_may_be_swapped_all_figures_are_those_of_one(mta, asr, near):
    found = read({"mta": {"a": [80, 91], "b": [70, None]}, "asr": {"a": [90, 20], "b": [1, None]}})
    cell = {"defense": "a", "rate": "1%"}
    assert found.agrees(cell, {"mta": mta, "asr": asr}) is near


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"columns": "rates"}, "study.published: axis rates is unknown. Did you mean rate?"),
        ({"mta": [1, 2]}, "study.published.mta = [1, 2]: allowed is a table by defense."),
        ({"mta": {"c": [1, 2]}}, "study.published.mta: c is unknown"),
        ({"mta": {"a": [1]}}, "allowed is a list of 2 figures, for rate 1%, 2%."),
        ({"asr": {"a": [1, 101]}}, "study.published.asr.a = 101: allowed is a figure from 0"),
        ({"asr": {"a": [1, True]}}, "allowed is a figure from 0 to 100, or null."),
        ({"uncertain": [{"cells": {"rate": "1%"}}]}, "why is missing"),
        (
            {"uncertain": [{"cells": {"x": 1}, "asr": 1, "why": "x"}]},
            "study.published.uncertain.cells: axis x is unknown",
        ),
        (
            {"uncertain": [{"cells": {"rate": "1%"}, "like": {"rate": ["1%", "2%"]}, "why": "x"}]},
            "allowed is one label.",
        ),
        ({"rows": ["rate"]}, "study.published: rows and columns: rate comes twice."),
        ({"mta": {"1": [1, 2], 1: [1, 2]}}, "study.published.mta: 1 comes twice."),
        ({"tolerance": {"mta": 1}}, "study.published.tolerance.asr is missing"),
    ],
)
def test_what_does_not_fit_the_axes_is_one_sentence(changes, words):
    with pytest.raises(ConfigError) as refusal:
        read(changes)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


TABLES = [name for name in names() if name.startswith("paper/")]
CELLS = dict(zip(TABLES, (40, 30, 30, 36, 24, 24, 10, 30, 30, 30, 40, 38), strict=True))


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    nowhere = tmp_path_factory.mktemp("runs") / "none"
    return {name: (find(name), expand(find(name).grid, nowhere)) for name in TABLES}


def test_every_cell_of_the_papers_tables_has_a_figure_and_no_other_has(studies):
    for name, (study, cells) in studies.items():
        assert len(cells) == CELLS[name]
        for cell in cells:
            clean = "none" in (cell.labels.get("rate"), cell.labels.get("mcr"))
            assert study.published.figure("mta", cell.labels) is not None
            assert (study.published.figure("asr", cell.labels) is None) is clean
        axes = {axis.name: {v.label for v in axis.values} for axis in study.grid.axes}
        listed = study.published.values["mta"]
        for key in listed:
            assert all(label in axes[a] for a, label in zip(study.published.axes, key, strict=True))
        assert len(listed) == CELLS[name]


@pytest.mark.parametrize(
    ("table", "labels", "mta", "asr"),
    [
        ("table-3-cifar10", "flare 5%", 84.41, 3.5),
        ("table-3-cinic10", "multikrum 1.25%", 73.57, 76.35),
        ("table-3-emnist", "foolsgold 2.5%", 87.80, 46.5),
        ("table-4-cifar10", "chameleon flip 1.25%", 83.29, 96.8),
        ("table-4-cinic10", "neurotoxin drop 2.5%", 65.48, 1.02),
        ("table-4-emnist", "chameleon flip 2.5%", 88.65, 25.25),
        ("table-5-cifar10", "C10", 80.5, 5.5),
        ("table-6-cifar10", "median 40%", 85.54, 99.1),
        ("table-6-cinic10", "droplet 40%", 74.65, 99.73),
        ("table-6-emnist", "flame 20%", 86.43, 2.5),
        ("table-7-cifar10", "flame 1", 59.43, 0.4),
        ("table-7-emnist", "drop infinity", 88.57, 0.75),
    ],
)  # fmt: skip
def test_figures_read_off_the_paper(studies, table, labels, mta, asr):
    study, cells = studies[f"paper/{table}"]
    (found,) = {
        (
            study.published.figure("mta", c.labels).value,
            study.published.figure("asr", c.labels).value,
        )
        for c in cells
        if set(labels.split()) <= set(c.labels.values())
    }
    assert found == (pytest.approx(mta / 100), pytest.approx(asr / 100))


def test_cells_that_two_tables_share_are_one_run_with_one_figure_or_are_marked(studies):
    """The paper's tables overlap; where they contradict each other both say so."""
    seen = {}
    for study, cells in studies.values():
        for cell in cells:
            for metric in ("mta", "asr"):
                if (figure := study.published.figure(metric, cell.labels)) is not None:
                    seen.setdefault((cell.identity, metric), []).append(figure)
    shared = {key: figures for key, figures in seen.items() if len(figures) > 1}
    assert len(shared) == 90
    for figures in shared.values():
        for one in figures:
            assert {other.value for other in figures} <= {one.value, *one.others}


CONFIGURATIONS = {  # rate, batch, epochs: tables II and VIII
    "cifar10": {
        "C1": (0.05, 128, 2), "C2": (0.05, 256, 2), "C3": (0.025, 256, 5), "C4": (0.01, 64, 2),
        "C5": (0.025, 128, 2), "C6": (0.025, 256, 2), "C7": (0.1, 256, 2), "C8": (0.01, 128, 2),
        "C9": (0.01, 128, 5), "C10": (0.01, 256, 10),
    },
    "emnist": {"C5": (0.1, 64, 1), "C9": (0.01, 32, 2)},
}  # fmt: skip
FEDERATIONS = {  # clients, a round, malicious at 20 %, rounds
    "cifar10": (50, 25, 10, 200),
    "cinic10": (150, 30, 30, 200),
    "emnist": (100, 50, 20, 80),
}


def test_cells_are_the_papers_settings(studies):
    for name, (_, cells) in studies.items():
        for cell in cells:
            config, labels = cell.config, cell.labels
            data, client, federation = config.dataset, config.client, config.federation
            list_of = CONFIGURATIONS["emnist" if data == "emnist" else "cifar10"]
            learning = (client.lr, client.batch_size, client.num_epochs)
            assert learning == list_of[labels["configuration"]]
            size, a_round, malicious, rounds = FEDERATIONS[data]
            assert (federation.size, federation.round_size) == (size, a_round)
            assert (federation.rounds, federation.malicious_client_strategy) == (rounds, "random")
            share = 2 if labels.get("mcr") == "40%" else 1
            assert federation.number_of_malicious_clients == malicious * share
            assert config.server.defense.type == labels["defense"]
            assert "resnet18" in config.model
            assert config.settings.seed == 71
            rate = labels.get("rate", "none" if labels.get("mcr") == "none" else "2.5%")
            assert (client.attacked_by == "none") is (rate == "none")
            if rate != "none":
                assert client.attacked_by == labels.get("attack", "badnets")
                of_all = client.attack.DPR / source_of(config).num_classes
                paper = float(rate.rstrip("%")) / 100
                # One class of EMNIST's 47 is 2.13 % of the samples, less than 2.5 %.
                assert of_all == pytest.approx(min(paper, 1 / 47) if data == "emnist" else paper)
            alpha = labels.get("alpha", "infinity")
            assert client.IID is (alpha == "infinity")
            if alpha != "infinity":
                assert (client.partition, client.dirichlet_alpha) == ("dirichlet_class", int(alpha))
            if labels["defense"] == "drop":
                args = config.server.defense.defense_args
                expected = {"cifar10": (5, 5e6), "cinic10": (10, 5e6), "emnist": (40, 4e6)}
                assert (args.K, args.budget) == expected[data]
            if labels["defense"] == "flip":
                start = config.server.defense.defense_args.defense_start_round
                assert start == (3 if data == "emnist" else 10)
        assert name.rsplit("-", 1)[1] == cells[0].config.dataset


def test_hours_in_the_files_are_those_of_the_estimate(studies, tmp_path):
    """One speed of a card for tables and for the shipped settings."""
    shipped = [find(f"paper-{data}") for data in ("cifar10", "cinic10", "emnist")]
    whole = [(study, expand(study.grid, tmp_path / "none")) for study in shipped]
    for study, cells in (*studies.values(), *whole):
        total = sum(gpu_hours.gpu_hours(cell.config) for cell in cells)
        assert study.hours == pytest.approx(total, abs=0.51)
        said, left = guess([cell.config for cell in cells])
        assert f"about {total:.0f} GPU hours" in said
        assert left == []


def finished(cell, **figures):
    facts = {"state": "finished", "mta": None, "asr": None, **figures}
    return replace(cell, done=Run(Path("x"), facts, {}))


def test_verdicts_beside_the_papers_figures(studies):
    study, cells = studies["paper/table-3-cifar10"]
    by_label = {(c.labels["defense"], c.labels["rate"]): c for c in cells}
    chosen = [
        finished(by_label["undefended", "none"], mta=0.87, asr=0.009, worst_asr=0.012),
        finished(by_label["undefended", "1.25%"], mta=0.86, asr=0.75, worst_asr=1.0, floor=0.009),
        finished(by_label["drop", "1.25%"], mta=0.745, asr=0.03, worst_asr=0.2, floor=0.02),
        finished(by_label["flare", "1.25%"], mta=0.85, asr=1.0),
        finished(by_label["drop", "5%"], mta=0.7, asr=0.005),
        by_label["flip", "5%"],
    ]
    outcomes = judge(study, chosen)
    assert [outcome.verdict for outcome in outcomes] == [
        "reached",  # by its MTA alone: the paper has no ASR without attack
        "missed",  # 75 % where the paper has 85.5, and 93.9 in table II
        "reached",  # the text's 74.74 is nearer than the table's 76.05
        "reached",  # 94.0 by table VII
        "missed",  # MTA 70 where the paper has 75.18
        "unfinished",
    ]
    rows = dict(
        zip((o.labels for o in outcomes), verdict_table(study, outcomes).texts(), strict=True)
    )
    assert rows["drop", "1.25%"] == [
        *("drop", "1.25%", "1", "74.5", "76.05 or 74.74?", "-0.2", "3.0", "1.30", "+1.7"),
        *("20.0", "2.0", "-", "-", "reached"),
    ]
    assert rows["undefended", "none"][6:9] == ["0.9", "-", "-"]
    said = " ".join(remarks(study, outcomes))
    assert "MTA within 3 points of the paper's and ASR within 10, or 5 where" in said
    assert "the text says 74.74" in said
    assert "3 of 5 cells reached what is expected." in said
    assert "with 10 classes the field DPR" in said
    assert "It is not judged, as the paper does not say of which rounds its figures are" in said
    assert "Reached, but further above the paper's by it: drop 1.25%." in said  # 20 % beside 1.3


def test_folders_of_tables_that_share_one_say_which_configuration_they_are(studies, tmp_path):
    """Runs under other names are found by their identity."""
    named = {
        table: {cell.labels["defense"]: cell for cell in studies[f"paper/{table}"][1]}["drop"].name
        for table in ("table-3-cifar10", "table-5-cifar10", "table-6-cifar10")
    }
    assert list(named.values()) == [
        *("cifar10-C4-drop-5-seed71", "cifar10-C10-drop-1.25-seed71", "cifar10-C1-drop-40-seed71")
    ]
    study, cells = studies["paper/table-5-cifar10"]
    old = tmp_path / f"cifar10-C1-seed71-{cells[0].identity[:8]}"
    old.mkdir()
    write_json(old / "config.json", resolve.to_json(cells[0].config))
    write_json(old / "summary.json", {"state": "finished", "config_hash": cells[0].identity})
    assert expand(study.grid, tmp_path)[0].folder == old


def test_what_all_cells_of_a_papers_table_share_is_said_by_name_and_value(studies):
    def said(name, **labels):
        study, cells = studies[f"paper/{name}"]
        chosen = [cell for cell in cells if labels.items() <= cell.labels.items()]
        line = setting(study, [(cell.labels, cell.config) for cell in chosen])
        assert line in remarks(study, judge(study, chosen))
        return line

    assert said("table-3-cifar10") == (
        "The same in all cells: seed 71; data CIFAR-10; configuration C4; lr 0.01; batch size 64; "
        "epochs 2; split IID; N = 50 clients; 25 a round; 200 rounds. Where it is attacked: attack "
        "badnets; MCR 20 %; DPR 1.25, 2.5 and 5 % of all samples of a malicious client; field DPR "
        "0.125, 0.25 and 0.5. Where it is distilled: K = 5; budget 5,000,000 queries a "
        "distillation."
    )
    clean = said("table-3-cifar10", rate="none", defense="median")
    assert clean.endswith("split IID; N = 50 clients; 25 a round; 200 rounds.")
    ten = said("table-5-cifar10")  # C1 to C10 have rates, batches and epochs of their own
    assert "lr" not in ten
    assert "defense drop; rate 1.25%; split IID" in ten
    skewed = said("table-7-emnist", alpha="10")
    assert "split Dirichlet (alpha 10)" in skewed
    assert "DPR 1.25 % of all samples of a malicious client; field DPR 0.5875." in skewed
    assert "Where it is distilled: K = 40" in skewed


def test_expectations_and_published_figures_exclude_each_other(tmp_path):
    text = Path(find("paper/table-5-cifar10").grid.path).read_text()
    path = tmp_path / "both.yaml"
    path.write_text(text.replace("  published:", "  expect: [{cells: {seed: 71}}]\n  published:"))
    with pytest.raises(ConfigError, match=r"study\.expect and study\.published: choose one"):
        load(path)


def test_a_tolerance_says_itself():
    assert str(Tolerance(3, 10, 5)) == (
        "MTA within 3 points of the paper's and ASR within 10, or 5 where the paper has at most "
        "10 %"
    )
