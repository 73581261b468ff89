"""Not only images: the text task of `examples/text` and the waves of `examples/own`."""

from pathlib import Path

import pytest
import torch
from plugin_registry import forget

import entity
from entity.cli import main
from entity.config.schema import ConfigError
from entity.dataset import find
from entity.defenses import DEFENSES
from entity.poisons import POISONS
from entity.seeding import Seeds
from entity.setup.assembly import recruit

EXAMPLES = Path(__file__).parents[1] / "examples"
BOOKS, WAVES = EXAMPLES / "text/books.yaml", EXAMPLES / "own/waves.yaml"
MAKE_IMAGES = {"drop", "deepsight", "flip", "backdoor_indicator"}
QUICK = {"rounds": 2, "num_epochs": 1, "seed": 1, "engine": "inline", "num_threads": 1, "cuda": -1}
ARGS = {
    "crowdguard": {"voters": 2, "samples": 10},
    "flare": {"num_seed": 30},
    "fltrust": {"num_root": 30},
    "finetuning": {"num_seed": 30},
    "crfl": {"certified_images": 4, "certified_votes": 20},
    "snowball": {"vae_initial": 2, "vae_tuning": 1},
}


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """Keep caches and registries apart."""
    monkeypatch.setenv("DROP_DATA", str(tmp_path))
    yield
    forget()


@pytest.mark.parametrize("defense", DEFENSES)
def test_text_is_defended_by_all_that_do_not_make_up_images(defense):
    args = {f"defense_args.{name}": value for name, value in ARGS.get(defense, {}).items()}
    changes = {**QUICK, "defense.type": defense, **args}
    if defense in MAKE_IMAGES:
        with pytest.raises(ConfigError) as refusal:
            entity.load(BOOKS, **changes)
        text = str(refusal.value)
        assert f"server.defense.type = {defense}: makes up square images of bytes, and a" in text
        assert "sample of books is none (10)" in text
        return
    config = entity.load(BOOKS, **changes)
    result = entity.run(config)
    start = recruit(config, Seeds(1))[1].spec.flatten(recruit(config, Seeds(1))[1].new_model())
    assert len(result.rounds) == 2
    assert torch.isfinite(result.state.weights).all()
    assert not torch.equal(result.state.weights, start.weights)
    assert sum(len(line["accepted"]) for line in result.rounds) > 0


@pytest.mark.slow
def test_the_task_is_learnt_the_word_works_and_droplet_ends_it():
    changes = {**QUICK, "num_epochs": 5, "rounds": 30}
    for defense, lowest, highest in (("undefended", 0.5, 1.0), ("droplet", 0.0, 0.1)):
        summary = entity.run(entity.load(BOOKS, **changes, **{"defense.type": defense})).summary
        assert summary["mta"]["last10"] > 0.85
        assert lowest <= summary["asr"]["last10"] <= highest


def test_drop_without_distillation_takes_text():
    given = {"defense.type": "drop", "K": -1}
    assert entity.load(BOOKS, **QUICK, **given).server.defense.defense_args.K == -1


def test_the_word_is_put_where_it_belongs_and_the_test_set_is_the_victims():
    config = entity.load(BOOKS, **QUICK, word_place=2)
    split, roster = recruit(config, Seeds(1))
    assert split.train.dtype == torch.int64
    attacked = roster.poison.test_set(split.test)
    victims = split.test.y == 1  # sonnets
    assert len(attacked) == int(victims.sum())
    assert bool((attacked.x[:, 2] == 1).all())
    others = torch.arange(10) != 2
    assert torch.equal(attacked.x[:, others], split.test.x[victims][:, others])
    assert not bool((split.train.x == 1).any())  # no book has the word


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vectorized", "pool"])
def test_engines_take_whole_numbers(engine):
    config = entity.load(BOOKS, **{**QUICK, "engine": engine, "rounds": 1})
    inline = entity.run(entity.load(BOOKS, **{**QUICK, "rounds": 1}))
    other = entity.run(config)
    assert torch.allclose(inline.state.weights, other.state.weights, atol=1e-4)
    if engine == "pool":
        assert torch.equal(inline.state.weights, other.state.weights)


def test_poisons_and_models_of_images_are_refused_on_other_samples(tmp_path):
    for poison in sorted(set(POISONS) - {"label_flip", "edge_case"}):
        with pytest.raises(ConfigError, match="changes square images of bytes") as refusal:
            entity.load(WAVES, poison=poison)
        assert "use label_flip" in str(refusal.value)
    with pytest.raises(ConfigError, match="model = cnn: takes square images, and a"):
        entity.load(WAVES, model="cnn")
    waves = str(EXAMPLES / "own/waves.py")
    config = entity.load("mnist5k/undefended", model="wave_net", plugins=[waves])
    with pytest.raises(ConfigError, match=r'^model = "wave_net": the call with .*\(1, 28, 10\)'):
        entity.run(config)
    with pytest.raises(ConfigError, match="image_size = 8: allowed is 64 or null"):
        find("waves", tmp_path, 8)


def test_own_data_are_listed_verified_and_previewed(capsys, tmp_path):
    brought = ["--plugins", str(EXAMPLES / "own/waves.py")]
    assert main(["data", "list", *brought]) == 0
    assert "waves" in capsys.readouterr().out
    assert main(["data", "verify", "waves", *brought]) == 0
    assert "All is as it should be." in capsys.readouterr().out
    assert main(["data", "preview", "--config", str(WAVES)]) == 0
    assert "class 0 (sine) to be read as 2 (saw)" in " ".join(capsys.readouterr().out.split())
