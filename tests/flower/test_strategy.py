"""The strategy with in-memory nodes: every server, every malformed reply, restarts."""

import itertools
import json
import logging
import re
import shutil

import pytest
import torch

pytest.importorskip("flwr.serverapp")
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.app import Message as FlowerMessage
from loopback import DEPLOYABLE, SETTINGS, Loopback

from entity.config.schema import CannotGoOn, ConfigError, load
from entity.defenses import DEFENSES
from entity.federation import select
from entity.flower import RobustStrategy
from entity.flower.arrays import ArrayLayout
from entity.flower.selection import choose
from entity.seeding import Seeds
from entity.server import Averaging, OptimiserArgs, admit
from entity.updates import Aggregation, Updates, verdicts

NODES = (2**63 + 11, 17, 5, 2**60, 40)
"""Node ids as Flower draws them: 64 bits, in no order."""


def server_of(federation, name, **more):
    return federation.server(name, **SETTINGS.get(name, {}), **more)


def expected(federation, server, nodes, round=1, ids=None):
    """Return what the server answers without Flower, for the honest updates of some nodes."""
    states = [federation.moved(node, round) for node in sorted(nodes)]
    updates = Updates(
        round,
        tuple(map(str, sorted(nodes))) if ids is None else ids,
        torch.stack([state.weights for state in states]),
        torch.stack([state.buffers for state in states]),
        torch.ones(len(states), dtype=torch.float64),
        *federation.state,
        spec=federation.spec,
    )
    return admit(server, updates)


def run(federation, make_grid, nodes, server=None, rounds=1, **options):
    strategy = RobustStrategy(server or federation.server(), **options)
    grid = make_grid(nodes)
    result = strategy.start(grid, federation.arrays, num_rounds=rounds, timeout=0)
    return strategy, grid, result


def state_of(federation, arrays):
    return federation.layout.read(arrays, federation.layout.empty())


@pytest.mark.parametrize("name", DEPLOYABLE)
def test_every_server_answers_through_flower_as_it_does_alone(name, federation, make_grid):
    nodes = {node: federation.honest() for node in NODES}
    strategy, _, result = run(federation, make_grid, nodes, server_of(federation, name))
    answer = expected(federation, server_of(federation, name), NODES)
    assert torch.equal(state_of(federation, result.arrays).weights, answer.weights)
    torch.testing.assert_close(
        state_of(federation, result.arrays).buffers, answer.buffers, rtol=0, atol=0
    )
    verdicts = {verdict.client: verdict for verdict in strategy.report.verdicts}
    for verdict in answer.verdicts:
        mine = verdicts[verdict.client]
        assert (mine.accepted, mine.reason) == (verdict.accepted, verdict.reason)


@pytest.mark.parametrize("name", DEPLOYABLE)
@pytest.mark.parametrize("survivors", [1, 2])
def test_every_server_survives_a_round_that_hardly_anybody_answers(
    name, survivors, federation, make_grid
):
    nodes = {
        node: federation.honest() if i < survivors else federation.failing()
        for i, node in enumerate(NODES)
    }
    _, _, result = run(
        federation, make_grid, nodes, server_of(federation, name), rounds=2, min_survivors=1
    )
    state = state_of(federation, result.arrays)
    assert state.weights.isfinite().all()
    assert state.buffers.isfinite().all()


def test_a_defense_that_asks_clients_for_votes_is_refused(federation):
    with pytest.raises(ConfigError, match="server = CrowdGuard: needs clients that vote on one an"):
        RobustStrategy(federation.server("crowdguard"))


def drop_one(arrays):
    del arrays["head.bias"]


def add_one(arrays):
    arrays["\x1b[2Jbackdoor"] = arrays["head.bias"]


def set_to(tensor):
    def change(arrays):
        arrays["head.bias"] = Array(tensor.numpy())

    return change


def huge(arrays):
    arrays["head.bias"] = Array(torch.zeros(200_000).numpy())


def lie(arrays):
    """Claim the right shape and dtype over bytes of another one."""
    true = Array(torch.zeros(4).numpy())
    arrays["head.bias"] = Array("float32", (3,), "numpy.ndarray", true.data)


