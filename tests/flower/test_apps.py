"""Client and server app in one process: the simulator's federation, to the bit."""

import json

import pytest
import torch

pytest.importorskip("flwr.serverapp")
from flwr.app import Context, Error, Message, RecordDict
from torch import nn

from entity import experiment as loop
from entity.config.schema import ConfigError
from entity.engine.local_training import threads
from entity.flower import strategy
from entity.flower.client_app import _trainer, answer
from entity.flower.faults import FAULTS
from entity.flower.run_config import experiment as experiment_of
from entity.flower.server_app import serve
from entity.metrics import Judge
from entity.models import Classifier
from entity.seeding import Seeds
from entity.setup import resolve
from entity.setup.assembly import recruit
from entity.setup.roster import Roster

OPTIONS = {"fields": "", "timeout": 0.01, "min-nodes": 0, "min-survivors": 2, "state": ""}


def context(node: dict | None = None, **run) -> Context:
    given = {key.replace("_", "-"): value for key, value in run.items()}
    return Context(1, 1, node or {}, RecordDict(), {**OPTIONS, **given})


@pytest.fixture
def federate(make_grid, tables, tmp_path):
    """Run an experiment through the apps; node 100 + i is client i."""

    def run(changes, run=None, node=None):
        path = tmp_path / "experiment.json"
        path.write_text(json.dumps(tables(changes)))
        size = resolve.experiment(resolve.read(path)).federation.size
        contexts = {
            100 + i: context(
                {"partition-id": i, "num-partitions": size, **(node or {}).get(i, {})},
                **(run or {}),
            )
            for i in range(size)
        }

        def node_of(own):
            def act(message):
                try:
                    return answer(message, own, path)
                except Exception as error:  # as Flower does
                    return Message(Error(2, f"trace\n{error}"), reply_to=message)

            return act

        nodes = {key: node_of(own) for key, own in contexts.items()}
        reports = []
        result = serve(make_grid(nodes), context(**(run or {})), path, reports.append)
        return result, reports

    return run


