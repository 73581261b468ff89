"""The attack at the top of the page: read from a run's example, whatever has become of it."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from entity.report import read_run, write_page
from entity.report.artifacts import read_example
from entity.report.entries import make_entries
from entity.report.trigger_cards import MOST_CARDS, draw_triggers

NAMES = [f"{digit}" for digit in range(9)] + ["nine <b>"]


def softmax(winner, p=0.9):
    scores = np.full(10, (1 - p) / 9, np.float32)
    scores[winner] = p
    return scores


def tensors(clean=(0, 0), triggered=(7, 7), p=0.9, seed=0, shift=0):
    """Two random images, the same with a bright pixel, and models that say so."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 200, (2, 1, 6, 6), dtype=np.uint8)
    stamped = images.copy()
    stamped[:, :, 1, 1 + shift] = 255
    return {
        "clean": images,
        "triggered": stamped,
        "labels": np.array([0, 0]),
        "clean_scores": np.stack([softmax(one, p) for one in clean]),
        "triggered_scores": np.stack([softmax(one, p) for one in triggered]),
    }


def keep(run, content, target=7, classes=NAMES):
    (run / "artifacts").mkdir(exist_ok=True)
    said = {"example": json.dumps({"target": target, "classes": classes})}
    save_file(content, run / "artifacts" / "example.safetensors", said)


def cards_of(*runs):
    return draw_triggers(make_entries([read_run(run) for run in runs]))


def pixels(picture):
    data = base64.b64decode(picture.src.removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(data)))


def test_runs_that_saw_one_pair_share_a_card_with_each_ones_answers(make_run, tmp_path):
    undefended, drop = make_run("a", "undefended", rounds=2), make_run("b", "drop", rounds=2)
    keep(undefended, tensors(triggered=(7, 9)))
    keep(drop, tensors(triggered=(0, 0), p=0.75))
    [card] = cards_of(undefended, drop).cards
    clean, triggered, difference = card.pictures
    assert np.array_equal(pixels(clean), tensors()["clean"][0, 0])
    assert np.array_equal(pixels(triggered), tensors()["triggered"][0, 0])
    middle = np.full((6, 6), 128, np.uint8)
    middle[1, 1] = 255
    assert np.array_equal(pixels(difference), middle)
    assert "changes 1 of 36 pixels" in card.caption
    answers = [(row.clean, row.triggered) for row in card.rows]
    assert [[(one.said, one.kind) for one in both] for both in answers] == [
        [("0", "right"), ("7", "wanted")],
        [("0", "right"), ("0", "right")],
    ]
    assert answers[1][1].confidence.startswith("75.0")
    assert card.rows[0].others[0][1].said == "nine <b>"
    page = write_page([undefended, drop], tmp_path / "page.html").read_text()
    assert page.index('id="attack"') < page.index('id="results"')
    assert page.count('<small class="wanted">') == 1
    assert "nine &lt;b&gt;" in page
    assert "nine <b>" not in page


def test_seeds_are_counted(make_recorded):
    runs = [make_recorded(f"{seed}", "drop", seed=seed) for seed in (1, 2, 3)]
    for run, said, p in zip(runs, (7, 0, 7), (0.9, 0.9, 0.7), strict=True):
        keep(run, tensors(triggered=(said, 0), p=p))
    [card] = cards_of(*runs).cards
    [row] = card.rows
    assert row.triggered.said == "7 (2 of 3 seeds)"
    assert row.triggered.confidence.startswith("80.0")
    assert row.clean.said == "0"


def test_a_trigger_of_its_own_in_every_run_has_a_card_of_its_own(make_recorded):
    runs = [make_recorded(f"{place}", "drop", seed=place) for place in range(MOST_CARDS + 2)]
    for place, run in enumerate(runs):
        keep(run, tensors(seed=place))
    drawn = cards_of(*runs)
    assert (len(drawn.cards), drawn.left_out) == (MOST_CARDS, 2)


def test_faint_triggers_are_amplified_and_absent_ones_said_to_be_absent(make_run):
    run = make_run("a", rounds=2)
    content = tensors()
    content["triggered"] = content["clean"] + np.uint8(4)
    keep(run, content)
    [card] = cards_of(run).cards
    assert card.pictures[2].caption == "difference, 32 times"
    assert "36 of 36 pixels, the most changed by 4" in card.caption.replace(
        "\N{NO-BREAK SPACE}", " "
    )
    keep(run, content | {"triggered": content["clean"]})
    [card] = cards_of(run).cards
    assert len(card.pictures) == 2
    assert "no trigger" in card.caption


def test_parts_and_images_of_the_attacks_own(make_run):
    run = make_run("a", rounds=2)
    keep(run, tensors() | {"parts": tensors()["triggered"]})
    [card] = cards_of(run).cards
    assert [one.caption for one in card.pictures[3:]] == ["part 1", "part 2"]
    assert "one of 2 parts" in card.caption
    whole = tensors()
    keep(run, {name: whole[name] for name in ("triggered", "triggered_scores")})
    [card] = cards_of(run).cards
    assert len(card.pictures) == 1
    assert card.rows[0].clean is None
    assert card.rows[0].triggered.kind == "wanted"


def test_runs_without_an_example_are_named_only_beside_others(make_run):
    old, new = make_run("old", "droplet", rounds=2), make_run("new", "drop", rounds=2)
    assert cards_of(old, new).cards == cards_of(old, new).unknown == []
    keep(new, tensors())
    assert cards_of(old, new).unknown == ["DROPlet"]


def test_no_number_is_no_class(make_run):
    run = make_run("a", rounds=2)
    content = tensors()
    content["triggered_scores"][:] = np.nan
    keep(run, content)
    [card] = cards_of(run).cards
    assert (card.rows[0].triggered.said, card.rows[0].triggered.kind) == ("no number", "wrong")


@pytest.mark.parametrize(
    "change",
    [
        {"triggered": np.zeros((2, 2, 6, 6), np.uint8)},
        {"triggered": np.zeros((2, 1, 6, 6), np.float32)},
        {"triggered": np.zeros((17, 1, 6, 6), np.uint8)},
        {"triggered": np.zeros((1, 1, 5000, 5000), np.uint8)},
        {"triggered_scores": np.zeros((3, 10), np.float32)},
        {"triggered_scores": np.zeros((2, 0), np.float32)},
    ],
)
def test_what_is_no_example_is_passed_over(tmp_path, change):
    keep(tmp_path, tensors())
    assert read_example(tmp_path / "artifacts") is not None
    keep(tmp_path, tensors() | change)
    assert read_example(tmp_path / "artifacts") is None


def test_damage_is_passed_over(tmp_path):
    folder = tmp_path / "artifacts"
    assert read_example(folder) is None
    for options in ({"target": None}, {"classes": "ten"}):
        keep(tmp_path, tensors(), **options)
        assert read_example(folder) is None
    keep(tmp_path, tensors())
    file = folder / "example.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    assert read_example(folder) is None
    file.unlink()
    file.mkdir()
    assert read_example(folder) is None


@pytest.mark.parametrize("lost", ["clean", "clean_scores", "labels"])
def test_without_its_clean_images_the_attacked_ones_are_shown(tmp_path, lost):
    content = tensors()
    del content[lost]
    keep(tmp_path, content)
    found = read_example(tmp_path / "artifacts")
    assert found.clean is None
    assert found.labels == ()