CHANGES = {
    drop_one: 'missing array "head.bias"',
    add_one: 'unexpected array "\\u001b[2Jbackdoor"',
    set_to(torch.zeros(4)): 'array "head.bias" has shape (4,) instead of (3,)',
    set_to(torch.zeros(3, dtype=torch.float64)): 'array "head.bias" has dtype <f8 instead of <f4',
    set_to(torch.tensor([0.0, float("nan"), 0])): "nonfinite update",
    set_to(torch.tensor([0.0, float("inf"), 0])): "nonfinite update",
    huge: 'array "head.bias" is oversized: 800128 bytes instead of 12',
    lie: 'array "head.bias" has shape (4,) instead of (3,)',
}


def second_record(federation):
    def answer(message):
        reply = federation.honest()(message)
        reply.content["more"] = federation.arrays
        return reply

    return answer


def no_record(federation):
    return lambda message: FlowerMessage(
        RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message
    )


def no_content(message):
    reply = FlowerMessage(RecordDict(), reply_to=message)
    reply.__dict__["_content"] = None
    return reply


def faults(federation):
    """Yield (name, node, reason) of every reply that is no update."""
    for change, reason in CHANGES.items():
        yield change.__name__, federation.changed(change), reason
    yield "error", federation.failing("first\nlast \x1b[1mline"), "error reply: last [1mline"
    yield "silence", lambda message: None, "no reply in time"
    yield "undecodable", lambda message: TypeError("bad"), "error reply: cannot be decoded (TypeErr"
    yield "two records", second_record(federation), 'record of arrays should be "arrays" alone'
    yield "no content", no_content, "empty reply"
    yield "no record", no_record(federation), 'record of arrays should be "arrays" alone'


def test_each_malformed_reply_costs_its_node_the_round_and_nobody_else(
    federation, make_grid, caplog
):
    honest = NODES[:3]
    answer = expected(federation, federation.server(), honest)
    for name, node, reason in faults(federation):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "entity"):
            strategy, _, result = run(
                federation,
                make_grid,
                {7: node, **{node: federation.honest() for node in honest}},
            )
        assert strategy.report.refused.keys() == {"7"}, name
        assert strategy.report.refused["7"].startswith(reason), name
        assert torch.equal(state_of(federation, result.arrays).weights, answer.weights), name
        metrics = result.train_metrics_clientapp[1]
        assert metrics["asked"] == 4
        assert metrics["accepted"] == 3
        assert metrics[f"refused 7: {strategy.report.refused['7']}"] == 1
        assert f"round 1: node 7 refused: {reason}" in caplog.text
        assert "\x1b" not in caplog.text


def test_all_malformed_replies_together_leave_the_honest_ones(federation, make_grid):
    honest = NODES[:3]
    bad = {100 + i: node for i, (_, node, _) in enumerate(faults(federation))}
    strategy, _, result = run(
        federation, make_grid, {**bad, **{node: federation.honest() for node in honest}}
    )
    assert set(strategy.report.refused) == set(map(str, bad))
    answer = expected(federation, federation.server(), honest)
    assert torch.equal(state_of(federation, result.arrays).weights, answer.weights)


def test_a_lost_connection_to_the_superlink_is_no_fault_of_a_node(federation, make_grid):
    nodes = {1: federation.honest(), 2: lambda message: ConnectionResetError("gone")}
    with pytest.raises(ConnectionResetError):
        run(federation, make_grid, nodes)


def two_replies(federation, strategy, grid, nodes):
    """Return the messages of round 1 and honest replies to them, in the driver's hands."""
    messages = strategy.configure_train(1, federation.arrays, ConfigRecord(), grid)
    return messages, [nodes[m.metadata.dst_node_id](m) for m in messages]


def test_a_second_reply_is_ignored_and_a_stranger_refused(federation, make_grid, caplog):
    nodes = {node: federation.honest() for node in NODES}
    strategy = RobustStrategy(federation.server())
    messages, replies = two_replies(federation, strategy, make_grid(nodes), nodes)
    double = federation.changed(set_to(torch.full((3,), 9.0)))(messages[1])
    stranger = FlowerMessage(RecordDict(), 99, "train")
    stranger = federation.reply(stranger, federation.layout.write(federation.moved(99)))
    arrays, _ = strategy.aggregate_train(1, [*replies, double, stranger])
    answer = expected(federation, federation.server(), NODES)
    assert torch.equal(state_of(federation, arrays).weights, answer.weights)
    assert strategy.report.refused == {"99": "was not asked in this round"}
    assert "repeated reply, ignored" in caplog.text


