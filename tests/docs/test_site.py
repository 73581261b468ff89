"""The documentation site: its checker finds dead links, its pages name every method and field."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "site"


@pytest.fixture
def checker(monkeypatch):
    monkeypatch.syspath_prepend(str(SITE))
    sys.modules.pop("check", None)
    import check

    return check


def test_links_lead_somewhere_in_the_repository_too():
    """Who reads the sources, as on a page of the code's host, has no made pages."""
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    dead = [
        f"{text.relative_to(ROOT)}: {link}"
        for text in texts
        for link in re.findall(r"\]\(([^)\s#]+)", re.sub(r"(?ms)^```.*?^```", "", text.read_text()))
        if not re.match(r"[a-z]+:", link) and not (text.parent / link).exists()
    ]
    assert dead == []


def page(body: str) -> str:
    return f"<html><head><title>t</title></head><body>{body}</body></html>"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="b.html#there">x</a><a href="#own">x</a><p id="own">', ""),
        ('<a href="c.html">x</a>', "a.html: c.html leads to no page"),
        ('<a href="b.html#gone">x</a>', "a.html: b.html#gone leads to no such place on its page"),
        ('<img src="no.png">', "a.html: no.png leads to no page"),
        ('<script src="https://cdn.test/x.js"></script>', "a.html: loads https://cdn.test/x.js"),
        ('<link rel="stylesheet" href="//f.test/x.css">', "a.html: loads //f.test/x.css"),
        ('<a href="https://elsewhere.test/">x</a>', ""),
    ],
)
def test_dead_links_and_what_is_loaded_from_elsewhere_are_named(checker, tmp_path, body, fault):
    (tmp_path / "a.html").write_text(page(body))
    (tmp_path / "b.html").write_text(page('<p id="there">'))
    assert checker.faults(tmp_path) == ([fault] if fault else [])


def test_style_sheets_load_nothing_from_elsewhere_and_a_site_without_pages_is_none(
    checker, tmp_path
):
    (tmp_path / "a.css").write_text("a{b:url(x.svg)} c{d:url('https://f.test/f.woff')}")
    assert checker.faults(tmp_path) == [
        f"{tmp_path}: no page",
        "a.css: loads https://f.test/f.woff",
    ]


@pytest.fixture(scope="module")
def pages():
    pytest.importorskip("latex2mathml", reason="needs the extra docs")
    sys.path.insert(0, str(SITE))
    import made_pages as pages

    yield pages
    sys.path.remove(str(SITE))


def test_every_method_has_a_formula_that_is_drawn_without_leftovers(pages):
    for kind, registry in pages.KINDS.items():
        assert list(pages.formulas()[kind]) == list(registry)
        for entry in pages.formulas()[kind].values():
            assert set(entry) == {"formula", "where"}
            drawn = pages.mathml(entry["formula"])
            assert "<math" in drawn
            assert "\\" not in drawn.replace("\\{", "").replace("\\}", "")


def test_a_defense_s_page_says_what_code_and_measurements_say(pages):
    text = pages.method("defenses", "flame")
    assert "[arXiv 2101.02281](https://arxiv.org/abs/2101.02281)" in text
    assert "| individual updates | **yes** |" in text
    assert "| clean data | no |" in text
    assert "| `noise_sigma` | a number at least 0 | `0.001` |" in text
    assert f"| {' | '.join(pages.costs()['flame'])} |" in text
    seeds, attacks = 3, 5
    assert text.count('class="asr"') == seeds * attacks
    assert text.count('class="before"') == seeds * attacks
    assert text.count('<rect class="mta"') == seeds * (attacks + 1)


def test_what_has_not_been_measured_says_so_and_a_notebook_is_a_page(pages, monkeypatch, tmp_path):
    monkeypatch.setattr(pages, "costs", dict)
    monkeypatch.setattr(pages.figures, "runs", lambda: pages.figures.defaultdict(list))
    text = pages.method("defenses", "flame")
    assert "It has not been measured." in text
    assert "There is no measurement of it" in text
    cells = [{"cell_type": "markdown", "source": ["# One\n", "two"]}]
    cells.append({"cell_type": "code", "source": ["x = 1"]})
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    assert pages.source("a.ipynb") == "# One\ntwo\n\n~~~~~~python\nx = 1\n~~~~~~"


def test_a_picture_with_a_dark_sibling_is_two_of_which_each_page_shows_one(pages):
    import hooks

    text = "![a](images/report.png){ .report } ![b](images/round.svg) ![c](https://x.test/y.png)"
    assert hooks._with_dark("index.md", text) == (
        "![a](images/report.png#only-light){ .report } "
        "![a](images/report-dark.png#only-dark){ .report } "
        "![b](images/round.svg) ![c](https://x.test/y.png)"
    )


def test_attacks_and_poisons_say_what_they_do_and_are_drawn_by_their_own_code(pages):
    ipm = pages.method("attacks", "ipm")
    assert "clean: it wants a bad model, not a backdoor" in ipm
    assert "agree on what they send" in ipm
    assert ipm.count('class="asr" cx') == 4
    assert pages.method("attacks", "badnets").count("as a benign client's") == 1
    dba = pages.method("poisons", "dba")
    assert dba.count("<img") == 6  # clean, four parts, their union
    assert "is trained by the colluders" in pages.method("poisons", "a3fl")


def test_the_page_of_fields_has_every_field_of_every_method(pages):
    from entity.setup.resolve import fields_of

    text = pages.fields()
    for kind, registry in pages.KINDS.items():
        for name in registry:
            chosen = {"defenses": "undefended", "attacks": "badnets", "poisons": "pixel"}
            chosen[kind] = name
            for field in fields_of(chosen["defenses"], chosen["attacks"], chosen["poisons"]):
                assert f"| `{field.path}` |" in text, field.path


@pytest.mark.slow
def test_the_site_is_built_strictly_and_its_links_lead_somewhere(tmp_path, checker):
    mkdocs = pytest.importorskip("mkdocs.__main__", reason="needs the extra docs")
    from click.testing import CliRunner

    pytest.importorskip("material", reason="needs the extra docs")
    done = CliRunner().invoke(
        mkdocs.cli,
        ["build", "--strict", "-q", "-f", str(ROOT / "mkdocs.yml"), "-d", str(tmp_path / "site")],
    )
    assert done.exit_code == 0, done.output
    assert checker.faults(tmp_path / "site") == []
