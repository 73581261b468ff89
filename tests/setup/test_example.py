"""What a finished run keeps to show its attack: images before and after, and the answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import entity.experiment as loop
from entity.dataset import DATASETS, Images, Split
from entity.experiment import run
from entity.record.directory import EXAMPLE
from entity.seeding import Seeds
from entity.setup.assembly import assemble, initial_state
from entity.setup.example import example, first_of_each


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    config = experiment({"federation.rounds": 1})
    return run(config, tmp_path_factory.mktemp("example") / "run")


def shown_by(config):
    """Return the world of a config, and the example of its first model."""
    world = assemble(config)
    model = world.model(initial_state(config, world.roster, world.server))
    return world, model, example(world, model, {})


def test_a_finished_run_keeps_the_first_victims_and_what_its_model_says(finished):
    kept = load_file(finished.folder / EXAMPLE)
    test = DATASETS["mnist5k"].read(None, Seeds(1))[1]
    zeros = test.x[test.y == 0][:4]
    assert torch.equal(kept["clean"], zeros)
    assert kept["labels"].tolist() == [0, 0, 0, 0]
    by_hand = zeros.clone()
    for row, column in ((1, 1), (2, 2), (3, 3), (1, 3)):
        by_hand[:, :, row, column] = 255
    assert torch.equal(kept["triggered"], by_hand)
    assert "parts" not in kept
    world = assemble(finished.config)
    model = world.model(finished.state).eval()
    for name in ("clean", "triggered"):
        with torch.no_grad():
            scores = torch.softmax(model(kept[name].float() / 127.5 - 1), 1)
        assert torch.allclose(kept[f"{name}_scores"], scores, atol=1e-6)
    with safe_open(finished.folder / EXAMPLE, framework="pt") as file:
        said = json.loads(file.metadata()["example"])
    assert said == {"target": 7, "classes": [str(digit) for digit in range(10)]}


def test_showing_changes_no_number(experiment, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "example", lambda *parts: None)
    without = run(experiment({"federation.rounds": 1}), tmp_path / "run")
    assert not (without.folder / EXAMPLE).exists()
    assert torch.equal(without.state.weights, finished.state.weights)
    assert without.summary["config_hash"] == finished.summary["config_hash"]
    assert [line["scores"] for line in without.rounds] == [
        line["scores"] for line in finished.rounds
    ]


def test_a_run_that_is_overwritten_or_taken_up_again_loses_the_old_example(finished, tmp_path):
    config = replace(finished.config, federation=replace(finished.config.federation, rounds=2))

    def stop(line):
        raise KeyboardInterrupt

    for options in ({"resume": True}, {"overwrite": True}):
        first = run(finished.config, tmp_path / str(len(options)), overwrite=True)
        assert (first.folder / EXAMPLE).exists()
        with pytest.raises(KeyboardInterrupt):
            run(config, first.folder, on_round=stop, **options)
        assert not (first.folder / EXAMPLE).exists()


def test_the_parts_of_a_distributed_trigger_make_up_the_whole(experiment):
    _, _, shown = shown_by(experiment({"client.attack.poison": "dba"}))
    tensors = shown.tensors
    parts, clean, whole = tensors["parts"], tensors["clean"][0], tensors["triggered"][0]
    assert parts.shape == (4, *clean.shape)
    assert torch.equal(parts.max(0).values, whole)
    assert all(1 <= int((part != clean).sum()) < int((whole != clean).sum()) for part in parts)


def test_without_a_trigger_both_images_are_the_same(experiment):
    _, _, shown = shown_by(experiment({"client.attack.poison": "label_flip"}))
    assert torch.equal(shown.tensors["clean"], shown.tensors["triggered"])
    assert torch.equal(shown.tensors["clean_scores"], shown.tensors["triggered_scores"])


def test_without_a_victim_class_each_image_is_of_another(experiment):
    _, _, shown = shown_by(experiment({"client.attack.victim_class": None}))
    labels = shown.tensors["labels"].tolist()
    assert len(set(labels)) == 4
    assert 7 not in labels


@pytest.mark.parametrize(
    ("poison", "changes"),
    [("a3fl", {"a3fl_epochs": 1}), ("iba", {"iba_epochs": 1, "iba_local_asr": 0.0})],
)
def test_an_adaptive_attack_is_shown_as_the_colluders_have_learnt_it(experiment, poison, changes):
    fields = {f"client.attack.{name}": value for name, value in changes.items()}
    world, model, first = shown_by(experiment({"client.attack.poison": poison} | fields))
    victims = world.split.test.subset(world.split.test.y == 0)
    rng = torch.Generator().manual_seed(0)
    learnt = dict(world.roster.poison.adapt(model, victims, 1, rng))
    assert not torch.equal(first.tensors["triggered"], victims.x[:4])
    shown = example(world, model, learnt)
    assert not torch.equal(shown.tensors["triggered"], first.tensors["triggered"])
    assert torch.equal(shown.tensors["triggered"], world.roster.poison.test_set(victims).x[:4])


def test_images_that_an_attack_brings_itself_have_no_clean_ones(experiment, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    config = experiment(
        {"client.attack.poison": "edge_case", "client.attack.edge_case_path": str(tmp_path)}
    )
    world, _, shown = shown_by(config)
    assert set(shown.tensors) == {"triggered", "triggered_scores"}
    assert torch.equal(shown.tensors["triggered"], world.roster.poison.held_out)


def test_nothing_is_shown_without_an_attack_or_of_what_is_no_image(experiment):
    assert shown_by(experiment({"client.attack": None}))[2] is None
    world, model, _ = shown_by(experiment())
    words = Images(torch.zeros(5, 12, dtype=torch.int64), torch.zeros(5, dtype=torch.int64))
    split = Split(world.split.train, world.split.server, words)
    assert example(replace(world, split=split), model, {}) is None


def test_the_first_of_each_class_and_then_the_next():
    assert first_of_each(torch.tensor([3, 3, 1, 3, 2]), 4).tolist() == [0, 1, 2, 4]
    assert first_of_each(torch.tensor([3, 3]), 4).tolist() == [0, 1]
    assert first_of_each(torch.tensor([], dtype=torch.int64), 4).tolist() == []