def test_the_order_of_arrival_changes_no_bit(federation, make_grid):
    nodes = {node: federation.honest() for node in NODES}
    found = []
    for order in itertools.islice(itertools.permutations(range(len(NODES))), 0, 120, 17):
        strategy = RobustStrategy(server_of(federation, "droplet"))
        _, replies = two_replies(federation, strategy, make_grid(nodes), nodes)
        arrays, _ = strategy.aggregate_train(1, [replies[i] for i in order])
        found.append(state_of(federation, arrays).weights)
    assert all(torch.equal(weights, found[0]) for weights in found)


def test_replies_are_let_go_of_once_they_are_read(federation, make_grid):
    nodes = {node: federation.honest() for node in NODES}
    strategy = RobustStrategy(federation.server())
    _, replies = two_replies(federation, strategy, make_grid(nodes), nodes)
    held = []

    def stream():
        for reply in replies:
            yield reply
            held.append(len(reply.content.array_records))

    strategy.aggregate_train(1, stream())
    assert held == [0] * len(NODES)


def refuse_all(updates):
    nobody = [False] * len(updates)
    return Aggregation(*updates.global_state, verdicts(updates, nobody, torch.zeros(len(nobody))))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("krum", "3 of 3 clients are left"), ("undefended", "nobody's update was accepted")],
)
def test_a_round_without_a_new_model_is_said_to_keep_the_old_one(
    name, reason, federation, make_grid, caplog, monkeypatch
):
    nodes = {node: federation.honest() for node in (1, 2, 3)}
    server = server_of(federation, name)
    if name == "undefended":
        monkeypatch.setattr(server, "aggregate", refuse_all)
    strategy, _, result = run(federation, make_grid, nodes, server)
    assert torch.equal(state_of(federation, result.arrays).weights, federation.state.weights)
    assert not strategy.report.aggregated
    assert f"the global model stays: {reason}" in caplog.text


def test_too_few_sound_replies_leave_the_global_model_and_the_defense_alone(federation, make_grid):
    nodes = {1: federation.honest(), 2: federation.honest(), 3: federation.failing()}
    strategy, _, result = run(
        federation, make_grid, nodes, server_of(federation, "droplet"), min_survivors=3
    )
    assert torch.equal(state_of(federation, result.arrays).weights, federation.state.weights)
    assert not strategy.report.aggregated
    assert set(strategy.report.refused) == {"3"}
    metrics = strategy.report.metrics()
    assert (metrics["refused"], metrics["undecided"], metrics["accepted"]) == (1, 2, 0)
    assert strategy.server.state_dict()["activity"]["points"] == []


def test_self_reported_sample_counts_count_for_nothing(federation, make_grid):
    plain = {node: federation.honest() for node in NODES}
    greedy = {**plain, 5: federation.honest(samples=1e9)}
    _, _, result = run(federation, make_grid, greedy)
    answer = expected(federation, federation.server(), NODES)
    assert torch.equal(state_of(federation, result.arrays).weights, answer.weights)
    with pytest.raises(ConfigError, match='weighting = "samples": nodes report their own'):
        RobustStrategy(federation.server(weighting="samples"))


def test_trusted_sample_counts_weigh_and_impossible_ones_are_refused(federation, make_grid):
    counts = {17: 30, 5: 10, 40: -1, 41: 0, 42: float("nan"), 43: [3], 44: 1e308}
    nodes = {node: federation.honest(samples=count) for node, count in counts.items()}
    strategy, _, result = run(
        federation,
        make_grid,
        nodes,
        federation.server(weighting="samples"),
        trust_sample_counts=True,
    )
    assert set(strategy.report.refused) == {"40", "41", "42", "43", "44"}
    assert strategy.report.refused["40"] == (
        "num-examples is -1, not a number above 0 and up to 2**53"
    )
    mean = (30 * federation.moved(17).weights + 10 * federation.moved(5).weights) / 40
    torch.testing.assert_close(state_of(federation, result.arrays).weights, mean)


