"""From files and overrides to experiments: what loads, what is refused, what a name means.

`UPDATE_FLAGS=1 pytest tests/setup/test_resolve.py` rewrites the frozen lists of flags and defaults.
"""

import dataclasses
import json
import os
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entity.attacks import ATTACKS
from entity.config.fields import RUNTIME_SETTINGS, WITHOUT_EFFECT
from entity.config.schema import ConfigError, flatten
from entity.config.shipped import names, shipped
from entity.defenses import DEFENSES
from entity.poisons import POISONS
from entity.setup import resolve
from entity.setup.field_list import Field
from entity.setup.identity import ERA
from entity.setup.load import load
from entity.setup.overrides import field_named, override

SHIPPED = [shipped(name) for name in names()]
DROP = resolve.read(shipped("mnist5k/drop"))
FLAGS = Path(__file__).with_name("public_flags.txt")
DEFAULTS = Path(__file__).with_name("defaults.txt")
ARGS = "server.defense.defense_args"


def changed(path, value, data=None):
    data = deepcopy(DROP if data is None else data)
    *parents, last = path.split(".")
    table = data
    for parent in parents:
        table = table[parent]
    table[last] = value
    return data


def as_in_a_file(*overrides):
    """Return DROP's tables with some fields, which may do nothing there."""
    data = deepcopy(DROP)
    override(data, overrides)
    return data


def refusal_of(data, *overrides):
    with pytest.raises(ConfigError) as refusal:
        resolve.experiment(data, overrides)
    text = str(refusal.value)
    assert "\n" not in text
    assert text.endswith((".", "?"))
    return text


# --- the public flags


def test_the_public_flags_are_those_of_the_frozen_list():
    paths = [field.path for field in resolve.fields_of("drop", "badnets", "pixel")]
    assert len(paths) == len(set(paths))
    if os.environ.get("UPDATE_FLAGS"):
        FLAGS.write_text("".join(f"{path}\n" for path in sorted(paths)))
    frozen = FLAGS.read_text().split()
    assert sorted(paths) == frozen, (
        "users' command lines and files name these fields; if the change is meant, run "
        "UPDATE_FLAGS=1 pytest tests/setup/test_resolve.py and say so in CHANGELOG.md"
    )


def test_every_flag_has_a_word_of_help():
    for name in DEFENSES:
        for field in resolve.fields_of(name, "badnets", "pixel"):
            assert field.doc, f"{name}: {field.path}"


def test_fields_of_unknown_types_are_refused():
    assert resolve.fields_of("maze", "badnets", "pixel") == resolve.fields_of(
        "drop", "badnets", "pixel"
    )
    for chosen in [("dropp", "badnets", "pixel"), ("drop", "x", "pixel"), ("drop", "badnets", "x")]:
        with pytest.raises(ConfigError, match=r"is unknown\."):
            resolve.fields_of(*chosen)


# --- overrides


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("DPR", "0.25", "client.attack.DPR", 0.25),
        ("client.attack.DPR", ".25", "client.attack.DPR", 0.25),
        ("attack.DPR", "1", "client.attack.DPR", 1.0),
        ("cuda", "0", "settings.cuda", 0),
        ("cuda", "-1", "settings.cuda", -1),
        ("seed", "71", "settings.seed", 71),
        ("rounds", "3", "federation.rounds", 3),
        ("lr", "0.5", "client.lr", 0.5),
        ("client.batch_size", "8", "client.batch_size", 8),
        ("defense_args.batch_size", "32", f"{ARGS}.batch_size", 32),
        ("K", "-1", f"{ARGS}.K", -1),
        ("dataset", "mnist", "dataset", "mnist"),
        ("name", "7", "name", "7"),
        ("transform", None, "client.transform", True),
        ("victim_class", "null", "client.attack.victim_class", None),
        (
            "trigger_pattern",
            "[[0, 0], [1, 1, 9]]",
            "client.attack.trigger_pattern",
            ((0, 0), (1, 1, 9)),
        ),
    ],
)
def test_a_field_is_overridden_by_its_name(name, text, path, value):
    found = resolve.experiment(DROP, [(name, text)])
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_a_unique_name_needs_no_dots_and_any_other_says_what_to_write():
    paths = [field.path for field in resolve.fields_of("drop", "badnets", "pixel")]
    for name in {path.rsplit(".", 1)[-1] for path in paths}:
        owners = sorted(path for path in paths if path.rsplit(".", 1)[-1] == name)
        common = [path for path in owners if ".defense_args." not in path]
        owners = common if len(common) == 1 else owners
        try:
            resolve.experiment(DROP, [(name, None)])  # "needs a value", or true
        except ConfigError as refusal:
            text = str(refusal)
        else:
            text = ""
        if len(owners) > 1:
            expected = " or ".join(owners)
            assert text == f"{name} is ambiguous: write {expected}."
        else:
            assert "ambiguous" not in text


