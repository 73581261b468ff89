import json

import pytest

from entity.report import read_run
from entity.report.certified import certificates, departures, draw_certificates, table
from entity.report.entries import make_entries
from entity.report.page import write_page
from entity.results.formatting import NONE


def certify(path, **certificate):
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps(summary | {"certificate": certificate}))
    return path


def entries_of(*paths):
    return make_entries([read_run(path) for path in paths])


def written(found):
    ((_, cells),) = table(found)
    return [cell.replace("\xa0", " ") for cell in cells]


@pytest.fixture
def two_seeds(make_recorded):
    """Two runs of one configuration: 6 and 4 images, 5 and 3 right, 4 and 2 of them certified."""
    parts = [
        {"images": 6, "accuracy": 5 / 6, "radii": [0.9, 0.5, 0.2, 0.2], "departures": ["a", "b"]},
        {"images": 4, "accuracy": 3 / 4, "radii": [0.4, 0.1], "departures": ["b"]},
    ]
    return [
        certify(make_recorded(f"{seed}", "krum", seed=seed), **part)
        for seed, part in enumerate(parts)
    ]


def test_the_curve_falls_by_one_image_at_each_radius(two_seeds):
    (found,) = certificates(entries_of(*two_seeds))
    radii, shares = found.curve
    assert radii == [0, 0.1, 0.2, 0.2, 0.4, 0.5, 0.9]
    assert shares == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    for radius in (0.0, 0.15, 0.3, 0.45, 0.8, 1.0):  # the definition, image by image
        drawn = shares[max(place for place, at in enumerate(radii) if at <= radius)]
        every = [0.9, 0.5, 0.2, 0.2, 0.4, 0.1, 0, 0, 0, 0]
        assert drawn == pytest.approx(sum(own > radius for own in every) / 10)


def test_the_table_has_images_accuracies_and_the_median_radius(two_seeds):
    found = certificates(entries_of(*two_seeds))
    assert written(found) == ["10", "80.0 %", "60.0 %", "0.2"]
    assert sum(radius >= found[0].median for radius in found[0].radii) >= 5
    certify(two_seeds[0], images=60, accuracy=0.5, radii=[0.3], departures=[])
    certify(two_seeds[1], images=0, accuracy=None, radii=[], departures=[])
    assert written(certificates(entries_of(*two_seeds))) == ["60", "50.0 %", "1.7 %", NONE]


def test_what_the_theorem_does_not_cover_is_said_once(two_seeds):
    ((_, words),) = departures(certificates(entries_of(*two_seeds)))
    assert words == "a; b"


def test_runs_without_a_certificate_have_no_section(make_recorded, two_seeds, tmp_path):
    without = make_recorded("none", "median")
    assert certificates(entries_of(without)) == []
    assert draw_certificates([]) is None
    assert 'id="certificates"' not in write_page([without], tmp_path / "a.html").read_text()
    page = write_page([without, *two_seeds], tmp_path / "b.html").read_text()
    assert 'id="certificates"' in page
    assert "an estimate and no proof, since a; b." in page
    (only,) = certificates(entries_of(without, *two_seeds))
    assert only.group.index == 1


def test_a_broken_certificate_is_left_out(make_recorded):
    path = certify(make_recorded("a", "krum"), images="many", radii=3)
    assert certificates(entries_of(path)) == []