def test_a_bound_holds_for_the_nodes_that_answered(federation, make_grid):
    """Five are asked and four answer, and one of five may be hostile: the model stays."""
    nodes = {node: federation.honest() for node in (1, 2, 3, 4)}
    nodes[5] = lambda message: federation.reply(message, ArrayRecord())
    strategy, _, result = run(federation, make_grid, nodes, federation.server("krum", f=1))
    judged = [v for v in strategy.report.verdicts if v.client != "5"]
    assert {v.reason for v in judged} == {"4 of 5 clients are left, and f = 1 needs n >= 2f + 3"}
    assert torch.equal(state_of(federation, result.arrays).weights, federation.state.weights)
    assert strategy.report.diagnostics["kept_global"] == 1


def test_integer_counters_come_back_as_integers_and_are_in_no_distance(federation, make_grid):
    """Krum would choose by them: the node whose weights lie in the middle has counted most."""

    def counting(size, count):
        def answer(message):
            state = federation.moved(1)
            weights = federation.state.weights + size
            buffers = torch.where(federation.spec.counters, float(count), state.buffers)
            arrays = federation.layout.write(type(state)(weights, buffers))
            return federation.reply(message, arrays)

        return answer

    nodes = {1: counting(-0.1, 5), 2: counting(0.0, 10**6), 3: counting(0.1, 5), 4: counting(9, 5)}
    nodes[5] = counting(-9, 5)
    strategy, _, result = run(federation, make_grid, nodes, federation.server("krum", f=1))
    assert [v.client for v in strategy.report.verdicts if v.accepted] == ["2"]
    tensors = result.arrays.to_torch_state_dict()
    counter = next(name for name in tensors if name.endswith("num_batches_tracked"))
    assert tensors[counter].dtype == torch.int64
    assert tensors[counter] == 5  # the median of all, as one accepted node is no majority


def test_nodes_of_a_half_precision_model_are_judged_from_what_they_were_sent(federation, tmp_path):
    """Whoever sends back what came has not moved, and small steps add up all the same."""
    halves = ArrayRecord(
        {
            name: value.half() if value.is_floating_point() else value
            for name, value in federation.model.state_dict().items()
        }
    )
    layout = ArrayLayout.of(federation.spec, halves)
    seen = []

    def node(message):
        arrays = message.content["arrays"].to_torch_state_dict()
        if message.metadata.dst_node_id == 1:  # one unit in the last place, of one client in five
            for name, value in arrays.items():
                if value.dtype == torch.float16:
                    arrays[name] = torch.nextafter(value, torch.full_like(value, torch.inf))
        return federation.reply(message, ArrayRecord(arrays))

    class Watched(type(federation.server())):
        def aggregate(self, updates):
            seen.append([float(norm) for norm in updates.norms])
            return super().aggregate(updates)

    def play(rounds, **options):
        server = federation.server()
        watched = Watched(server.args, server.resources)
        strategy = RobustStrategy(watched, **options)
        nodes = dict.fromkeys(range(1, 6), node)
        return strategy.start(Loopback(nodes), halves, num_rounds=rounds, timeout=0).arrays

    last = play(6)
    assert len(seen) == 6
    assert all(norms[0] > 0 and norms[1:] == [0] * 4 for norms in seen)
    start, end = (layout.read(each, layout.empty()).weights for each in (halves, last))
    assert (end > start).float().mean() > 0.9  # six steps of a fifth of a unit each
    play(3, state_folder=tmp_path)
    again = play(6, state_folder=tmp_path)
    assert torch.equal(layout.read(again, layout.empty()).weights, end)


def test_penalties_follow_the_node_id_across_rounds(federation, make_grid):
    def turncoat(message):
        size = 3.0 if message.content["config"]["server-round"] == 1 else 0.01
        return federation.honest(size)(message)

    nodes = {node: federation.honest() for node in NODES[1:]} | {NODES[0]: turncoat}
    reports = []
    run(
        federation,
        make_grid,
        nodes,
        server_of(federation, "droplet", penalty=2.0, reward=0.5, min_separation=3.0),
        rounds=2,
        on_round=reports.append,
    )
    assert reports[0].refused == {str(NODES[0]): "2 penalty points"}
    # Without a split in round 2 everybody is in the majority, so half a point is worked off.
    assert reports[1].refused == {str(NODES[0]): "1.5 penalty points"}