def test_a_name_that_the_defense_has_too_is_the_client_s_as_in_the_original():
    found = resolve.experiment(DROP, [("batch_size", "8"), ("defense_args.batch_size", "16")])
    assert (found.client.batch_size, found.server.defense.defense_args.batch_size) == (8, 16)


def test_names_that_two_tables_of_the_federation_have_are_ambiguous():
    both = {"client.lr": Field("client.lr", float, "", 0.1), "x.lr": Field("x.lr", float, "", 0.1)}
    with pytest.raises(ConfigError, match=r"^lr is ambiguous: write client\.lr or x\.lr\.$"):
        field_named("lr", both)


@pytest.mark.parametrize(
    ("name", "text", "start"),
    [
        ("dpr", "1", "dpr is unknown. Did you mean DPR?"),
        ("roundz", "1", "roundz is unknown. Did you mean rounds?"),
        ("qqqq", "1", "qqqq is unknown. `drop fields` lists them all."),
        ("client.roundz", "1", "client.roundz is unknown."),
        ("DPR", None, "DPR needs a value: a number from 0 to 1."),
        ("DPR", "7", "client.attack.DPR = 7: allowed is a number from 0 to 1."),
        ("seed", "9" * 5000, 'settings.seed = "9999'),
        ("attack", "badnet", 'client.attack.type = "badnet" is unknown. Did you mean badnets?'),
        ("attack", "dba", 'client.attack.type = "dba" is unknown. It is a data poison: poison = '),
        ("poison", "alie", 'client.attack.poison = "alie" is unknown. It is an attack: attack = '),
        ("defense", "flam", 'server.defense.type = "flam" is unknown. Did you mean flame?'),
        ("alpha", "1", "alpha belongs to constrain_and_scale, which is not chosen. Did you mean d"),
        ("clients", "9", "clients is unknown. Did you mean federation.size?"),
    ],
)
def test_wrong_overrides(name, text, start):
    assert refusal_of(DROP, (name, text)).startswith(start)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("attack", '{"type": "badnets"}', 'client.attack = {"type": "badnets"}: is a table; allow'),
        ("client.attack", "[1]", "client.attack = [1]: is a table; allowed are null, for no attac"),
        ("server.defense", '{"type": "krum"}', 'server.defense = {"type": "krum"}: is a table; '),
        ("defense", "3", "server.defense = 3: is a table; allowed are null, for no defense, the n"),
        ("attack", None, "client.attack: is a table; allowed are null, for no attack, the name of"),
        ("defense_args", "null", "server.defense.defense_args = null: is a table; allowed are it"),
        ("settings", '{"seed": 1}', 'settings = {"seed": 1}: is a table; allowed are its fields'),
        ("client", None, "client: is a table; allowed are its fields one by one, such as client."),
        ("model", '{"name": "cnn"}', 'model = {"name": "cnn"}: allowed is a text.'),
        ("name", "[1]", "name = [1]: allowed is a text or null."),
    ],
)
def test_a_table_is_given_by_its_fields_and_is_no_word(name, text, said):
    assert refusal_of(DROP, (name, text)).startswith(said)
    if "defense_args" in name:
        bare = changed("server.defense", None)
        assert refusal_of(bare, (name, text)).endswith("of which the chosen defense has none.")


def test_a_program_s_values_are_read_as_what_they_are_or_refused_with_their_name(tmp_path):
    config = load("mnist5k/drop", lr=np.float64(0.25), seed=np.int64(3), DPR=torch.tensor(0.5))
    assert (config.client.lr, config.settings.seed, config.client.attack.DPR) == (0.25, 3, 0.5)
    config = load("mnist5k/drop", datasets_path=tmp_path)
    assert config.settings.datasets_path == str(tmp_path)
    for value in ({1}, np.zeros(2), object()):
        with pytest.raises(ConfigError, match=r"^rounds = .*: allowed are numbers, texts, True, F"):
            load("mnist5k/drop", rounds=value)
    with pytest.raises(ConfigError, match=r'^client.attack = \{"type": "badnets"\}: is a table; '):
        load("mnist5k/drop", attack={"type": "badnets"})


