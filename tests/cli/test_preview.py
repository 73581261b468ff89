import io
import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from entity.cli.preview import (
    ROWS,
    WIDTH,
    binned,
    classes_held,
    convention,
    described,
    drawn,
    gini,
    preview,
    spread,
    total_variation,
)
from entity.config.fields import ClientConfig
from entity.seeding import Seeds
from entity.setup.assembly import recruit


def plain(renderable) -> str:
    """What a pipe gets: no colours."""
    out = io.StringIO()
    Console(file=out, width=WIDTH).print(renderable)
    return out.getvalue()


# --- statistics


def test_gini_of_hand_made_sizes():
    assert gini(np.array([5, 5, 5])) == 0
    assert gini(np.array([3, 1])) == 0.25
    assert gini(np.array([0, 0, 0, 8])) == 0.75
    assert gini(np.array([7])) == 0
    assert gini(np.array([0, 0])) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any))
def test_gini_is_the_mean_difference_of_all_pairs_over_twice_the_mean(sizes):
    pairs = sum(abs(a - b) for a, b in itertools.product(sizes, sizes))
    expected = pairs / (2 * len(sizes) * sum(sizes))
    assert gini(np.array(sizes)) == pytest.approx(expected)


def test_total_variation_of_hand_made_clients():
    # Of all ten samples, class 0 has 5, class 1 has 4, class 2 has 1.
    counts = np.array([[5, 0, 0], [0, 4, 0], [0, 0, 1], [0, 0, 0]])
    found = total_variation(counts)
    assert found[:3] == pytest.approx([0.5, 0.6, 0.9])
    assert np.isnan(found[3])
    assert total_variation(np.array([[2, 4], [1, 2]])).tolist() == [0, 0]


def test_classes_held_counts_what_is_there():
    assert classes_held(np.array([[5, 0, 1], [0, 0, 0], [1, 1, 1]])).tolist() == [2, 0, 3]


def test_the_statistics_of_a_hand_made_split():
    facts = dict(described(np.array([[3, 0], [0, 1]])))
    assert facts["clients"] == "2 of 1 to 3 (median 2) samples, Gini 0.250"
    assert facts["classes"] == "1 to 1 (median 1) of 2 in a client's data"
    # Mixes (1, 0) and (0, 1) against (3/4, 1/4).
    assert facts["distance"].startswith("0.500 on average, 0.750 at most")
    assert spread([2, 9, 4, 4]) == "2 to 9 (median 4)"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "iid"),
        ({"IID": False}, "dirichlet_class, alpha 1"),
        (
            {"IID": False, "partition": "drop_noniid", "dirichlet_alpha": 0.3},
            "drop_noniid, alpha 0.3",
        ),
        ({"IID": False, "partition": "shards", "shards_per_client": 3}, "shards, 3 per client"),
        ({"ADR": 0.25}, "iid, of 0.25 of the training data (ADR)"),
    ],
)
def test_a_convention_is_named_with_its_parameter(changes, said):
    assert convention(ClientConfig(1, 0.1, 8, **changes)) == said


# --- the map


def test_a_small_map_has_its_numbers_and_marks_who_poisons_how_many():
    lines = plain(drawn(np.array([[12, 0], [3, 4], [0, 9]]), {1: 2, 2: None})).splitlines()
    assert lines[1].split() == ["id", "0", "1", "size", "poisons"]
    assert [line.split() for line in lines[2:]] == [
        ["0", "12", "·", "12"],
        ["1", "!", "3", "4", "7", "2"],
        ["2", "!", "·", "9", "9", "-"],
    ]


def test_a_map_without_room_for_numbers_has_shades_in_four_steps():
    counts = np.zeros((1, 40), dtype=np.int64)
    counts[0, :6] = [1, 25, 26, 51, 76, 100]
    line = plain(drawn(counts, {})).splitlines()[2]
    assert line == " 0   ░░▒▓██" + " " * 34 + "  279"