def test_the_choice_of_nodes_is_the_simulators_and_has_its_own_seed(experiment):
    config = experiment({"federation.size": 20, "federation.round_size": 6}).federation
    nodes = list(range(500, 520))
    for round in (1, 2, 3):
        torch.manual_seed(round)
        ours = choose(nodes[::-1], 6, round, Seeds(3))
        assert ours == tuple(500 + c for c in select(config, set(), round, Seeds(3)))
    assert choose(nodes, 6, 1, Seeds(3)) != choose(nodes, 6, 1, Seeds(4))
    assert choose(nodes, None, 1, Seeds(3)) == choose(nodes, 50, 1, Seeds(3)) == tuple(nodes)


def test_only_the_chosen_nodes_get_a_message_with_the_round(federation, make_grid):
    nodes = {node: federation.honest() for node in NODES}
    _, grid, _ = run(federation, make_grid, nodes, rounds=2, nodes_per_round=3)
    told = [m.content["config"]["server-round"] for m in grid.sent]
    assert told == [1, 1, 1, 2, 2, 2]
    first = tuple(m.metadata.dst_node_id for m in grid.sent[:3])
    assert first == choose(NODES, 3, 1, Seeds(5))


def interrupted(federation, make_grid, name, folder, rounds, stop_after):
    """Run, lose the server process after some rounds, and go on with a new one."""
    for last in (stop_after, rounds):
        nodes = {node: federation.honest() for node in NODES} | {6: federation.honest(0.5)}
        evaluated = []
        strategy = RobustStrategy(server_of(federation, name), state_folder=folder)
        result = strategy.start(
            make_grid(nodes),
            federation.arrays,
            num_rounds=last,
            timeout=0,
            evaluate_fn=lambda number, arrays, seen=evaluated: seen.append(number),
        )
    return strategy, result, evaluated


def test_a_servers_optimiser_steps_and_its_moments_survive_a_restart(
    federation, make_grid, tmp_path
):
    def strategy(name, folder=None, **settings):
        args = OptimiserArgs(name, **settings)
        server = server_of(federation, "droplet", optimiser=args, server_lr=0.01)
        return RobustStrategy(server, state_folder=folder)

    def play(strategy, last):
        grid = make_grid({node: federation.honest() for node in NODES})
        result = strategy.start(grid, federation.arrays, num_rounds=last, timeout=0)
        return state_of(federation, result.arrays)

    never = play(strategy("fedyogi"), 3)
    play(strategy("fedyogi", tmp_path), 2)
    found = play(strategy("fedyogi", tmp_path), 3)
    assert torch.equal(found.weights, never.weights)
    plain = play(RobustStrategy(server_of(federation, "droplet")), 3)
    assert not torch.allclose(found.weights, plain.weights)
    assert torch.equal(found.buffers, plain.buffers)
    none = RobustStrategy(server_of(federation, "droplet"), state_folder=tmp_path)
    for other in (strategy("fedadam", tmp_path), strategy("fedyogi", tmp_path, tau=0.1), none):
        with pytest.raises(ConfigError, match="another optimiser"):
            play(other, 3)


@pytest.mark.parametrize("name", ["drop", "droplet", "foolsgold", "flare", "crfl"])
def test_a_restarted_server_ends_where_one_that_never_stopped_does(
    name, federation, make_grid, tmp_path
):
    nodes = {node: federation.honest() for node in NODES} | {6: federation.honest(0.5)}
    whole = RobustStrategy(server_of(federation, name))
    never = whole.start(make_grid(nodes), federation.arrays, num_rounds=4, timeout=0)
    strategy, result, evaluated = interrupted(
        federation, make_grid, name, tmp_path / "state", rounds=4, stop_after=2
    )
    assert evaluated == [2, 3, 4]
    assert list(result.train_metrics_clientapp) == [3, 4]
    for a, b in zip(*(state_of(federation, r.arrays) for r in (result, never)), strict=True):
        assert torch.equal(a, b)
    assert strategy.report.verdicts == whole.report.verdicts
    lines = (tmp_path / "state" / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2, 3, 4]


def test_a_finished_federation_is_only_read(federation, make_grid, tmp_path):
    for _ in range(2):
        strategy = RobustStrategy(federation.server(), state_folder=tmp_path)
        grid = make_grid({node: federation.honest() for node in NODES})
        result = strategy.start(grid, federation.arrays, num_rounds=1, timeout=0)
    assert grid.sent == []
    answer = expected(federation, federation.server(), NODES)
    assert torch.equal(state_of(federation, result.arrays).weights, answer.weights)