def test_a_method_is_chosen_by_the_name_of_its_table():
    config = resolve.experiment(DROP, [("attack", "Neurotoxin".lower()), ("defense", "flame")])
    assert config == resolve.experiment(
        DROP, [("client.attack.type", "neurotoxin"), ("server.defense.type", "flame")]
    )
    for none in ("none", "null", "undefended"):
        assert resolve.experiment(DROP, [("defense", none)]).server.defense.type == "undefended"
    bare = resolve.to_json(resolve.experiment(DROP, [("attack", "none")]))
    assert bare["client"]["attack"] is None
    classes = [("victim_class", "0"), ("target_class", "7")]
    back = resolve.experiment(bare, [("DPR", "0.25"), *classes, ("attack", "badnets")])
    assert (back.client.attack.type, back.client.attack.DPR) == ("badnets", 0.25)


def test_the_attack_is_taken_away_by_null_and_only_a_whole_one_comes_back():
    for text in ("null", "none", "None"):
        assert resolve.experiment(DROP, [("client.attack", text)]).client.attack is None
    assert resolve.experiment(DROP, [("client.attack.type", "none")]).client.attack is None
    lost = refusal_of(DROP, ("client.attack", "null"), ("DPR", "0.5"))
    assert lost.startswith("client.attack.DPR = 0.5: does nothing without an attack (client.atta")
    bare = changed("client.attack", None)
    back = resolve.experiment(bare, [("client.attack.type", "badnets"), ("target_class", "3")])
    assert (back.client.attack.type, back.client.attack.target_class) == ("badnets", 3)


def test_another_attack_drops_the_fields_of_the_one_before(tables):
    data = tables({"client.attack.type": "neurotoxin", "client.attack.neurotoxin_top_k": 0.2})
    assert resolve.experiment(data).client.attack.args.neurotoxin_top_k == 0.2
    plain = resolve.experiment(data, [("client.attack.type", "badnets"), ("DPR", "0.25")])
    assert plain.client.attack.type == "badnets"
    assert plain.client.attack.DPR == 0.25


def test_another_defense_keeps_only_the_settings_that_it_has_too():
    data = changed(f"{ARGS}.penalty", 2.5)
    droplet = resolve.experiment(data, [("server.defense.type", "droplet")])
    assert droplet.server.defense.type == "droplet"
    assert droplet.server.defense.defense_args.penalty == 2.5
    own = {field.name for field in dataclasses.fields(droplet.server.defense.defense_args)}
    assert "K" not in own
    plain = resolve.experiment(data, [("server.defense.type", "undefended")])
    assert plain.server.defense.type == "undefended"
    named = resolve.experiment(data, [("server.defense.type", "none")])
    assert named == plain


def test_the_type_is_read_before_the_settings_that_depend_on_it():
    bare = changed("server.defense", None)
    overrides = [("penalty", "3"), ("server.defense.type", "MAZE"), ("K", "7")]
    defense = resolve.experiment(bare, overrides).server.defense
    assert (defense.type, defense.defense_args.penalty, defense.defense_args.K) == ("drop", 3.0, 7)
    assert refusal_of(DROP, ("server.defense.type", "droplet"), ("K", "7")).startswith(
        "K belongs to"
    )


def test_the_last_of_two_overrides_wins_and_the_given_tables_stay_as_they_are():
    before = deepcopy(DROP)
    assert resolve.experiment(DROP, [("lr", "0.5"), ("client.lr", "0.2")]).client.lr == 0.2
    assert before == DROP


def test_a_program_gives_a_field_by_one_name():
    for one, other, value in (("DPR", "client.attack.DPR", 0.1), ("attack", "attack.type", "pgd")):
        with pytest.raises(
            ConfigError, match=rf"^{one} and {other}: both set client\.attack\.\w+; "
        ):
            load("mnist5k/drop", **{one: value, other: value})
    assert load("mnist5k/drop", seed=3, **{"client.lr": 0.5}).client.lr == 0.5


# --- configurations written for the original code


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(path.parents[2])))
def test_every_shipped_configuration_loads(path):
    config = resolve.experiment(resolve.read(path))
    defense = "undefended" if path.stem == "federation" else path.stem
    assert config.server.defense.type == defense


