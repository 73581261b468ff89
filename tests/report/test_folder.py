import io
import re

import pytest
from PIL import Image

from entity.cli import main
from entity.config.schema import ConfigError
from entity.report import FigureStyle, paper_figures, read_run, write_folder
from entity.report.entries import make_entries
from entity.report.runs import read_runs


@pytest.fixture
def runs(make_recorded):
    return [
        make_recorded(f"{defense}{seed}", defense, seed=seed, rounds=4)
        for defense in ("undefended", "droplet")
        for seed in (1, 2)
    ]


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_has_page_tables_and_figures(runs, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "report"
    assert main(["report", *map(str, runs), "--out", str(out), "--against", "undefended"]) == 0
    tables = [
        f"tables/{n}.{end}"
        for n in ("asr", "mta", "results", "worst_asr")
        for end in ("csv", "md", "tex")
    ]
    figures = [f"figures/{n}.{end}" for n in ("asr", "mta", "roc") for end in ("pdf", "png")]
    figures += ["figures/captions.md", "figures/captions.tex"]
    assert names(out) == sorted(["index.html", *tables, *figures])
    assert "Over seeds" in (out / "index.html").read_text()
    assert "| DROPlet |" in (out / "tables" / "asr.md").read_text()
    assert "MTA" not in (out / "tables" / "asr.tex").read_text().split(r"\begin{tabular}")[1]
    assert (out / "figures" / "asr.pdf").read_bytes().startswith(b"%PDF-")
    picture = Image.open(io.BytesIO((out / "figures" / "asr.png").read_bytes()))
    assert picture.width > 800  # a column of a paper at 300 dots an inch
    assert str(out / "index.html") in capsys.readouterr().out.replace("\n", "")


def test_a_folder_of_runs_stands_for_those_that_are_finished(make_recorded, tmp_path, capsys):
    for seed in (1, 2):
        make_recorded(f"grid/droplet{seed}", "droplet", seed=seed, rounds=4)
    make_recorded("grid/cut", "krum", rounds=9, stop=2)
    grid, out = tmp_path / "grid", tmp_path / "report"
    assert main(["report", str(grid), "--out", str(out), "--no-figures"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(r"left out: \S*grid/cut is interrupted; name it to have it, too", said)
    assert "droplet,mta," in (out / "tables" / "results.csv").read_text()
    assert [run.defense for run in read_runs([grid])] == ["droplet", "droplet"]
    assert len(read_runs([grid, grid / "droplet1"])) == 2  # which is one of them
    assert read_runs([grid / "cut", grid])[0].defense == "krum"
    told = list[str]()
    assert len(read_runs([grid, grid / "cut"], told.append)) == 3
    assert told == []  # it is named


def test_a_folder_without_finished_runs_is_refused(make_recorded, tmp_path, capsys):
    make_recorded("grid/cut", "krum", rounds=9, stop=2)
    (tmp_path / "empty").mkdir()
    for folder, why in (("grid", "no finished run in"), ("empty", "as `drop sweep` made")):
        assert main(["report", str(tmp_path / folder), "--out", str(tmp_path / "report")]) == 2
        assert why in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "report").exists()


def test_a_report_of_the_same_runs_has_the_same_bytes(runs, tmp_path):
    pytest.importorskip("matplotlib")
    first, second = (
        [path.read_bytes() for path in write_folder(runs, tmp_path / name)] for name in "ab"
    )
    assert first == second


def test_without_matplotlib_all_the_rest_is_written_and_one_sentence_says_so(
    runs, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(paper_figures, "find_spec", lambda name: None)
    out = tmp_path / "report"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    assert len(names(out)) == 1 + 12
    said = capsys.readouterr().err.replace("\n", " ")
    assert "pip install -e '.[figures]'" in said
    assert main(["report", *map(str, runs), "--out", str(out), "--no-figures"]) == 0
    assert capsys.readouterr().err == ""
    with pytest.raises(ConfigError, match="matplotlib, which is not installed"):
        paper_figures.draw_paper_figures([])


def test_a_single_run_a_partial_one_and_one_that_never_began_make_a_folder(make_recorded, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.json").write_text("{}")
    for name, run in (
        ("single", make_recorded("one", rounds=1)),
        ("partial", make_recorded("cut", rounds=9, stop=2)),
        ("begun", begun),
    ):
        out = tmp_path / f"report-{name}"
        write_folder([run], out)
        assert "<h1>" in (out / "index.html").read_text()
        note = (out / "tables" / "results.md").read_text()
        assert ("one seed, so there is no spread" if name == "single" else "No run is") in note


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "colour"], "--rows: colour is a field of none of the runs"),
        (
            ["--rows", "defense", "--columns", "defense"],
            "--columns: defense is among the rows already",
        ),
        (["--against", "krum"], "--against: no row is called"),
    ],
)
def test_bad_fields_are_one_sentence_and_leave_nothing_behind(
    runs, tmp_path, capsys, words, message
):
    for out in (tmp_path / "report", tmp_path / "report.html"):
        assert main(["report", *map(str, runs), "--out", str(out), *words]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
        assert not out.exists()


def test_a_folder_where_a_file_stands_is_refused(runs, tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "taken"), "--no-figures"]) == 2
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_page_that_cannot_be_written_is_one_sentence(runs, tmp_path, capsys):
    (tmp_path / "taken").write_text("mine")
    page = tmp_path / "taken" / "page.html"
    assert main(["report", *map(str, runs), "--out", str(page)]) == 2
    assert f"drop: --out {page}: cannot be written" in capsys.readouterr().err