def test_what_else_lies_in_a_state_folder_stays(federation, make_grid, tmp_path):
    nodes = {1: federation.honest(), 2: federation.honest()}
    (tmp_path / "artifacts").mkdir()
    own = ["model.safetensors", "error.txt", "artifacts/round_table.pdf", "artifacts/round_0009.x"]
    for name in own:
        (tmp_path / name).write_text("mine")
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(ConfigError, match="is of no federation, and would be replaced"):
        run(federation, make_grid, nodes, rounds=1, state_folder=tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"architectures": ["BertModel"]}
    (tmp_path / "config.json").unlink()
    for rounds in (1, 2):  # from the start, and after one
        run(federation, make_grid, nodes, rounds=rounds, state_folder=tmp_path)
        assert [(tmp_path / name).read_text() for name in own] == ["mine"] * 4


def test_a_state_of_another_federation_is_not_taken_up(
    federation, make_grid, tmp_path, monkeypatch
):
    nodes, kept = {node: federation.honest() for node in NODES}, {"state_folder": tmp_path}
    run(federation, make_grid, nodes, server_of(federation, "droplet"), **kept)
    for server, what in (
        (federation.server(), "another defense"),
        (federation.server("droplet", penalty=3.0), "another settings"),
    ):
        with pytest.raises(ConfigError, match=what):
            run(federation, make_grid, nodes, server, state_folder=tmp_path)
    with pytest.raises(ConfigError, match="another averaging"):
        run(federation, make_grid, nodes, server_of(federation, "droplet", server_lr=0.5), **kept)
    later = server_of(federation, "droplet")
    monkeypatch.setattr(type(later), "revision", 2)
    with pytest.raises(ConfigError, match="another revision"):
        run(federation, make_grid, nodes, later, state_folder=tmp_path)


def test_a_defense_that_looks_ahead_goes_on_with_as_many_rounds_as_it_was_told(
    federation, make_grid, tmp_path
):
    nodes = {node: federation.honest() for node in NODES}

    def crfl(rounds):
        args = load(DEFENSES["crfl"].hyperparameters, SETTINGS.get("crfl", {}))
        return DEFENSES["crfl"](args, federation.resources(rounds=rounds))

    with pytest.raises(ConfigError, match=r"num_rounds = 2: what Crfl does depends on .* = 4\."):
        run(federation, make_grid, nodes, crfl(4), rounds=2, state_folder=tmp_path)
    run(federation, make_grid, nodes, crfl(2), rounds=2, state_folder=tmp_path)
    with pytest.raises(ConfigError, match="another number of rounds"):
        run(federation, make_grid, nodes, crfl(4), rounds=4, state_folder=tmp_path)


def test_a_server_without_the_clean_data_that_it_looks_at_is_refused_when_it_is_made(federation):
    for name in ("fltrust", "flare", "drop_plus", "finetuning"):
        with pytest.raises(ConfigError, match=r"clean = None: \w+ looks at clean data"):
            DEFENSES[name](DEFENSES[name].hyperparameters(), federation.resources(clean=None))
    recalibrating = federation.resources(clean=None, averaging=Averaging(bn_policy="recalibrate"))
    with pytest.raises(ConfigError, match="clean = None: bn_policy = recalibrate estimates"):
        DEFENSES["median"](DEFENSES["median"].hyperparameters(), recalibrating)


def test_a_server_killed_between_record_and_checkpoint_does_the_round_again(
    federation, make_grid, tmp_path
):
    nodes = {node: federation.honest() for node in NODES}
    run(federation, make_grid, nodes, rounds=2, state_folder=tmp_path)
    (tmp_path / "checkpoint" / "round_0002.json").unlink()
    _, _, result = run(federation, make_grid, nodes, rounds=2, state_folder=tmp_path)
    assert list(result.train_metrics_clientapp) == [2]
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2]


def lose(journal):
    journal.unlink()


def empty(journal):
    journal.write_bytes(b"")


def cut_to_one_line(journal):
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])


def spoil_the_first_line(journal):
    journal.write_bytes(b"\0" + journal.read_bytes())


def spoil_the_third_line(journal):
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = b"\xff" + lines[2]
    journal.write_bytes(b"".join(lines))