@pytest.mark.parametrize("folder", sorted({path.parent for path in SHIPPED}), ids=lambda f: f.name)
def test_shipped_configurations_of_a_folder_differ_in_their_defense_alone(folder):
    """The original's give DROP other poisoning rates and round counts than its baselines."""
    found = [resolve.experiment(resolve.read(path)) for path in SHIPPED if path.parent == folder]
    assert len(found) > 1
    assert not any(config.server.defense.pretrain for config in found)
    none = found[0].server.defense
    shared = [
        dataclasses.replace(config, server=dataclasses.replace(config.server, defense=none))
        for config in found
    ]
    assert all(config == shared[0] for config in shared)


def test_the_names_and_nulls_of_original_files_load(tables):
    data = tables(
        {
            "client.attack": {
                "type": "badnets",
                "DPR": 0.125,
                "target_class": 7,
                "victim_class": 0,
                "trigger_pattern": "4pixel",
                "trigger_position": "top_left",
                "participation_strategy": "consistent",
                "poisoning_start_round": None,
                "poisoning_end_round": None,
                "norm_threshold": None,  # another attack's fields, which the original leaves null
                "gradmask_ratio": None,
                "args": None,
            },
            "federation.size": 10,
            "server.defense": {
                "type": "Maze",
                "defense_args": {"K": 5, "budget": 5e6, "num_seed": 40, "batch_size": 64},
            },
        }
    )
    config = resolve.experiment(data)
    assert config.server.defense.type == "drop"
    assert config.server.defense.defense_args.budget == 5_000_000
    assert config.client.attack.DPR == 0.125


def test_null_is_no_defense_and_no_attack(tables):
    for none in (None, {"type": "none"}, {"type": "undefended", "defense_args": None}):
        config = resolve.experiment(tables({"server.defense": none}))
        assert config.server.defense.type == "undefended"
    for none in (None, {"type": None}, {"type": "None"}):
        assert resolve.experiment(tables({"client.attack": none})).client.attack is None
    lean = tables()
    del lean["server"], lean["settings"], lean["client"]["attack"]
    config = resolve.experiment(lean)
    assert (config.server.defense.type, config.client.attack) == ("undefended", None)


# --- what is refused


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("clinet", {}, "clinet is unknown. Did you mean client?"),
        ("client.learning_rate", 1, "client.learning_rate is unknown."),
        ("client.attack.dpr", 1, "client.attack.dpr is unknown. Did you mean DPR?"),
        ("client.attack.args", {}, "client.attack.args is unknown."),
        ("server.defence", {}, "server.defence is unknown. Did you mean defense?"),
        (f"{ARGS}.pnalty", 1, f"{ARGS}.pnalty is unknown. Did you mean penalty?"),
        (ARGS, [], f"{ARGS} = []: expected a table of fields."),
        (ARGS, 0, f"{ARGS} = 0: expected a table of fields."),
        ("settings.sed", 1, "settings.sed is unknown. Did you mean seed?"),
        ("dataset", "mnist5", 'dataset = "mnist5" is unknown. Did you mean mnist5k?'),
        ("dataset", "zzz", 'dataset = "zzz" is unknown. Allowed: mnist5k, '),
        ("model", "resnet81", "model resnet81 is unknown. Did you mean resnet"),
        ("model", "no.such.module:net", 'model = "no.such.module:net": cannot be imported'),
        ("server.defense.type", "dropp", 'server.defense.type = "dropp" is unknown. Did you mean '),
        ("server.defense", "drop", 'server.defense = "drop": expected a table of fields.'),
        ("client.attack.type", "badnet", 'client.attack.type = "badnet" is unknown. Did you mean '),
        ("client.attack.poison", "pixle", 'client.attack.poison = "pixle" is unknown. Did you mea'),
        ("client.attack", {"tpye": "badnets"}, "client.attack.tpye is unknown. Did you mean type?"),
        ("client.attack", {"target_class": 1}, "client.attack.type is missing"),
        ("client.attack", "badnets", 'client.attack = "badnets": expected a table of fields.'),
        ("client", None, "client = null: expected a table of fields."),
        ("settings.engine", "pol", 'settings.engine = "pol": allowed is one of auto, '),
        ("client.attack.victim_class", 7, "client.attack.victim_class = 7: is also the target"),
        ("client.attack.target_class", 10, "client.attack.target_class = 10: mnist5k has the cl"),
        ("client.attack.victim_class", 10, "client.attack.victim_class = 10: mnist5k has the cl"),
        ("federation.round_size", 11, "federation.round_size = 11: is more than federation.size"),
        (
            "federation.number_of_malicious_clients",
            11,
            "federation.number_of_malicious_clients = 11: is more than federation.size = 10",
        ),
        ("client.attack.trigger_pattern", "5pixel", 'client.attack.trigger_pattern = "5pixel"'),
        ("client.attack.trigger_pattern", [[28, 0]], "client.attack.trigger_pattern = [28, 0]"),
        ("client.attack.trigger_pattern", [], "client.attack.trigger_pattern = []"),
        ("client.attack.trigger_pattern", "no.png", 'client.attack.trigger_pattern = "no.png"'),
        (f"{ARGS}.K", 0, f"{ARGS}.K = 0: allowed is -1 (never) or at least 1."),
        (f"{ARGS}.K", -2, f"{ARGS}.K = -2: allowed is -1 (never) or at least 1."),
        (f"{ARGS}.num_seed", 501, f"{ARGS}.num_seed = 501"),
        (f"{ARGS}.model_gen", "conv4", f"{ARGS}.model_gen "),
        ("federation.round_size", 2, "federation.round_size = 2: clustering needs at least 3"),
        ("settings.num_threads", 10**9, "settings.num_threads = 1000000000: allowed is a whole"),
        ("name", "../elsewhere", 'name = "../elsewhere": names a folder'),
        ("name", "a\x00b", r'name = "a\u0000b": names a folder'),
        ("name", "x" * 300, 'name = "xxx'),
        ("name", "\ud800", r'name = "\ud800": names a folder'),
    ],
)
def test_wrong_configurations_are_refused_in_one_sentence(path, value, sentence):
    assert refusal_of(changed(path, value)).startswith(sentence)


