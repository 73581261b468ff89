"""Fields of a configuration on the command line."""

import argparse
import json

import pytest

from entity.cli import main
from entity.cli.declaration import option_names
from entity.cli.options import FieldParser
from entity.config import schema
from entity.config.schema import ConfigError
from entity.config.shipped import shipped
from entity.setup import resolve

ARGS = "server.defense.defense_args"


def parse(*words, config="mnist5k/drop"):
    parser = FieldParser(prog="drop run", allow_abbrev=False)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--config")
    parser.add_argument("--quiet", action="store_true")
    file = [] if config is None else ["--config", str(shipped(config))]
    options, rest = parser.parse_known_args([*words, *file])
    assert rest == []
    return options


@pytest.mark.parametrize(
    ("words", "pairs"),
    [
        ([], []),
        (
            ["--DPR", "1", "--rounds=2", "--augment"],
            [("client.attack.DPR", "1"), (f"{ARGS}.augment", None), ("federation.rounds", "2")],
        ),
        (["--K", "-1", "--lr", "-1e-3"], [("client.lr", "-1e-3"), (f"{ARGS}.K", "-1")]),
        (["--name=", "--dataset=x=y"], [("dataset", "x=y"), ("name", "")]),
        (["--dataset", "-", "--name", "-x"], [("dataset", "-"), ("name", "-x")]),
        (["--client.lr", "0.1"], [("client.lr", "0.1")]),
        (["--K=-1", "--attack.DPR", ".5"], [("client.attack.DPR", ".5"), (f"{ARGS}.K", "-1")]),
        (["--lr", "1", "--client.lr", "2"], [("client.lr", "2")]),
        (["--client.attack", "null"], [("client.attack", "null")]),
        (["--data_root", "there"], [("settings.datasets_path", "there")]),
        (["--trackers", "wandb", "mlflow"], [("settings.trackers", '["wandb", "mlflow"]')]),
        (["--trackers", "wandb"], [("settings.trackers", '["wandb"]')]),
        (["--settings.trackers", '["wandb"]'], [("settings.trackers", '["wandb"]')]),
    ],
)
def test_words_become_fields_and_values(words, pairs):
    given = [
        (path if text is not None else f"{ARGS}.{path}", text) for path, text in parse(*words).given
    ]
    assert sorted(given) == sorted(pairs)


@pytest.mark.parametrize(
    "words", [["x", "y"], ["--DPR", "1", "x", "y"], ["--DPR=1", "x", "y"], ["-a", "1"], ["-K", "1"]]
)
def test_words_that_belong_to_no_option(words):
    with pytest.raises(ConfigError, match="belongs to no option"):
        parse(*words)


def test_an_argument_of_the_command_may_stand_behind_a_field():
    options = parse("--DPR", "0.5", "folder", "--quiet")
    assert (options.folder, options.quiet) == ("folder", True)
    assert options.given == [("client.attack.DPR", "0.5")]


def test_one_option_is_no_abbreviation_of_another():
    for word in ("--round", "--client.att", "-s", "-serv"):
        with pytest.raises(ConfigError):
            parse(word, "3")


def test_the_types_decide_which_options_there_are(tmp_path, monkeypatch):
    assert parse("--K", "3").given == [(f"{ARGS}.K", "3")]
    for words, config in (
        (["--K", "3"], "mnist5k/krum"),
        (["--defense.type", "krum", "--K", "3"], "mnist5k/drop"),
    ):
        with pytest.raises(ConfigError, match=r"^K belongs to drop, which is not chosen\."):
            parse(*words, config=config)
    words = ["--server.defense.type", "MAZE", "--K", "3"]
    assert (f"{ARGS}.K", "3") in parse(*words, config="mnist5k/krum").given
    top = ["--neurotoxin_top_k", "0.2"]
    with pytest.raises(ConfigError, match=r"^neurotoxin_top_k belongs to neurotoxin, which"):
        parse(*top)
    assert parse("--attack.type=neurotoxin", *top).given[-1] == (
        "client.attack.neurotoxin_top_k",
        "0.2",
    )