DAMAGES = {
    lose: [],
    empty: [],
    cut_to_one_line: [1],
    spoil_the_first_line: [2, 3, 4],
    spoil_the_third_line: [1, 2, 4],
}
"""What happens to `rounds.jsonl` after four rounds, and the lines that can still be read."""


def attacked(federation, make_grid, folder, rounds, name="droplet"):
    """Run with a node that attacks in round 1 only, for which it has penalty points."""

    def turncoat(message):
        size = 3.0 if message.content["config"]["server-round"] == 1 else 0.01
        return federation.honest(size)(message)

    nodes = {node: federation.honest() for node in NODES[1:]} | {NODES[0]: turncoat}
    server = server_of(federation, name, penalty=9.0, reward=0.5, min_separation=3.0)
    return run(federation, make_grid, nodes, server, rounds=rounds, state_folder=folder)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_journal_shorter_than_the_checkpoints_is_rebuilt_and_nobody_pardoned(
    damage, federation, make_grid, tmp_path, caplog
):
    whole, _, never = attacked(federation, make_grid, tmp_path / "whole", 5)
    assert whole.report.refused == {str(NODES[0]): "7 penalty points"}
    folder = tmp_path / "damaged"
    attacked(federation, make_grid, folder, 4)
    journal = folder / "rounds.jsonl"
    before = journal.read_bytes().splitlines(keepends=True)
    damage(journal)
    left = journal.read_bytes() if journal.exists() else b""
    checkpoints = sorted(path.name for path in (folder / "checkpoint").iterdir())
    attacked(federation, make_grid, folder, 4)  # nothing to do, but it reads and rebuilds
    assert sorted(path.name for path in (folder / "checkpoint").iterdir()) == checkpoints
    assert "is shorter than the checkpoints: going on after round 4" in caplog.text
    strategy, grid, result = attacked(federation, make_grid, folder, 5)
    assert len(grid.sent) == len(NODES)  # round 5 alone
    assert strategy.report.verdicts == whole.report.verdicts
    assert torch.equal(
        state_of(federation, result.arrays).weights, state_of(federation, never.arrays).weights
    )
    lines = journal.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["round"] for line in lines] == [1, 2, 3, 4, 5]
    for number, line in enumerate(lines[:4], start=1):
        if number in DAMAGES[damage]:
            assert line == before[number - 1]
        else:
            assert json.loads(line)["lost"] is True
    aside = folder / "rounds.damaged.jsonl"
    assert (aside.read_bytes() if left else b"") == left
    assert aside.exists() == bool(left)


def without_json(checkpoint):
    for path in checkpoint.glob("*.json"):
        path.unlink()


def garbled(checkpoint):
    for path in checkpoint.glob("*.json"):
        path.write_bytes(path.read_bytes().replace(b"penalty", b"pen4lty"))


def gone(checkpoint):
    for path in checkpoint.iterdir():
        path.unlink()


@pytest.mark.parametrize("damage", [lose, empty, cut_to_one_line, spoil_the_first_line])
@pytest.mark.parametrize("spoil", [without_json, garbled])
def test_rounds_that_only_damaged_checkpoints_show_are_not_begun_anew(
    damage, spoil, federation, make_grid, tmp_path
):
    attacked(federation, make_grid, tmp_path, 4)
    damage(tmp_path / "rounds.jsonl")
    spoil(tmp_path / "checkpoint")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="holds 4 rounds but no whole checkpoint; move it away"):
        attacked(federation, make_grid, tmp_path, 4)
    assert {path: path.read_bytes() for path in before} == before


def test_checkpoints_that_were_put_back_from_long_ago_are_not_gone_on_with(
    federation, make_grid, tmp_path
):
    attacked(federation, make_grid, tmp_path, 1)
    shutil.copytree(tmp_path / "checkpoint", tmp_path / "backup")
    attacked(federation, make_grid, tmp_path, 4)
    shutil.rmtree(tmp_path / "checkpoint")
    (tmp_path / "backup").rename(tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match="has 4 rounds, and the last whole checkpoint is of rou"):
        attacked(federation, make_grid, tmp_path, 4)