def test_the_window_needs_a_start_before_its_end():
    window = {"participation_strategy": "after_convergence"}
    for extra, start in [
        ({}, "client.attack.poisoning_start_round is missing"),
        ({"poisoning_end_round": 5}, "client.attack.poisoning_start_round is missing"),
        (
            {"poisoning_start_round": 5, "poisoning_end_round": 5},
            "client.attack.poisoning_end_round = 5: must come after poisoning_start_round = 5",
        ),
        (
            {"poisoning_start_round": 5, "poisoning_end_round": 4},
            "client.attack.poisoning_end_round = 4: must come after",
        ),
    ]:
        attack = {**DROP["client"]["attack"], **window, **extra}
        assert refusal_of(changed("client.attack", attack)).startswith(start)
    attack = {**DROP["client"]["attack"], **window, "poisoning_start_round": 5}
    assert resolve.experiment(changed("client.attack", attack)).client.attack.type == "badnets"


def test_an_enforced_share_must_be_a_whole_number_of_clients():
    enforced = ("malicious_client_strategy", "enforced")
    shape = [("size", "10"), ("round_size", "5"), ("number_of_malicious_clients", "3")]
    text = refusal_of(DROP, enforced, *shape)
    assert text.startswith("federation.malicious_client_strategy = enforced: ")
    assert "15/10 is not a whole number" in text
    whole = [("size", "10"), ("round_size", "5"), ("number_of_malicious_clients", "4")]
    assert resolve.experiment(DROP, [enforced, *whole]).federation.round_size == 5
    # Without an attack nobody is malicious, so there is no share to keep.
    assert resolve.experiment(as_in_a_file(("client.attack", "null"), enforced, *shape))


def test_what_needs_clean_data_is_refused_without_any():
    for policy in [("bn_policy", "recalibrate"), ("pretrain", "true")]:
        text = refusal_of(changed("server.defense", None), ("held_out", "0"), policy)
        assert "raise server.held_out" in text
    assert refusal_of(DROP, ("held_out", "0")).startswith(ARGS)


# --- tables of any kind


