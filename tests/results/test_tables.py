"""Tables as texts: read back where a library reads them, by eye where a person does."""

import csv
import io
import math
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entity.results.tables import Column, Spread, Table, to_csv, to_latex, to_markdown

COLUMNS = (
    Column("defense"),
    Column("K"),
    Column("mta", "%", title="MTA"),
    Column("asr", "%", spread=True),
    Column("seconds", "s"),
)
TABLE = Table(
    COLUMNS,
    (
        ("trimmed_mean", 5, 0.98765, Spread(0.5, 0.25, 3), 12.345),
        ("a|b & $c%", None, None, None, None),
        ("one", True, 1.0, Spread(0.0, None, 1), 7),
    ),
)


def test_csv_holds_every_number_as_it_was_measured():
    lines = list(csv.reader(io.StringIO(to_csv(TABLE))))
    assert lines == [
        ["defense", "K", "mta", "asr_mean", "asr_sd", "asr_n", "seconds"],
        ["trimmed_mean", "5", "0.98765", "0.5", "0.25", "3", "12.345"],
        ["a|b & $c%", "", "", "", "", "0", ""],
        ["one", "true", "1.0", "0.0", "", "1", "7"],
    ]


def test_markdown_shows_percent_and_keeps_its_columns_apart():
    assert to_markdown(TABLE).splitlines() == [
        "| defense | K | MTA % | asr % | seconds |",
        "| --- | --- | ---: | ---: | ---: |",
        "| trimmed\\_mean | 5 | 98.8 | 50.0 ± 25.0 | 12.3 |",
        "| a\\|b & $c% | - | - | - | - |",
        "| one | true | 100.0 | 0.0 | 7.0 |",
    ]


def test_latex_has_booktabs_rules_and_no_character_of_its_own_meaning():
    assert to_latex(TABLE).splitlines() == [
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        r"defense & K & MTA \% & asr \% & seconds \\",
        r"\midrule",
        r"trimmed\_mean & 5 & 98.8 & 50.0 $\pm$ 25.0 & 12.3 \\",
        r"a|b \& \$c\% & -- & -- & -- & -- \\",
        r"one & true & 100.0 & 0.0 & 7.0 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_mean_of_fewer_runs_than_the_row_has_says_so():
    spreads = (Spread(0.2, 0.1, 3, 6),), (Spread(0.2, 0.1, 3, 3),)
    table = Table((Column("asr", "%", spread=True),), spreads)
    assert [cell for (cell,) in table.texts()] == ["20.0 ± 10.0 (n = 3)", "20.0 ± 10.0"]


def test_a_line_of_latex_that_begins_with_a_bracket_is_no_argument_of_the_rule_above():
    lines = to_latex(Table((Column("pattern"), Column("K")), (([[0, 0]], 5),))).splitlines()
    assert lines[4] == r"{[}[0, 0]] & 5 \\"


def test_every_special_character_is_escaped_in_latex():
    cell = to_latex(Table((Column("x"),), (("\\{}$&#%_^~<>\n\r end",),))).splitlines()[4]
    assert cell == (
        r"\textbackslash{}\{\}\$\&\#\%\_\textasciicircum{}\textasciitilde{}"
        r"\textless{}\textgreater{} end \\"
    )


def test_a_table_without_rows_is_its_headings():
    empty = Table(COLUMNS)
    assert to_csv(empty) == "defense,K,mta,asr_mean,asr_sd,asr_n,seconds\n"
    assert len(to_markdown(empty).splitlines()) == 2
    assert len(to_latex(empty).splitlines()) == 6


def test_lists_and_what_is_not_finite():
    table = Table((Column("x"), Column("y", "%")), (([[0, 1]], math.nan), ((2,), math.inf)))
    assert to_csv(table) == 'x,y\n"[[0, 1]]",\n[2],\n'


CELLS = st.text(st.characters(exclude_characters="\r")) | st.none() | st.integers()


def _in_csv(cell):
    """Return a cell's text, with an apostrophe where a spreadsheet would run it."""
    risky = isinstance(cell, str) and cell[:1] in tuple("=+-@\t")
    try:
        float(cell)
    except ValueError:
        return f"'{cell}" if risky else cell
    return str(cell)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=4))
def test_any_text_survives_csv_and_stays_in_its_cell_elsewhere(rows):
    table = Table(tuple(Column(name) for name in "abc"), tuple(map(tuple, rows)))
    expected = [["" if cell is None else _in_csv(cell) for cell in row] for row in rows]
    assert list(csv.reader(io.StringIO(to_csv(table), newline="")))[1:] == expected
    latex = to_latex(table).splitlines()[4:-2]
    assert len(latex) == len(rows)
    assert all(line.replace(r"\&", "").count("&") == 2 for line in latex)
    markdown = to_markdown(table).split("\n")[2:-1]
    assert len(markdown) == len(rows)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6))
def test_spreads_are_mean_and_sample_deviation(values):
    found = Spread.of(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(mean(values), abs=1e-6)
    assert found.sd == pytest.approx(stdev(values), abs=1e-6)


def test_one_value_has_no_deviation_and_none_has_no_mean():
    assert Spread.of([0.5]) == Spread(0.5, None, 1)
    assert Spread.of([]) is None


def test_texts_that_a_spreadsheet_would_run_are_inert_in_csv_and_numbers_are_numbers():
    cells = ("=1+2", "+x", "-x", "@SUM(A1)", "\tx", "-0.5", "1e-3", "a=b", -3, None)
    table = Table((*(Column(f"c{i}") for i in range(9)), Column("=c")), (cells,))
    names, row = csv.reader(io.StringIO(to_csv(table)))
    assert names[-1] == "'=c"
    assert row == ["'=1+2", "'+x", "'-x", "'@SUM(A1)", "'\tx", "-0.5", "1e-3", "a=b", "-3", ""]
