import base64
import gzip
import html.parser
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from entity.report import read_run, write_page
from entity.report.entries import make_entries
from entity.report.summary import facts

VOID = {"meta", "link", "img", "br", "wbr", "line", "input", "hr"}


class Page(html.parser.HTMLParser):
    """What a browser would see: text, attributes, scripts; refuses tags that do not match."""

    def __init__(self, source):
        super().__init__()
        self.text, self.scripts, self.attributes, self.ids, self.open = [], {}, [], [], []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append((tag, dict(attrs).get("id")))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, name = self.open[-1] if self.open else ("", None)
        if tag == "script":
            self.scripts[name] = data
        elif tag != "style":
            self.text.append(data)

    def figures(self):
        return json.loads(gzip.decompress(base64.b64decode(self.scripts["figures-gz"])))


@pytest.fixture
def page_of(tmp_path):
    def write(runs, **options):
        return Page(write_page(runs, tmp_path / "out" / "page.html", **options).read_text("utf-8"))

    return write


def test_the_page_has_all_its_parts_and_every_figure_has_its_place(three_runs, page_of):
    page = page_of(three_runs)
    sections = {
        "results",
        "curves-h",
        "verdicts",
        "images",
        "trees",
        "time",
        "configuration",
        "detection",
    }
    assert sections <= set(page.ids)
    expected = {"curves", "phases", "roc", "map-0", "map-1", "map-2", "tree-1", "tree-2"}
    assert set(page.figures()) == expected == {one for one in page.ids if one in expected}
    assert len(page.ids) == len(set(page.ids))
    labels = [value for tag, name, value in page.attributes if name == "aria-label" and value]
    assert len(labels) >= len(expected)


def test_the_key_of_the_verdicts_tells_of_clients_that_nobody_judged(make_run, page_of):
    run = make_run("kept", rounds=1)
    line = {"round": 1, "selected": [1, 2], "undecided": [2], "refused": [1], "malicious": [1]}
    (run / "rounds.jsonl").write_text(json.dumps(line))
    said = "not selected, or not judged as the round kept the global model"
    assert said in page_of([run]).text


def test_the_page_loads_nothing_from_anywhere(three_runs, page_of):
    page = page_of(three_runs)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "action", "data", "srcset", "poster"):
            assert value.startswith(("data:image/png", "#")), (tag, name, value[:60])
    assert "default-src 'none'" in next(v for _, n, v in page.attributes if "default-src" in v)
    assert not re.search(r"(fetch|import|XMLHttpRequest)\s*\(", page.scripts[None])


def test_no_path_of_the_machine_gets_into_the_page(three_runs, page_of, tmp_path):
    page = page_of(three_runs)
    everything = "".join(page.text) + json.dumps(page.figures()) + repr(page.attributes)
    assert str(tmp_path) not in everything


def test_text_of_configs_and_reasons_cannot_break_out(make_run, page_of):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}"
    path = make_run("evil", "drop", rounds=3, name=evil)
    lines = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]
    for line in lines:
        line["reasons"] = {str(one): evil for one in line["selected"]}
    (path / "rounds.jsonl").write_text("\n".join(json.dumps(line) for line in lines))

    page = page_of([path], title=evil)

    assert set(page.scripts) == {"figures-gz", "plotly-gz", None}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert any(evil in text for text in page.text)  # and yet it can be read
    specs = page.figures().values()
    for spec in specs:
        spec.pop("alt", None)  # becomes the value of an attribute, where it is only text
    drawn = json.dumps(list(specs))
    assert "<img" not in drawn
    assert "&lt;img" in drawn


@pytest.mark.slow
def test_sixty_runs_stay_under_five_megabytes(make_run, tmp_path):
    kinds = ["undefended", "droplet", "drop"]
    first = [make_run(kind, kind, image=(3, 32, 32)) for kind in kinds]
    out = write_page(first * 20, tmp_path / "many.html")
    assert out.stat().st_size < 5_000_000


def test_the_same_runs_give_the_same_page(three_runs, tmp_path):
    one = write_page(three_runs, tmp_path / "one.html").read_bytes()
    assert write_page(three_runs, tmp_path / "two.html").read_bytes() == one


def test_no_runs_make_a_page_that_says_so(page_of):
    page = page_of([])
    assert "There are no runs to report" in "".join(page.text)
    assert set(page.scripts) == {None}


