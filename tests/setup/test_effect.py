"""Fields that the rest of an experiment makes idle: refused where given, left out of tables."""

import dataclasses
import json

import pytest
import torch

from entity.attacks import ATTACKS
from entity.config.fields import ClientConfig
from entity.config.schema import ConfigError, flatten
from entity.config.shipped import names, shipped
from entity.dataset import partition
from entity.defenses import DEFENSES
from entity.flower import run_config
from entity.poisons import POISONS
from entity.report import axes
from entity.report.runs import RunRecord
from entity.seeding import Seeds
from entity.setup import resolve
from entity.setup.effect import idle, needs_of
from entity.setup.load import load
from entity.setup.needs import FIELDS, OF_ATTACKS, OF_DEFENSES, OF_POISONS, Either

DROP = resolve.read(shipped("mnist5k/drop"))
ARGS = "server.defense.defense_args"
ATTACK = "client.attack"


def refused(*given, start="mnist5k/drop"):
    with pytest.raises(ConfigError) as refusal:
        resolve.experiment(resolve.read(shipped(start)), given)
    text = str(refusal.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize(
    ("field", "value", "others", "mends"),
    [
        (
            "trigger_position",
            "top_left",
            (("poison", "blended"),),
            ("poison = pixel", "blend_with = pattern"),
        ),
        ("trigger_position", "top_left", (("poison", "label_flip"),), ("poison = pixel",)),
        (
            "trigger_pattern",
            "4pixel",
            (("poison", "dba"),),
            ("poison = pixel", "dba_trigger = pattern"),
        ),
    ],
)
def test_only_the_shortest_ways_to_give_a_field_an_effect_are_named(field, value, others, mends):
    text = refused((field, value), *others)
    wanted = " or ".join(f"{ATTACK}.{mend}" for mend in mends)
    assert f"does nothing without {wanted}; give that" in text


def taken(*given, start="mnist5k/drop"):
    return resolve.experiment(resolve.read(shipped(start)), given)


@pytest.mark.parametrize(
    ("field", "value", "others", "mend"),
    [
        ("client.dirichlet_alpha", "0.5", (), "client.IID = false"),
        ("client.partition", "shards", (), "client.IID = false"),
        ("client.min_samples", "1", (), "client.IID = false"),
        ("client.shards_per_client", "3", (), "client.IID = false and client.partition = shards"),
        (
            "client.dirichlet_alpha",
            "0.5",
            (("IID", "false"), ("partition", "shards")),
            "client.partition = dirichlet_class or",
        ),
        ("client.transform", "true", (("dataset", "emnist"),), "dataset = one that is augmented"),
        ("client.amp_enabled_only_for_clean", "true", (), "client.amp_enabled = true"),
        (f"{ATTACK}.poisoning_start_round", "3", (), "after_convergence"),
        (f"{ATTACK}.poisoning_end_round", "9", (), "after_convergence"),
        (f"{ATTACK}.DPR", "0.25", (("attack.type", "sign_flip"),), "trains on poisoned data"),
        (
            f"{ATTACK}.DPR",
            "0.25",
            (("number_of_malicious_clients", "0"),),
            "number_of_malicious_clients above 0",
        ),
        (f"{ATTACK}.trigger_pattern", "1pixel", (("poison", "dba"),), "poison = pixel or"),
        (
            f"{ATTACK}.trigger_position",
            "top_right",
            (("trigger_pattern", "[[0, 0]]"),),
            "trigger_pattern = 1pixel or 4pixel",
        ),
        (
            f"{ATTACK}.replace_server_lr",
            "0.5",
            (("attack.type", "model_replacement"), ("gamma", "3")),
            "gamma = replace",
        ),
        (
            f"{ATTACK}.a3fl_unlearn_lr",
            "0.1",
            (("poison", "a3fl"), ("a3fl_lambda", "0")),
            "a3fl_lambda above 0",
        ),
        (f"{ARGS}.lr_gen", "0.01", (("K", "-1"),), f"{ARGS}.K at least 1"),
        (f"{ARGS}.penalty", "2", (("client_cluster_filtering", "false"),), "_filtering = true"),
        (f"{ARGS}.log_iter", "10", (), "early_stopping = true"),
        (f"{ARGS}.finetune_lr", "0.1", (), "finetune = true"),
        (f"{ARGS}.temperature", "2", (("loss_type", "l1"),), "loss_type = kl_div"),
        (f"{ARGS}.budget", "1e7", (("distill_iters", "9"),), "distill_iters = null"),
        (f"{ARGS}.lr_dis", "0.1", (("alpha_gan", "0"),), "alpha_gan above 0"),
        (f"{ARGS}.lr_dis", "0.1", (("stealing_method", "dfme"),), "stealing_method = maze"),
        (
            f"{ARGS}.random_S_alpha",
            "0.5",
            (("clone_init_with_global", "false"),),
            "clone_init_with_global = true",
        ),
        (
            f"{ARGS}.cycles",
            "3",
            (("lr_scheduler", "none"), ("plateau", "null")),
            "lr_scheduler = cosine or",
        ),
        (
            f"{ARGS}.certified_votes",
            "9",
            (("defense.type", "crfl"), ("sigma", "0")),
            "sigma above 0",
        ),
        (f"{ARGS}.momentum", "0", (("defense.type", "finetuning"), ("epochs", "0")), "epochs"),
        ("server.weighting", "samples", (("defense.type", "median"),), "averages clients"),
        ("server.bn_policy", "keep", (), "one that has BatchNorm"),
        ("norm", "group", (), "one that has BatchNorm"),
        ("settings.workers", "2", (("engine", "inline"),), "engine = auto or pool or ray"),
        ("settings.ray_address", "auto", (), "settings.engine = ray"),
        ("settings.parallel_client_training", "true", (("engine", "ray"),), "engine = auto"),
    ],
)
def test_a_given_field_that_does_nothing_is_refused_with_the_mend(field, value, others, mend):
    text = refused((field, value), *others)
    assert text.startswith(f"{field} = ")
    assert ": does nothing without " in text
    assert mend in text
    assert text.endswith("; give that, too, or leave this out.")


@pytest.mark.parametrize("field", ["gpu_poor", "flush_print", "disable_pbar"])
def test_fields_of_the_original_that_never_do_anything_are_taken_as_its_command_lines_do(field):
    assert resolve.experiment(DROP, [(field, "true")])


@pytest.mark.parametrize(
    "given",
    [
        [("dirichlet_alpha", "0.5"), ("IID", "false")],
        [("shards_per_client", "3"), ("IID", "false"), ("partition", "shards")],
        [("K", "-1"), ("plateau", "null"), ("early_stopping", "false")],  # ask for nothing
        [("DPR", "0.25"), ("attack.type", "alie"), ("non_iid_equal_distribution", "true")],
        [("trigger_pattern", "4pixel"), ("poison", "dba"), ("dba_trigger", "pattern")],
        [("trigger_position", "top_right"), ("poison", "dba")],
        [("transform", "false"), ("dataset", "cifar10"), ("model", "resnet8")],
        [("bn_policy", "keep"), ("model", "resnet8")],
        [("cycles", "3"), ("plateau", "0.1"), ("lr_scheduler", "none")],
        [("workers", "2")],
        [("f", "2"), ("defense.type", "trimmed_mean"), ("beta", "null")],
    ],
)
def test_a_field_whose_need_is_met_is_taken(given):
    assert taken(*given)


def test_without_an_attack_every_field_of_one_is_refused():
    for name, value in [("DPR", "1"), ("poison", "dba"), ("target_class", "3")]:
        text = refused(("client.attack", "null"), (name, value))
        assert text.startswith(f"client.attack.{name} = ")
        assert "does nothing without an attack (client.attack.type)" in text
    text = refused(("client.attack", "null"), ("number_of_malicious_clients", "3"))
    assert text.startswith("federation.number_of_malicious_clients = 3: does nothing without an at")


def test_programs_are_refused_as_the_command_line_is():
    with pytest.raises(ConfigError, match=r"^client.dirichlet_alpha = 0.5: does nothing without"):
        load("mnist5k/drop", dirichlet_alpha=0.5)
    assert load("mnist5k/drop", dirichlet_alpha=0.5, IID=False).client.dirichlet_alpha == 0.5


def test_files_may_hold_fields_that_do_nothing_and_drop_data_is_never_refused(monkeypatch):
    data = json.loads(json.dumps(DROP))
    data["client"]["dirichlet_alpha"] = 0.5
    monkeypatch.setenv("DROP_DATA", "elsewhere")
    assert resolve.experiment(data).client.dirichlet_alpha == 0.5


def every_need():
    """Yield (path, needs, types) of the whole table."""
    for path, needs in FIELDS.items():
        yield path, needs, ("drop", "badnets", "pixel")
    for name, table in OF_DEFENSES.items():
        for field, needs in table.items():
            yield f"{ARGS}.{field}", needs, (name, "badnets", "pixel")
    for name, table in OF_ATTACKS.items():
        for field, needs in table.items():
            yield f"{ATTACK}.{field}", needs, ("drop", name, "pixel")
    for name, table in OF_POISONS.items():
        for field, needs in table.items():
            yield f"{ATTACK}.{field}", needs, ("drop", "badnets", name)


def paths_of(need):
    if isinstance(need, Either):
        return [path for way in need.ways for each in way for path in paths_of(each)]
    return [need.path] if need.path else []


def test_every_field_of_the_table_and_of_its_needs_exists():
    everything = {
        field.path
        for defense in DEFENSES
        for field in resolve.fields_of(defense, "badnets", "pixel")
    }
    for attack in ATTACKS:
        everything |= {field.path for field in resolve.fields_of("drop", attack, "pixel")}
    for poison in POISONS:
        everything |= {field.path for field in resolve.fields_of("drop", "badnets", poison)}
    for path, needs, types in every_need():
        assert path in {field.path for field in resolve.fields_of(*types)}, path
        for need in needs:
            assert set(paths_of(need)) <= everything, (path, need)


def test_every_attack_s_own_field_needs_attackers_and_every_poison_s_an_attack():
    for name in ATTACKS:
        for field in dataclasses.fields(ATTACKS[name].hyperparameters):
            values = {"federation.number_of_malicious_clients": 0, f"{ATTACK}.type": name}
            values[f"{ATTACK}.{field.name}"] = field.default
            assert f"{ATTACK}.{field.name}" in idle(values)
    values = {"client.attack": None, f"{ATTACK}.poison": "iba", f"{ATTACK}.iba_lr": 0.1}
    assert f"{ATTACK}.iba_lr" in idle(values)


@pytest.mark.parametrize("name", names())
def test_types_are_always_effective_and_nothing_is_idle_without_a_need(name):
    values = dict(flatten(resolve.to_json(resolve.experiment(resolve.read(shipped(name))))))
    found = idle(values)
    assert not {"client.IID", "client.lr", "server.defense.type", f"{ATTACK}.type"} & found
    assert all(needs_of(path, values) for path in found)


def test_what_a_damaged_record_holds_is_taken_as_effective():
    assert idle({}) == frozenset()
    assert not idle({"client.dirichlet_alpha": 0.5})
    odd = {"client.attack.DPR": 1, "federation.number_of_malicious_clients": "many"}
    assert idle(odd) == frozenset()
    assert idle({"server.defense.type": ["x"], f"{ARGS}.penalty": None}) == frozenset()


def test_idle_settings_of_a_split_do_not_change_it():
    """What the table says of `client` is what the code does: the same shares, whatever they are."""
    labels = torch.arange(200) % 10
    base = ClientConfig(num_epochs=1, lr=0.1, batch_size=10, min_samples=1)
    for start, changes in (
        (base, {"dirichlet_alpha": 0.1, "partition": "shards", "shards_per_client": 4}),
        (
            dataclasses.replace(base, IID=False, partition="shards", shards_per_client=2),
            {"dirichlet_alpha": 0.1},
        ),
        (dataclasses.replace(base, IID=False, dirichlet_alpha=1), {"shards_per_client": 4}),
    ):
        expected = partition(labels, 4, start, Seeds(1))
        values = {f"client.{key}": value for key, value in vars(start).items()}
        for name, value in changes.items():
            assert f"client.{name}" in idle(values)
            found = partition(labels, 4, dataclasses.replace(start, **{name: value}), Seeds(1))
            assert all(torch.equal(found[client], expected[client]) for client in range(4))


def test_flower_s_run_config_is_refused_as_the_command_line_is():
    path = shipped("mnist5k/droplet")
    with pytest.raises(ConfigError, match=r"^client.dirichlet_alpha = 0.5: does nothing without"):
        run_config.experiment(path, {"fields": "dirichlet_alpha=0.5"})
    both = run_config.experiment(path, {"fields": "dirichlet_alpha=0.5 IID=false min_samples=1"})
    assert both.client.dirichlet_alpha == 0.5


def test_a_report_does_not_name_what_does_nothing():
    config = resolve.to_json(resolve.experiment(DROP))
    records = []
    for alpha in (0.5, 1.0):
        config = json.loads(json.dumps(config))
        config["client"]["dirichlet_alpha"] = alpha
        records.append(RunRecord("a run", config, (), {}, None, ()))
    assert axes.differing(records) == []
    assert "client.dirichlet_alpha" not in axes.values(records[0])
    assert "client.lr" in axes.values(records[0])
