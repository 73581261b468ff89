"""What tables and pages say of the rounds that their means are of."""

import json

from rich.console import Console

from entity.cli.run import summaries
from entity.experiment import Result
from entity.record.summary import tail_statistics
from entity.record.window import Window
from entity.report import write_page
from entity.report.entries import make_entries
from entity.report.paper_table import TableRequest
from entity.report.paper_table_text import latex
from entity.report.runs import read_run
from entity.results.store import read_row, remarks
from entity.sweep.verdict_table import remarks as below_a_study
from entity.sweep.verdicts import Outcome

RISING = [0.1 * n for n in range(8)]


def summary_of(mtas, asrs):
    rounds = [{"mta": mta, "asr": asr} for mta, asr in zip(mtas, asrs, strict=True)]
    return {
        "state": "finished",
        "window": Window.of(rounds).as_json(),
        "mta": tail_statistics(rounds, "mta"),
        "asr": tail_statistics(rounds, "asr"),
        "refusals": 0,
        "detection": {"tpr": None, "fpr": None},
        "seconds": {"total": 1.0},
    }


def run_folder(folder, mtas, asrs, tables):
    folder.mkdir()
    config = tables({"federation.rounds": len(mtas)})
    (folder / "config.json").write_text(json.dumps({**config, "name": folder.name}))
    (folder / "summary.json").write_text(json.dumps(summary_of(mtas, asrs)))
    lines = [
        {"round": i, "mta": mta, "asr": asr, "seconds": {}}
        for i, (mta, asr) in enumerate(zip(mtas, asrs, strict=True), start=1)
    ]
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def shown(table):
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table)
    return " ".join(capture.get().split())


def test_the_table_of_a_run_says_how_many_rounds_and_warns_of_a_rise(experiment):
    short = Result(experiment(), None, [], summary_of([0.9] * 8, RISING), None)
    said = shown(summaries([short], ["a"]))
    assert "Mean of the last 8 of 8 rounds" in said
    assert "Still rising over these rounds" in said
    assert said.endswith("where it ends: ASR of a.")
    long = Result(experiment(), None, [], summary_of([0.9] * 40, [0.5] * 40), None)
    both = shown(summaries([short, long], ["a", "b"]))
    assert "Mean of the last 8 to 10 of 8 to 40 rounds" in both
    assert "rising" not in shown(summaries([long], ["b"]))


def test_a_summary_of_an_earlier_version_has_dashes_for_what_it_lacks(experiment):
    """As a finished run that is resumed shows it."""
    old = {"state": "finished", "mta": {"final": 0.9}, "asr": {"last10": 0.25}}
    said = shown(summaries([Result(experiment(), None, [], old, None)], ["a"]))
    assert said.endswith("a - 25.0% - - - - - -")


def test_results_and_studies_say_it_below_their_tables(tmp_path, tables):
    runs = [read_row(run_folder(tmp_path / "a", [0.9] * 8, RISING, tables))]
    caption, warning = remarks(runs)
    assert caption == "MTA and ASR are means of the last 8 of 8 rounds."
    assert warning.endswith("where it ends: ASR of a.")
    assert remarks([]) == []
    outcome = Outcome(("a",), 1, 1, None, None, None, windows=(("a", runs[0].window),))

    class Study:
        source, published, notes = "", None, ()

    first, second, *_ = below_a_study(Study(), [outcome])
    assert first.endswith("a run's MTA and ASR are means of its last 8 of 8 rounds.")
    assert second == warning


def test_page_and_latex_say_it(tmp_path, tables):
    folders = [
        run_folder(tmp_path / "a", [0.9] * 8, RISING, tables),
        run_folder(tmp_path / "b", [0.9] * 8, [0.2] * 8, tables),
    ]
    page = write_page(folders, tmp_path / "page.html").read_text()
    assert "Both are means of the last 8 of 8 rounds, with" in page
    assert "where it ends: ASR of a.</strong>" in page
    assert "last ten" not in page
    text = latex(TableRequest().table(make_entries([read_run(folder) for folder in folders])), "t")
    assert "mean of the last 8 of 8 rounds; one seed" in text
    assert "where it ends: ASR of a." in text