def test_a_run_that_never_began_has_sentences_in_place_of_figures(tmp_path, page_of):
    path = tmp_path / "begun"
    path.mkdir()
    (path / "config.json").write_text("{}")
    text = "".join(page_of([path]).text)
    for sentence in ("No round was evaluated", "No round was recorded", "No times were recorded"):
        assert sentence in text


def test_a_partial_run_is_shown_as_far_as_it_went(make_run, page_of):
    page = page_of([make_run("cut", "drop", rounds=40, stop=7)])
    assert "partial: 7 of 40 rounds" in "".join(page.text)
    assert len(page.figures()["map-0"]["data"][0]["x"]) == 7


def test_one_round_of_one_client_makes_a_page(make_run, page_of):
    run = make_run("one", "undefended", rounds=1, clients=1, malicious=0)
    assert {"curves", "map-0", "phases"} <= set(page_of([run]).figures())


CHECK = """
<script>
addEventListener("error", (event) => console.error(event.message));
setTimeout(() => {
  const asr = document.querySelectorAll(".results th button")[3];
  const first = () => document.querySelector(".results tbody th").textContent.trim();
  const seen = { drawn: document.querySelectorAll(".plot .main-svg").length };
  asr.click(); seen.lowest = first();
  asr.click(); seen.highest = first();
  const curves = document.getElementById("curves");
  const line = () => curves.querySelector(".scatterlayer .js-line").style.stroke;
  const before = [document.documentElement.dataset.theme, line()];
  document.getElementById("theme").click();
  seen.recoloured = before.every((one, index) =>
    one !== [document.documentElement.dataset.theme, line()][index]);
  document.querySelector(".legend button").click();
  seen.shown = curves.data.filter((trace) => trace.visible).length;
  document.body.dataset.seen = JSON.stringify(seen);
}, 2500);
</script>
"""


def test_what_is_sorted_as_numbers_is_numbers_or_nothing(make_run, tmp_path):
    """The page's script puts "" last, and compares what is not numeric as words."""
    runs = [make_run(name, rounds=1, name=name) for name in "abcd"]
    values = (
        {"warm": True, "decay": None},
        {"warm": False, "decay": 2},
        {"warm": True, "decay": 10},
        {"decay": 10},
    )
    for run, fields in zip(runs, values, strict=True):
        config = json.loads((run / "config.json").read_text())
        config["client"] |= fields
        (run / "config.json").write_text(json.dumps(config))
    text = write_page(runs, tmp_path / "page.html").read_text("utf-8")
    [table] = re.findall(r'<table class="[^"]*results.*?</table>', text, re.DOTALL)
    heads = [
        ("num" in said, title)
        for said, title in re.findall(r'<th scope="col"([^>]*)>.*?>([^<]*)</button>', table)
    ]
    lines = re.findall(r"<tr data-run.*?</tr>", table, re.DOTALL)
    cells = [re.findall(r'<t[dh][^>]*data-value="([^"]*)"', line) for line in lines]
    columns = dict(zip(heads, zip(*cells, strict=True), strict=True))
    assert columns[False, "warm"] == ("yes", "no", "yes", "")
    assert columns[True, "decay"] == ("", "2", "10", "10")


@pytest.mark.slow
def test_a_browser_draws_sorts_and_recolours_without_an_error(three_runs, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    page = write_page(three_runs, tmp_path / "page.html")
    page.write_text(page.read_text("utf-8") + CHECK, "utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync "
        "--enable-logging=stderr --v=0 --window-size=1200,6000 --virtual-time-budget=4000 "
        f"--user-data-dir={tmp_path / 'profile'} --dump-dom"
    )
    done = subprocess.run(
        [chromium, *flags.split(), page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    found = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert found is not None
    seen = json.loads(html.unescape(found[1]))
    assert seen["drawn"] >= 7
    assert (seen["lowest"], seen["highest"][:10]) == ("DROP", "Undefended")
    assert seen["recoloured"] is True
    # Two curves a run, each with its signs, and the marks of drop, without one run.
    assert seen["shown"] == 13 - 4


@pytest.mark.parametrize(
    ("dataset", "written"),
    [("cifar10", "0 (airplane) → 7 (horse)"), ("mnist5k", "0 → 7"), ("elsewhere", "0 → 7")],
)
def test_classes_have_their_names_where_the_data_set_has_any(make_run, dataset, written):
    run = read_run(make_run("run", rounds=1))
    client = {"attack": {"type": "badnets", "victim_class": 0, "target_class": 7}}
    run = replace(run, config={**run.config, "dataset": dataset, "client": client})
    assert dict(facts(make_entries([run])))["classes"] == written