def test_a_journal_whose_first_line_is_damaged_still_shows_that_rounds_were_played(
    federation, make_grid, tmp_path
):
    attacked(federation, make_grid, tmp_path, 4)
    spoil_the_first_line(tmp_path / "rounds.jsonl")
    gone(tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match="holds 4 rounds but no whole checkpoint"):
        attacked(federation, make_grid, tmp_path, 4)


def test_a_server_killed_before_its_first_checkpoint_begins_anew(federation, make_grid, tmp_path):
    attacked(federation, make_grid, tmp_path, 1)
    (tmp_path / "checkpoint" / "round_0001.json").unlink()
    _, grid, _ = attacked(federation, make_grid, tmp_path, 1)
    assert len(grid.sent) == len(NODES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_survivors": 0}, "min_survivors = 0: allowed is a whole number from 1."),
        ({"nodes_per_round": -1}, "nodes_per_round = -1: allowed is a whole number from 1."),
        ({"nodes_per_round": 2.5}, "nodes_per_round = 2.5: allowed is a whole number from 1."),
        ({"min_nodes": "3"}, 'min_nodes = "3": allowed is a whole number from 1.'),
        ({"min_survivors": True}, "min_survivors = true: allowed is a whole number from 1."),
        (
            {"nodes_per_round": 4, "min_survivors": 5},
            "min_survivors = 5: allowed is at most nodes_per_round, which is 4; with so few nodes "
            "no round would change the model.",
        ),
        (
            {"min_nodes": 1},
            "min_survivors = 2: allowed is at most min_nodes, which is 1; with so few nodes no "
            "round would change the model.",
        ),
        ({"trust_sample_counts": "no"}, 'trust_sample_counts = "no": allowed is True or False.'),
        ({"on_round": 3}, "on_round = 3: allowed is a function of a report."),
        ({"state_folder": ""}, 'state_folder = "": allowed is the path of a folder, or None.'),
        ({"state_folder": 3}, "state_folder = 3: allowed is the path of a folder, or None."),
        ({"state_folder": "a\0b"}, "state_folder = "),
        (
            {"state_folder": "/dev/null"},
            "state_folder = /dev/null: is a file; allowed is a folder.",
        ),
        (
            {"state_folder": "/dev/null/state"},
            "state_folder = /dev/null/state: cannot be written (",
        ),
    ],
)
def test_impossible_settings_are_refused(options, message, federation):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        RobustStrategy(federation.server(), **options)


def test_a_server_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r'^server = "krum": allowed is a defense'):
        RobustStrategy("krum", state_folder=tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_state_folder_that_takes_no_checkpoints_is_refused_before_the_first_round(
    federation, tmp_path
):
    (tmp_path / "checkpoint").write_text("")
    said = f"state_folder = {tmp_path / 'checkpoint'}: is a file; allowed is a folder."
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"):
        RobustStrategy(federation.server(), state_folder=tmp_path)


def test_a_state_that_can_no_longer_be_written_ends_the_federation_in_a_sentence(
    federation, make_grid, tmp_path
):
    nodes = {1: federation.honest(), 2: federation.honest()}

    def lose(report):
        if report.round == 1:
            shutil.rmtree(tmp_path / "checkpoint")
            (tmp_path / "checkpoint").write_text("")

    with pytest.raises(CannotGoOn, match=re.escape(str(tmp_path))):
        run(federation, make_grid, nodes, rounds=2, state_folder=tmp_path, on_round=lose)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_rounds": -1}, "num_rounds = -1: allowed is a whole number from 0."),
        ({"timeout": -1}, "timeout = -1: allowed is a number from 0, of seconds."),
        ({"timeout": float("nan")}, "timeout = NaN: allowed is a number from 0, of seconds."),
        ({"evaluate_fn": 1}, "evaluate_fn = 1: allowed is a function of a round's number and"),
    ],
)
def test_impossible_arguments_of_a_start_are_refused_before_anybody_is_asked(
    given, message, federation, make_grid
):
    grid = make_grid({1: federation.honest(), 2: federation.honest()})
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        RobustStrategy(federation.server()).start(grid, federation.arrays, **given)
    assert not grid.sent


def test_nobody_is_asked_to_judge_itself(federation, make_grid):
    strategy = RobustStrategy(federation.server())
    grid = make_grid({1: federation.honest()})
    assert strategy.configure_evaluate(1, ArrayRecord(), ConfigRecord(), grid) == []
    assert strategy.aggregate_evaluate(1, []) is None