@pytest.mark.parametrize("depth", [25, 400, 900])
def test_deep_nesting_is_refused_whoever_gives_it(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    assert refusal_of(changed("dataset", value)) == (
        "the config: is nested too deeply; allowed are 20 levels."
    )
    refusal_of(DROP, ("trigger_pattern", "[" * depth + "]" * depth))


@pytest.mark.parametrize(
    "text",
    [
        "dataset: &a [*a]",
        "client: {attack: &a {type: badnets, x: *a}}",
        "dataset: {2020-01-01: 3}",
        "client: {attack: {type: badnets, 5: 3}}",
        "client: {attack: {type: badnets, null: 3}}",
        "true: 1",
        "dataset: 2020-01-01",
        "dataset: !!binary aGVsbG8=",
        "dataset: !!set {a, b}",
    ],
)
def test_what_only_yaml_can_hold_is_refused_too(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    refusal_of(resolve.read(tmp_path / "a.yaml"))
    refusal_of(resolve.read(tmp_path / "a.yaml"), ("lr", "0.1"))


@pytest.mark.parametrize(
    "text",
    [
        "settings: {{seed: {}}}",
        "client: {{attack: {{type: {}}}}}",
        "? {}\n: 1",
        "client: {{attack: {{type: badnets, ? {} : 1}}}}",
    ],
)
def test_a_number_of_thousands_of_digits_is_refused_as_it_is_read(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text.format("0x" + "f" * 9000))
    with pytest.raises(ConfigError, match="a number has 9,002 characters at line 1"):
        resolve.read(tmp_path / "a.yaml")
    # The most that is read: whatever looks at it next must not fail on its digits.
    (tmp_path / "a.yaml").write_text(text.format("0x" + "f" * 998))
    refusal_of(resolve.read(tmp_path / "a.yaml"))


OWN = Path(__file__).parents[2] / "examples/own/norm_gate.py"
HALF = "d\udcff"
"""As Python reads a path that is no UTF-8."""


@pytest.mark.parametrize("field", ["settings.datasets_path", "client.attack.trigger_pattern"])
def test_half_a_character_is_refused_as_no_record_could_be_read_with_it(field, monkeypatch):
    said = f'{field} = "d\\udcff": holds half a character, which no record can; allowed is text '
    assert refusal_of(DROP, (field, HALF)).startswith(said)
    assert refusal_of(changed(field, HALF)).startswith(said)
    for value in (HALF, Path(HALF)):
        with pytest.raises(ConfigError, match=r"^\S+ = \S+ holds half a character"):
            load("mnist5k/drop", **{field: value})
    monkeypatch.setenv("DROP_DATA", HALF)
    assert refusal_of(DROP).startswith('settings.datasets_path = "d\\udcff": holds half a char')


@pytest.mark.usefixtures("forget_plugins")
def test_a_plugin_in_a_folder_that_is_no_utf_8_is_refused(tmp_path):
    folder = tmp_path / HALF
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("the disk takes no such name")
    (folder / "mine.py").write_text(OWN.read_text())
    data = changed("server.defense", {"type": "norm_gate"})
    said = refusal_of(data, ("plugins", str(folder / "mine.py")))
    assert said.startswith("plugins = [")
    assert "holds half a character" in said


def test_letters_of_any_script_come_through():
    assert load("mnist5k/drop", name="größe-日本").name == "größe-日本"


# --- identity


def test_a_configuration_survives_json_and_keeps_its_identity():
    for path in SHIPPED:
        config = resolve.experiment(resolve.read(path))
        text = json.dumps(resolve.to_json(config))
        again = resolve.experiment(json.loads(text))
        assert again == config
        assert resolve.identity(again) == resolve.identity(config)
        assert resolve.fingerprint(json.loads(text)) == resolve.identity(config)


@pytest.mark.parametrize(
    "change",
    [
        ("cuda", "3"),
        ("engine", "pool"),
        ("workers", "7"),
        ("engine", "ray"),
        ("ray_address", "head:6379"),
        ("cuda", "mps"),
        ("datasets_path", "/elsewhere"),
        ("verbose", "false"),
        ("flush_print", "false"),
        ("gpu_poor", "true"),
        ("disable_pbar", "true"),
        ("parallel_client_training", "true"),
        ("num_parallel_max", "2"),
        ("name", "another"),
    ],
)
def test_how_an_experiment_runs_is_no_part_of_its_identity(change):
    base = resolve.identity(resolve.experiment(DROP))
    assert len(base) == 12
    assert resolve.identity(resolve.experiment(as_in_a_file(change))) == base


def test_everything_else_is_part_of_the_identity():
    runtime = {f"settings.{name}" for name in RUNTIME_SETTINGS} | {"name", *WITHOUT_EFFECT}
    other = {
        "dataset": "mnist",
        "model": "lenet",
        "norm": "group",
        "client.partition": "dirichlet_client",
        "client.prox_mu": "0.1",
        "client.dp_clip": "1.0",
        "client.dp_unit": "update",
        "server.optimiser": "fedavgm",
        "client.attack.participation_strategy": None,  # needs a start
        "client.attack.trigger_pattern": "1pixel",
        "client.attack.trigger_position": "top_right",
        "client.attack.victim_class": "3",
        "client.attack.target_class": "3",
        "server.weighting": "samples",
        "server.bn_policy": "keep",
        "server.held_out": "499",
        "server.low_confidence_threshold": "0.4",
        "federation.round_size": "9",
        "federation.malicious_client_strategy": "enforced",
        "settings.streaming": None,  # not with this defense
    }
    base = resolve.experiment(DROP)
    seen = {resolve.identity(base)}
    for field in resolve.fields_of("drop", "badnets", "pixel"):
        if not field.path.startswith(("client", "server.", "federation", "settings", "d", "m")):
            continue
        if field.path in runtime or field.path.startswith(ARGS) or "." not in field.path:
            text = other.get(field.path)
        else:
            text = other.get(field.path, _another(base, field))
        if text is None:
            continue
        found = resolve.identity(resolve.experiment(as_in_a_file((field.path, text))))
        assert found not in seen, field.path
        seen.add(found)
    for name, text in [("K", "3"), ("penalty", "2"), ("lr_clone", "0.2"), ("ensemble", "false")]:
        found = resolve.identity(resolve.experiment(DROP, [(name, text)]))
        assert found not in seen, name
        seen.add(found)
    assert len(seen) > 30


def test_fields_at_their_defaults_are_no_part_of_it_so_that_new_ones_change_nothing():
    tables = resolve.to_json(resolve.experiment(DROP))
    before = deepcopy(tables)
    del before["norm"], before["server"]["bn_policy"]
    del before["server"]["defense"]["defense_args"]["reschedule"]
    del before["client"]["attack"]["participation_strategy"]
    assert resolve.fingerprint(before) == resolve.fingerprint(tables)
    tables["norm"] = "group"
    assert resolve.fingerprint(before) != resolve.fingerprint(tables)


def test_a_default_that_changes_comes_with_a_new_era():
    """A new field is a new line of the file. Where a line changes, `ERA` must be raised
    with it, or finished runs with the old default pass for runs with the new one."""
    base = {"defense": "undefended", "attack": "badnets", "poison": "pixel"}
    common = _defaults(**base)
    lines = [f"era = {ERA}", *sorted(common)]
    for kind, registry in (("defense", DEFENSES), ("attack", ATTACKS), ("poison", POISONS)):
        for name in registry:
            own = _defaults(**base | {kind: name}) - common
            lines += [f"{kind} {name}: {line}" for line in sorted(own)]
    text = "\n".join(lines) + "\n"
    if os.environ.get("UPDATE_FLAGS"):
        DEFAULTS.write_text(text)
    assert text == DEFAULTS.read_text()


def _defaults(**types):
    return {
        f"{field.path} = {field.default!r}"
        for field in resolve.fields_of(**types)
        if field.default is not dataclasses.MISSING
        and field.path.removeprefix("settings.") not in RUNTIME_SETTINGS
        and field.path not in WITHOUT_EFFECT
    }


def _another(config, field):
    value = config
    for part in field.path.split("."):
        value = getattr(value, part)
    if isinstance(value, bool):
        return "false" if value else "true"
    if isinstance(value, int):
        return str(value + 1)
    if isinstance(value, float):
        return str(value / 2)
    return None


def test_a_run_without_a_name_is_named_by_what_it_is():
    assert resolve.default_name(resolve.experiment(DROP)) == "mnist5k-drop-badnets-seed1"
    plain = resolve.experiment(DROP, [("client.attack", "null"), ("seed", "5")])
    assert resolve.default_name(plain) == "mnist5k-drop-no-attack-seed5"


# --- anything at all


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 60)
    | st.integers()
    | st.sampled_from([10**400, 2**64, "drop", "badnets", "pixel", "mnist", "4pixel", "a.png"])
    | st.floats()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def places(table, where=""):
    for key, value in table.items():
        path = f"{where}.{key}" if where else key
        yield path
        if isinstance(value, dict):
            yield from places(value, path)


PLACES = sorted(places(DROP))
NAMES = [field.path for field in resolve.fields_of("drop", "badnets", "pixel")]


SENSIBLE = dict(flatten(resolve.to_json(resolve.experiment(DROP))))


def near(path):
    """A value for a field that may well be allowed."""
    value = SENSIBLE[path]
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int | float):
        return st.integers(0, 60) if isinstance(value, int) else st.floats(0, 1)
    return st.just(value)