@example(clients=2, classes=169, most=10**7, bad=True)  # eight digits below "poisons"
@settings(max_examples=40, deadline=None)
@given(
    clients=st.integers(1, 60),
    classes=st.integers(1, 250),
    most=st.sampled_from([1, 9, 99, 5_000, 10**7]),
    bad=st.booleans(),
)
def test_every_map_fits_the_terminal(clients, classes, most, bad):
    counts = np.random.default_rng(0).integers(0, most + 1, (clients, classes))
    counts[0, 0] = most
    text = drawn(counts, {0: most, clients - 1: 0} if bad else {}).plain
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert len(lines) == 2 + min(clients, ROWS) + (clients > ROWS)


def test_more_clients_than_rows_are_counted():
    lines = plain(drawn(np.ones((100, 3), dtype=np.int64), {3: 1, 50: 1, 99: 1})).splitlines()
    assert lines[-1] == "... and 60 more, 2 of them malicious"
    assert lines[-2].split()[0] == "39"
    assert plain(drawn(np.ones((41, 3), dtype=np.int64), {})).endswith("... and 1 more\n")


def test_many_classes_are_added_up_in_columns():
    cells, per_column = binned(np.arange(10)[None], 4)
    assert per_column == 3
    assert cells.tolist() == [[3, 12, 21, 9]]
    same, one = binned(np.arange(10)[None], 10)
    assert (same.tolist(), one) == ([list(range(10))], 1)
    assert "(3 classes a column)" in plain(drawn(np.ones((2, 198), dtype=np.int64), {}))


# --- a configuration's


CHANGES = {
    "client.IID": False,
    "client.dirichlet_alpha": 0.5,
    "client.min_samples": 1,
    "client.ADR": 0.5,
    "federation.size": 6,
    "federation.number_of_malicious_clients": 2,
}


def test_a_preview_shows_what_the_experiment_will_hold(experiment):
    config = experiment(CHANGES)
    text = plain(preview(config))
    assert max(map(len, text.splitlines())) <= WIDTH
    split, roster = recruit(config, Seeds(1))
    for id in range(6):
        labels = roster.images.y[roster.shares[id]]
        row = [str(n) if n else "·" for n in torch.bincount(labels, minlength=10).tolist()]
        mark = ["!"] if id in roster.malicious else []
        poisons = [str(len(roster.targets(id)))] if mark else []
        expected = [str(id), *mark, *row, str(len(labels)), *poisons]
        assert text.splitlines()[2 + id].split() == expected
    total = sum(len(roster.targets(id)) for id in roster.malicious)
    assert "dirichlet_class, alpha 0.5, of 0.5 of the training data (ADR)" in text
    assert "badnets by 2 (!), class 0 to be read as 7" in text
    assert f"poisoned   {total} samples" in text
    held = int(roster.shares.sizes.sum())
    assert f"{held} of {len(split.train)} are the clients', 50 held out for the server" in text


def test_a_preview_builds_no_model(experiment, monkeypatch):
    monkeypatch.setattr("entity.setup.roster.build_for", None)
    assert "mnist5k, seed 1" in plain(preview(experiment(CHANGES)))


def test_pooled_poison_is_shown_where_it_is_held(experiment):
    config = experiment({**CHANGES, "client.attack.non_iid_equal_distribution": True})
    _, roster = recruit(config, Seeds(1))
    lines = plain(preview(config)).splitlines()
    for id in roster.malicious:
        held, poisons = len(roster.samples(id)), len(roster.targets(id))
        assert lines[2 + id].split()[-2:] == [str(held), str(poisons)]
    assert any(len(roster.samples(id)) != len(roster.shares[id]) for id in roster.malicious)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"client.attack": None}, "attack     none"),
        ({"federation.number_of_malicious_clients": 0}, "badnets, but no client is malicious"),
        ({"client.attack.type": "sign_flip"}, "sign_flip by 1 (!), on the model alone"),
        ({"client.attack.victim_class": None}, "all others to be read as 7"),
    ],
)
def test_the_attack_is_said(experiment, changes, said):
    text = plain(preview(experiment(changes)))
    assert said in text
    assert ("poisoned" in text) == ("to be read as" in said)
