import json

import pytest

from entity.cli import demo
from entity.cli.demo import DEFENSES, run_demo
from entity.config.schema import ConfigError
from entity.config.shipped import shipped
from entity.experiment import run
from entity.setup import resolve
from entity.sweep import study
from entity.sweep.cells import expand


def test_the_demo_compares_one_federation_under_its_defenses():
    configs = [resolve.experiment(resolve.read(shipped(f"mnist5k/{name}"))) for name in DEFENSES]
    assert [config.server.defense.type for config in configs] == list(DEFENSES)
    first = configs[0]
    for config in configs:
        assert (config.client, config.federation) == (first.client, first.federation)
        assert config.settings.seed == first.settings.seed
        assert config.server.held_out == first.server.held_out
    assert first.dataset == "mnist5k"  # comes with the installation: nothing is downloaded


def test_shipped_configurations_are_files_of_the_package():
    assert shipped("mnist5k/drop").is_file()
    with pytest.raises(ConfigError, match="No such file"):
        resolve.read(shipped("mnist5k/nothing"))


def test_the_demo_leaves_its_runs_and_their_page(tmp_path, monkeypatch, tables):
    quick = {
        "undefended": None,
        "droplet": {"type": "droplet"},
        "drop": {
            "type": "drop",
            "defense_args": {
                "K": 1,
                "distill_iters": 1,
                "batch_size": 8,
                "num_seed": 20,
                "iter_clone": 1,
                "iter_exp": 0,
                "gen_width": 4,
                "dis_width": 4,
            },
        },
        "drop_plus": {"type": "drop_plus"},
    }
    monkeypatch.setattr(
        demo.resolve,
        "read",
        lambda path: tables(
            {"server.defense": quick[path.stem], "federation.rounds": 1, "client.ADR": 0.05}
        ),
    )
    asked = []

    def one(defense, config, folder):
        asked.append((defense, config.name, folder))
        return run(config, folder)

    results, page = run_demo(tmp_path / "demo", one)
    assert asked == [(name, name, tmp_path / "demo" / name) for name in DEFENSES]
    assert [result.summary["defense"] for result in results] == list(DEFENSES)
    assert page == tmp_path / "demo" / "report.html"
    text = page.read_text()
    for name in DEFENSES:
        assert json.loads((tmp_path / "demo" / name / "summary.json").read_text())["name"] == name
        assert name in text
    assert "<title>DROP demo" in text


def test_the_quick_study_has_the_experiments_of_the_demo(tmp_path):
    cells = expand(study.find("quick").grid, tmp_path)
    attacked = [cell.config for cell in cells if cell.labels["attack"] != "none"]
    assert len(attacked) == 3 * len(DEFENSES)
    for config in attacked:
        name = config.server.defense.type
        demo_s = resolve.experiment(resolve.read(shipped(f"mnist5k/{name}")))
        assert config.server.defense == demo_s.server.defense
        assert (config.client, config.federation) == (demo_s.client, demo_s.federation)


def test_the_digits_of_the_first_hour_are_distilled_fast_and_guarded():
    """At the paper's rate of 0.1 and without a guard one student of six collapsed for good."""
    args = resolve.experiment(resolve.read(shipped("mnist5k/drop"))).server.defense.defense_args
    assert (args.lr_clone, args.min_agreement, args.cycles, args.plateau) == (0.02, 0.5, 10, 0.02)