NEUROTOXIN = {"type": "neurotoxin", "DPR": 1.0, "victim_class": 0, "target_class": 7}
CASES = {
    "droplet, three of four clients": {"server.defense": {"type": "droplet"}},
    "DROP with its distillation, and BatchNorm": {
        "model": "resnet8",
        "federation.round_size": 4,
        "server.held_out": 60,
        "server.defense": {
            "type": "drop",
            "defense_args": {
                **{"K": 2, "distill_iters": 2, "gen_width": 4, "dis_width": 4, "batch_size": 16},
                **{"model_gen": "conv3_gen", "model_dis": "conv3_dis", "num_seed": 20},
            },
        },
    },
    "an attacker that watches the global model": {
        "federation.round_size": 4,
        "client.attack": NEUROTOXIN,
    },
    "a poison that the attacker learns": {
        "federation.round_size": 4,
        "client.attack": {
            **{"type": "badnets", "poison": "a3fl", "DPR": 1.0, "target_class": 7},
            **{"victim_class": 0, "a3fl_epochs": 3},
        },
    },
    "tied weights": {"model": "odd_models:tied", "server.defense": {"type": "droplet"}},
    "non-persistent buffers": {"model": "odd_models:scratch"},
    "a hardened client, which remembers": {
        "federation.round_size": 4,
        "server.defense": {
            "type": "flip",
            "defense_args": {"trigger_steps": [2, 2, 2], "max_steps": 2},
        },
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_federation_is_the_simulators_to_the_bit(case, federate, experiment):
    changes = {"client.ADR": 0.04, **CASES[case]}
    result, reports = federate(changes)
    simulated = loop.run(experiment(changes))
    tensors = result.arrays.to_torch_state_dict()
    _, roster = recruit(simulated.config, Seeds(1))
    model = roster.new_model()
    roster.spec.load(model, simulated.state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensors[name], tensor), name
    for report, line in zip(reports, simulated.rounds, strict=True):
        ours = [int(v.client) - 100 for v in report.verdicts if v.accepted]
        assert ours == line["accepted"]
        judged = result.evaluate_metrics_serverapp[line["round"]]
        assert judged["mta"] == line["mta"]
        if case != "a poison that the attacker learns":  # the server does not learn it
            assert judged["asr"] == line["asr"]


def test_server_and_nodes_use_the_threads_of_the_settings(federate, monkeypatch):
    seen = []

    def watch(name, function):
        def watched(*args, **options):
            seen.append((name, torch.get_num_threads()))
            return function(*args, **options)

        return watched

    monkeypatch.setattr(strategy, "admit", watch("aggregate", strategy.admit))
    monkeypatch.setattr(Judge, "__call__", watch("judge", Judge.__call__))
    monkeypatch.setattr(Roster, "adapt", watch("adapt", Roster.adapt))
    with threads(3):
        federate({"client.ADR": 0.03, "federation.rounds": 1, "settings.num_threads": 2})
        assert torch.get_num_threads() == 3
    assert {name for name, _ in seen} == {"aggregate", "judge", "adapt"}
    assert {number for _, number in seen} == {2}


def test_a_node_of_every_fault_is_refused_by_name(federate):
    changes = {"client.attack": None, "client.ADR": 0.03, "federation.rounds": 1}
    names = [name for name in FAULTS if name != "hang"]
    size = len(names) + 2
    changes |= {"federation.size": size, "federation.round_size": size}
    faults = {i: {"fault": name} for i, name in enumerate(names)}
    _, (report,) = federate(changes, node=faults)
    assert set(report.refused) == {str(100 + i) for i in range(len(names))}
    found = {name: report.refused[str(100 + i)] for i, name in enumerate(names)}
    assert found["nan"] == "nonfinite update"
    assert "missing array" in found["missing"]
    assert "unexpected array" in found["extra"]
    assert "has shape" in found["shape"]
    assert "has dtype <f8" in found["dtype"]
    assert "has shape (1600" in found["oversized"]


def test_with_a_secret_the_server_asks_other_nodes_and_the_same_after_a_restart(federate, tmp_path):
    changes = {"client.ADR": 0.04, "client.attack": None, "federation.rounds": 4}

    def asked(**run):
        return [[v.client for v in report.verdicts] for report in federate(changes, run)[1]]

    known, secret = asked(), str(tmp_path / "secret")
    first = asked(secret=secret)
    assert first != known
    assert asked(secret=secret) == first
    assert asked(secret=str(tmp_path / "another")) != first
    state = {"state": str(tmp_path / "state"), "secret": secret}
    assert asked(**state, fields="rounds=2") == first[:2]
    assert asked(**state) == first[2:]
    with pytest.raises(ConfigError, match="holds a federation with another seed"):
        asked(**state | {"secret": ""})


def test_fields_of_the_run_go_over_the_experiment(tables, tmp_path):
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(tables()))
    config = experiment_of(path, {**OPTIONS, "fields": "rounds=7 client.lr=0.5"})
    assert (config.federation.rounds, config.client.lr) == (7, 0.5)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"fields": "rounds"}, 'run-config.fields: "rounds" is not NAME=VALUE.'),
        ({"fields": "ronds=3"}, "ronds is unknown. Did you mean rounds?"),
        ({"fields": "rounds='5"}, 'run-config.fields = "rounds=\'5": No closing quotation.'),
        ({"timeout": -1.0}, "run-config.timeout = -1.0"),
        ({"min-survivers": 3}, "min_survivers"),
        ({"fields": "client.attack.type=alie"}, "client.attack.type = alie: its clients agree"),
        ({"fields": "client.attack.type=model_replacement"}, "its clients agree"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(run, message, tables, tmp_path):
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(tables()))
    with pytest.raises(ConfigError) as error:
        experiment_of(path, {**OPTIONS, **run})
    assert message in str(error.value)


def test_a_replacement_with_a_factor_of_its_own_is_allowed(tables, tmp_path):
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(tables()))
    fields = "client.attack.type=model_replacement gamma=3"
    assert experiment_of(path, {**OPTIONS, "fields": fields}).client.attack.args.gamma == 3


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"partition-id": 4}, "partition-id = 4: allowed is a whole number from 0 to 3"),
        ({"partition-id": None}, "partition-id = None"),
        ({"num-partitions": 9}, "num-partitions = 9: federation.size is 4"),
        ({"fault": "nam"}, "fault = nam"),
    ],
)
def test_a_node_that_does_not_fit_answers_with_an_error(node, message, federate):
    one = {"client.ADR": 0.03, "federation.rounds": 1, "federation.round_size": 4}
    _, (report,) = federate(one, node={1: node})
    assert report.refused["101"].startswith(f"error reply: node-config: {message}")


def flat(channels, size, classes):
    """A model whose BatchNorm sees one value a channel and sample."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 8), nn.BatchNorm1d(8))
    return Classifier(body, nn.Linear(8, classes))


def test_a_node_refuses_batches_of_one_sample_as_the_simulator_does(tables, make_grid, tmp_path):
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(tables({"model": f"{__name__}:flat", "client.batch_size": 1})))
    said = r"^client.batch_size = 1: allowed is at least 2; model = .*:flat cannot be trained on"
    with pytest.raises(ConfigError, match=said):
        _trainer(path, tuple(sorted(context().run_config.items())))