CHANGES = st.sampled_from(sorted(SENSIBLE)).flatmap(
    lambda path: st.tuples(st.just(path), near(path))
)


def with_changes(changes):
    """DROP's tables with other values in some places, where there is still a table for them."""
    data = deepcopy(DROP)
    for path, value in changes:
        *parents, last = path.split(".")
        table = data
        for parent in parents:
            table = table.get(parent) if isinstance(table, dict) else None
        if isinstance(table, dict) and not (path == "model" and ":" in str(value)):
            table[last] = value
    return data


def settle(data, overrides=()):
    """Resolve what may be nonsense, and return whether it is an experiment, which survives JSON."""
    try:
        config = resolve.experiment(data, overrides)
    except ConfigError:
        return False
    text = json.dumps(resolve.to_json(config))
    assert resolve.experiment(json.loads(text)) == config
    return True


def test_any_json_in_any_place_is_an_experiment_or_a_config_error():
    accepted = []

    @given(st.lists(st.tuples(st.sampled_from(PLACES), JSON) | CHANGES, min_size=1, max_size=2))
    @settings(max_examples=300, deadline=None)
    def accepts(changes):
        accepted.append(settle(with_changes(changes)))

    accepts()
    assert sum(accepted) > 0.1 * len(accepted)


def test_any_override_is_an_experiment_or_a_config_error():
    accepted = []

    @given(
        st.lists(
            CHANGES.map(lambda change: (change[0], json.dumps(change[1])))
            | st.tuples(
                st.sampled_from(NAMES) | st.sampled_from(["K", "lr", "seed", "type"]) | st.text(),
                st.none() | st.text(max_size=12) | JSON.map(lambda value: json.dumps(value)),
            ).filter(lambda pair: pair[0] != "model"),
            min_size=1,
            max_size=3,
        )
    )
    @settings(max_examples=150, deadline=None)
    def accepts(overrides):
        accepted.append(settle(DROP, overrides))

    accepts()
    assert sum(accepted) > 0.05 * len(accepted)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


