"""Models that are too small, and batches of one sample, are refused before a folder is made."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from entity.config.schema import ConfigError
from entity.experiment import run
from entity.models import Classifier


def flat(channels, size, classes):
    """A user's model whose BatchNorm1d sees one value a channel and sample."""
    features = nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 8), nn.BatchNorm1d(8))
    return Classifier(features, nn.Linear(8, classes))


@pytest.fixture
def tiny_images(tmp_path):
    """Make a data set of two classes, 20 images of a size in each."""

    def make(size):
        rng = np.random.default_rng(1)
        for split in ("train", "test"):
            for name in ("cats", "dogs"):
                place = tmp_path / "data" / "pets" / split / name
                place.mkdir(parents=True)
                for number in range(20):
                    pixels = rng.integers(256, size=(size, size), dtype=np.uint8)
                    Image.fromarray(pixels).save(place / f"{number}.png")
        return {
            **{"dataset": "imagefolder:pets", "settings.datasets_path": str(tmp_path / "data")},
            **{"client.attack": None, "client.ADR": 1.0, "server.held_out": 0},
        }

    return make


@pytest.mark.parametrize(
    ("model", "size", "mend"),
    [
        ("lenet", 12, "images from 16x16 pixels on, or another model (cnn, resnet8, "),
        ("cnn", 3, "images from 4x4 pixels on, or another model (resnet8, "),
        ("vit", 2, "images from 4x4 pixels on"),
    ],
)
def test_images_too_small_for_the_model_are_refused(
    experiment, tiny_images, tmp_path, model, size, mend
):
    with pytest.raises(ConfigError) as error:
        run(experiment({**tiny_images(size), "model": model}), tmp_path / "run")
    said = str(error.value)
    assert said.startswith(
        f"model = {model}: cannot be trained on images of {size}x{size} pixels; allowed are {mend}"
    )
    assert "\n" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"client.batch_size": 1}, "client.batch_size = 1: allowed is at least 2"),
        ({"federation.size": 700, "client.ADR": 0.2}, "federation.size = 700: "),
        (
            {"server.defense": {"type": "fltrust", "defense_args": {"num_root": 1}}},
            "server.defense.defense_args.num_root = 1: allowed is at least 2",
        ),
        (
            {"server.defense": {"type": "finetuning", "defense_args": {"batch_size": 1}}},
            "server.defense.defense_args.batch_size = 1: allowed is at least 2",
        ),
    ],
)
@pytest.mark.parametrize("model", ["flat", "cnn"])
def test_batches_of_one_sample_are_refused_where_batch_norm_cannot_take_them(
    experiment, tmp_path, changes, field, model
):
    """And the small cnn, which has no BatchNorm, trains on them."""
    name = f"{__name__}:flat" if model == "flat" else model
    config = experiment({"federation.rounds": 1, "client.attack": None, **changes, "model": name})
    if model == "cnn":
        assert run(config).summary["state"] == "finished"
        return
    with pytest.raises(ConfigError) as error:
        run(config, tmp_path / "run")
    said = str(error.value)
    assert said.startswith(field)
    assert f"model = {name} cannot be trained on one sample of 28x28 pixels" in said
    assert not (tmp_path / "run").exists()


def test_one_sample_that_is_left_over_sits_out_and_the_run_goes_on(experiment):
    """300 digits of 4 clients are 75 each: with batches of 37 one is left over."""
    config = experiment(
        {
            **{"client.ADR": 300 / 3950, "client.attack": None, "client.batch_size": 37},
            **{"model": f"{__name__}:flat", "federation.rounds": 1},
        }
    )
    result = run(config)
    assert result.summary["state"] == "finished"
    assert torch.isfinite(result.state.weights).all()