def test_methods_go_by_the_names_of_their_tables_and_bring_their_options():
    given = parse("--defense", "krum", "--f", "3", "--attack", "neurotoxin").given
    assert dict(given) == {
        "server.defense.type": "krum",
        f"{ARGS}.f": "3",
        "client.attack": "neurotoxin",
    }
    parse("--attack", "neurotoxin", "--neurotoxin_top_k", "0.2")
    options = parse("--attack=alie")
    assert resolve.experiment(options.tables, options.given).client.attacked_by == "alie"


def test_every_field_can_be_given_by_each_of_its_names_and_by_no_name_of_another():
    fields = resolve.fields_of("drop", "badnets", "pixel")
    names = option_names(fields)
    assert len({name for several in names.values() for name in several}) == sum(
        map(len, names.values())
    )
    text = {
        "settings.trackers": '["wandb"]',
        "client.attack.type": "badnets",
        "client.attack.poison": "pixel",
        "server.defense.type": "drop",
    }
    for turn in range(max(map(len, names.values()))):  # every first name, every second one, ...
        given = {path: text.get(path, f"{place}") for place, path in enumerate(names)}
        given.pop("plugins")  # whose code is loaded at once: tests/setup/test_plugins.py
        named = [names[path][min(turn, len(names[path]) - 1)] for path in given]
        words = [word for pair in zip(named, given.values(), strict=True) for word in pair]
        assert dict(parse(*words).given) == given
    assert all(f"--{path}" in several for path, several in names.items())


@pytest.fixture
def help_of(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def help_of(*words):
        with pytest.raises(SystemExit) as leaving:
            main([*words, "--help"])
        assert leaving.value.code == 0
        return capsys.readouterr().out

    return help_of


def test_the_help_of_run_has_every_field_with_its_docstring_default_and_choices(help_of):
    text = help_of("run")
    words = " ".join(text.split())
    for field in resolve.fields_of("drop", "badnets", "pixel"):
        assert f"--{field.path}\n" in text
        assert " ".join(field.doc.split()) in words
    assert max(map(len, text.splitlines())) <= 80
    assert "  --DPR, --client.attack.DPR\n      Data poisoning ratio" in text
    assert "A number from 0 to 1. Default: 0.5." in text
    assert "One of auto, inline, pool, ray, vectorized. Default: auto." in words
    assert "--batch_size, --client.batch_size\n" in text
    assert "--defense_args.batch_size, --server.defense.defense_args.batch_size" in words
    groups = [line for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert groups == [
        "options:",
        "experiment:",
        "client:",
        "client.attack of badnets and pixel:",
        "server:",
        "server.defense:",
        "defense_args of drop:",
        "federation:",
        "settings:",
    ]


def test_the_help_lists_the_fields_of_the_configuration_that_is_named(help_of, tables, tmp_path):
    krum = help_of("run", "--config", str(shipped("mnist5k/krum")))
    assert "defense_args of krum:" in krum
    assert "--min_agreement" not in krum
    (tmp_path / "plain.json").write_text(json.dumps(tables({"client.attack": None})))
    plain = help_of("run", "--config", str(tmp_path / "plain.json"))
    assert "\nclient.attack:\n" in plain
    assert "\ndefense_args of undefended:\n" not in plain  # it has none
    for command in (["data", "preview"], ["deploy", "init"]):
        assert "--DPR, --client.attack.DPR" in help_of(*command)
    assert "--DPR" not in help_of("results")


def test_a_namespace_of_simple_parsing_keeps_no_trace(tmp_path):
    options = vars(parse("--DPR", "0.5", "--lr", "1"))
    assert set(options) == {"folder", "config", "quiet", "tables", "given"}
    assert json.loads(shipped("mnist5k/drop").read_text()).keys() & options["tables"].keys()
    assert schema.show(argparse.SUPPRESS) not in str(options)


def test_help_is_shown_whatever_the_config_is(tmp_path, capsys):
    (tmp_path / "broken.json").write_text("{")
    for config in (tmp_path / "broken.json", tmp_path / "none.json", tmp_path):
        with pytest.raises(SystemExit) as left:
            main(["run", "--config", str(config), "--help"])
        assert left.value.code == 0
        assert "--client.lr" in capsys.readouterr().out