def test_captions_say_what_bands_are(runs, tmp_path):
    pytest.importorskip("matplotlib")
    write_folder(runs, tmp_path / "four")
    text = (tmp_path / "four" / "figures" / "captions.md").read_text()
    assert re.findall(r"\*\*(\w+)\.pdf\*\*", text) == ["mta", "asr", "roc"]
    assert text.count("means over 2 seeds; bands are one sample standard deviation") == 2
    latex = (tmp_path / "four" / "figures" / "captions.tex").read_text()
    assert latex.count(r"\begin{figure}") == latex.count(r"\end{figure}") == 3
    assert r"\includegraphics[width=\columnwidth]{figures/asr.pdf}" in latex
    assert r"100 \%." in latex
    write_folder(runs[::2], tmp_path / "two")
    assert "so there are no bands" in (tmp_path / "two" / "figures" / "captions.md").read_text()


def test_figures_of_an_earlier_report_do_not_stay_beside_new_tables(runs, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "report"
    write_folder(runs, out)
    (out / "figures" / "mine.pdf").write_text("of the user")
    made = {path.name for path in (out / "figures").iterdir()}
    assert {"roc.pdf", "mta.png", "captions.md"} < made
    write_folder(runs, out, figures=False)
    assert {path.name for path in (out / "figures").iterdir()} == {"mine.pdf"}


def test_every_line_has_its_name_in_the_legend(runs):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    entries = make_entries([read_run(run) for run in runs])
    names = ["_baseline", "long, " * 12 + "a 1", "long, " * 12 + "a 2", "$x"]
    groups = {entry.group.index: entry.group for entry in entries}.values()
    for group, name in zip(groups, names, strict=False):
        object.__setattr__(group, "label", name)
    drawn = paper_figures.figures(entries, ["asr"], Figure, FigureStyle())["asr"]
    (legend,) = [axes.get_legend() for axes in drawn.axes]
    texts = [text.get_text() for text in legend.get_texts()]
    assert len(texts) == len({*texts}) == len(drawn.axes[0].get_lines())
    assert texts[0] == "_baseline"


def test_figures_are_as_wide_as_asked_and_in_the_font(runs, tmp_path):
    pytest.importorskip("matplotlib")
    entries = make_entries([read_run(run) for run in runs])
    style = FigureStyle(width=6.0, font="serif", size=11)
    from matplotlib.figure import Figure

    drawn = paper_figures.figures(entries, ["asr"], Figure, style)["asr"]
    assert drawn.get_size_inches().tolist() == pytest.approx([6.0, 3.9])
    axes = drawn.axes[0]
    assert axes.xaxis.label.get_fontfamily() == ["serif"]
    assert axes.xaxis.label.get_fontsize() == 11
    one, two = axes.get_lines()
    assert one.get_linestyle() != two.get_linestyle()  # grey print has no colours
    assert one.get_marker() != two.get_marker()
    assert [line.get_label() for line in (one, two)] == ["Undefended", "DROPlet"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["p.html", "--figure-width", "7"], "--figure-width: needs a folder, --out FOLDER"),
        (["p.html", "--figure-font", "Nosuch"], "--figure-font: needs a folder, --out FOLDER"),
        (["p.html", "--no-figures"], "--no-figures: needs a folder, --out FOLDER"),
        (["x", "--no-figures", "--figure-font-size", "9"], "--figure-font-size: needs figures;"),
    ],
)
def test_options_of_figures_that_are_not_drawn_are_refused(
    runs, tmp_path, capsys, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert main(["report", str(runs[0]), "--out", *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("width", "0.1", "--figure-width = 0.1: allowed are 1.5 to 20 inches."),
        ("width", "nan", "--figure-width = nan: allowed are 1.5 to 20 inches."),
        ("font-size", "99", "--figure-font-size = 99: allowed are 3 to 40 points."),
        ("font", "No Such Font", '--figure-font = "No Such Font": is no font on this machine.'),
    ],
)
def test_figures_that_cannot_be_are_refused_in_one_sentence(
    runs, tmp_path, capsys, option, value, said
):
    pytest.importorskip("matplotlib")
    out = tmp_path / "report"
    assert main(["report", str(runs[0]), "--out", str(out), f"--figure-{option}", value]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
