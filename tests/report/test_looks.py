"""One colour and sign a defense, and lines that lie on each other told apart."""

import itertools
import re
from importlib.resources import files

import numpy as np
import pytest

from entity.defenses import DEFENSES
from entity.report import read_run
from entity.report.curves import draw_curves
from entity.report.entries import make_entries
from entity.report.looks import COLOURS, KNOWN, SYMBOLS, Look, look_of, looks
from entity.report.overlaps import Stretch, signs, stretches
from entity.report.page import SIGNS
from entity.report.paper_figures import PALETTE
from entity.report.paper_figures import SIGNS as PAPER_SIGNS

CSS = files("entity.report").joinpath("page.css").read_text("utf-8")
DEFICIENT = {
    "full": np.eye(3),
    "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
}
"""Machado et al. (2009), severity 1.0, of linear RGB."""


def lab(colour, sees):
    """Return CIE L*a*b* (D65) of `#rrggbb` as somebody sees it."""
    srgb = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(sees) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ratio = np.array(to_xyz) @ linear / [0.95047, 1.0, 1.08883]
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def palettes():
    """Return the eight colours of the light page, and of paper, and those of the dark one."""
    found = re.findall(r"--run-(\d): (#[0-9a-f]{6})", CSS)
    assert len(found) == 2 * COLOURS  # light, dark
    light, dark = ([colour for _, colour in found[at : at + 8]] for at in (0, 8))
    assert light == list(PALETTE)
    return [light, dark]


@pytest.mark.parametrize("sees", DEFICIENT)
def test_no_two_colours_are_alike_to_anybody(sees):
    for palette in palettes():
        points = [lab(colour, DEFICIENT[sees]) for colour in palette]
        for (one, a), (two, b) in itertools.combinations(enumerate(points), 2):
            assert np.linalg.norm(a - b) > 14, (sees, palette[one], palette[two])


def test_lines_stand_out_from_their_page():
    for palette, page in zip(palettes(), ("#fbfaf7", "#14171a"), strict=True):
        for colour in palette:
            assert abs(lab(colour, np.eye(3))[0] - lab(page, np.eye(3))[0]) > 25, colour


def test_shipped_defenses_have_each_a_look_of_their_own():
    assert len({(look.colour, look.symbol) for look in KNOWN.values()}) == len(KNOWN)
    assert set(KNOWN) <= set(DEFENSES)
    first = ("undefended", "droplet", "drop", "drop_plus", "flame", "multikrum", "median")
    assert len({KNOWN[name].colour for name in first}) == len(first)


def test_a_defense_looks_the_same_beside_any_others():
    alone = dict(zip(("drop", "flame"), looks(["drop", "flame"]), strict=True))
    many = ["krum", "mine", "flame", "undefended", "drop"]
    beside = dict(zip(many, looks(many), strict=True))
    assert all(alone[name] == beside[name] for name in alone)
    assert look_of("mine") == Look(1, "pentagon")  # of its name, on any machine
    assert look_of("fl\udcffawed").colour in range(COLOURS)


def test_groups_of_one_colour_differ_in_their_dashes():
    found = looks(["drop", "undefended"] * 8)
    assert {look.colour for look in found} == {KNOWN["drop"].colour, KNOWN["undefended"].colour}
    assert len(set(found)) == 16
    alone = looks(["drop"] * 10)
    assert alone[0] == KNOWN["drop"]
    assert len({look.colour for look in alone}) == COLOURS
    assert len(set(alone)) == 10


def test_every_sign_can_be_drawn_everywhere():
    assert set(SIGNS) == set(PAPER_SIGNS) == set(SYMBOLS)


def test_stripes_show_every_line_an_equal_share():
    """Painted pixel by pixel along three rounds of the pattern."""
    for count in (2, 3, 5):
        dashes = Stretch(tuple(range(count)), (1, 2), (0.0, 0.0)).dashes()
        seen = np.zeros(27 * 5 * count, int)
        for member, dash in enumerate(dashes):
            if dash != "solid":
                on, off = (int(part.removesuffix("px")) for part in dash.split(","))
                assert on + off == 9 * count
                seen[np.arange(len(seen)) % (on + off) < on] = member
        assert (np.bincount(seen) == len(seen) / count).all()


def test_lines_are_one_where_they_are_near_for_three_rounds():
    rounds = range(1, 9)
    flat = dict.fromkeys(rounds, 0.0)
    rising = {at: 0.0 if at < 5 else 0.1 * at for at in rounds}
    close = {at: 0.004 for at in rounds if at != 3}  # not evaluated in round 3
    found = stretches([flat, rising, close], 0.005)
    assert [(each.members, each.at) for each in found] == [((0, 2), (5, 6, 7, 8))]
    assert found[0].heights == pytest.approx([0.002] * 4)
    assert [each.at for each in stretches([flat, rising], 0.005)] == [(1, 2, 3, 4)]
    ladder = [dict.fromkeys(rounds, 0.004 * step) for step in range(3)]
    assert [each.members for each in stretches(ladder, 0.005)] == [(0, 1)]
    assert stretches([flat], 1) == stretches([], 1) == stretches([flat] * 13, 1) == []


@pytest.mark.parametrize(("points", "lines"), [(60, 4), (40, 8), (500, 12), (7, 1)])
def test_no_two_lines_have_their_signs_at_one_point(points, lines):
    chosen = [signs(points, place, lines) for place in range(lines)]
    assert all(len(each) == 5 and max(each) < points for each in chosen)
    assert len({at for each in chosen for at in each}) == 5 * lines
    assert signs(0, 0, 3) == []
    assert signs(2, 1, 3) == [0, 1]


def test_the_curves_have_stripes_and_signs_that_hide_with_their_group(make_recorded):
    runs = [make_recorded(name, name, rounds=12) for name in ("undefended", "flame", "drop")]
    lines = (runs[1] / "rounds.jsonl").read_text()
    (runs[2] / "rounds.jsonl").write_text(lines)  # the same curves
    entries = make_entries([read_run(run) for run in runs])
    traces = [trace for trace in draw_curves(entries).traces if trace["yaxis"] == "y2"]
    stripes = [trace for trace in traces if trace.get("line", {}).get("width") == 2.5]
    assert {trace["meta"] for trace in stripes if len(trace["x"]) == 12} >= {1, 2}
    for trace in stripes:
        assert trace["hoverinfo"] == "skip"
    marked = {t["meta"]: t["marker"]["symbol"] for t in traces if t["mode"] == "markers"}
    assert marked == {0: "circle", 1: "cross", 2: "triangle-up"}
    points = [set(t["x"]) for t in traces if t["mode"] == "markers"]
    assert not set.intersection(*points)
