import io

import pytest
from PIL import Image

from entity.cli import main
from entity.config.schema import ConfigError
from entity.report import paper_figures, write_folder


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
    assert names(out) == sorted(["index.html", *tables, *figures])
    assert "Over seeds" in (out / "index.html").read_text()
    assert "| DROPlet |" in (out / "tables" / "asr.md").read_text()
    assert "MTA" not in (out / "tables" / "asr.tex").read_text().split(r"\begin{tabular}")[1]
    assert (out / "figures" / "asr.pdf").read_bytes().startswith(b"%PDF-")
    picture = Image.open(io.BytesIO((out / "figures" / "asr.png").read_bytes()))
    assert picture.width > 800  # a column of a paper at 300 dots an inch
    assert str(out / "index.html") in capsys.readouterr().out.replace("\n", "")


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