TEXTS = st.lists(
    st.sampled_from(
        [*'{}[]:,"-&*!|>#%@ \n', "a", "dataset", "null", "1e9", "0x", "!!int", "2020-1-1"]
    )
).map("".join)


def test_any_bytes_are_read_or_refused(scratch):
    read, accepted = [], []

    @given(
        st.binary(max_size=40)
        | TEXTS.map(str.encode)
        | (JSON | st.lists(CHANGES).map(with_changes)).map(lambda v: json.dumps(v).encode()),
        st.sampled_from(["any.json", "any.yaml"]),
    )
    @settings(max_examples=250, deadline=None)
    def accepts(content, name):
        (scratch / name).write_bytes(content)
        try:
            data = resolve.read(scratch / name)
        except ConfigError:
            read.append(False)
        else:
            read.append(True)
            accepted.append(settle(data))

    accepts()
    assert sum(read) > 0.1 * len(read)
    assert sum(accepted) > 0.2 * len(accepted)


@pytest.mark.parametrize(
    "name",
    [
        ":x",
        ".:x",
        "os.path:join:",
        "math:",
        "a\x00b:c",
    ],
)
def test_a_model_of_the_users_own_that_cannot_be_imported(name):
    assert "cannot be imported" in refusal_of(changed("model", name))


def test_settings_without_source_as_in_a_notebook_have_fields_without_texts(monkeypatch):
    made: dict[str, object] = {"__name__": "__main__"}
    code = (
        "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Args:\n    f: int = 2\n"
    )
    exec(code, made)
    server = type("Own", (DEFENSES["undefended"],), {"hyperparameters": made["Args"]})
    monkeypatch.setitem(DEFENSES, "own", server)
    config = resolve.experiment(DROP, [("defense", "own"), ("f", "3")])
    assert config.server.defense.defense_args.f == 3
