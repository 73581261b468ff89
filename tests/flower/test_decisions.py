"""What an operator decides about single clients, and that the strategy carries it out once."""

import json
import logging

import pytest
import torch
from flwr.app import ConfigRecord
from flwr.proto.node_pb2 import NodeInfo
from loopback import DEPLOYABLE, SETTINGS, Loopback

from entity.deployment.decisions import decide
from entity.deployment.followed import FollowedFederation
from entity.flower import RobustStrategy
from entity.record.checkpoint import Checkpoints
from entity.record.packing import pack

NODES = (2**63 + 11, 17, 5, 2**60, 40)
BAD = str(NODES[0])


def state_of(federation, result):
    return federation.layout.read(result.arrays, federation.layout.empty())


def run(federation, make_grid, folder, rounds, grid=None, **args):
    """Play with a node that attacks in round 1, for which it has 9 points, half a point a round."""

    def turncoat(message):
        size = 3.0 if message.content["config"]["server-round"] == 1 else 0.01
        return federation.honest(size)(message)

    nodes = {node: federation.honest() for node in NODES[1:]} | {NODES[0]: turncoat}
    settings = {"penalty": 9.0, "reward": 0.5, "min_separation": 3.0} | args
    strategy = RobustStrategy(federation.server("droplet", **settings), state_folder=folder)
    grid = grid or make_grid(nodes)
    result = strategy.start(grid, federation.arrays, num_rounds=rounds, timeout=0)
    return strategy, grid, result


def lines_of(folder):
    return [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", DEPLOYABLE)
def test_a_defense_that_keeps_something_about_clients_says_so_and_forgets_it(
    name, federation, make_grid
):
    more = {"blacklist_threshold": 1.0} if name in ("drop", "droplet") else {}
    more |= {"momentum": 0.9} if name == "centered_clipping" else {}
    server = federation.server(name, **SETTINGS.get(name, {}), **more)
    nodes = {node: federation.honest() for node in NODES} | {6: federation.honest(0.5)}
    RobustStrategy(server).start(make_grid(nodes), federation.arrays, num_rounds=1, timeout=0)
    state = json.dumps(pack(server.state_dict())[0])
    about = [str(node) for node in nodes if f'"{node}"' in state]
    assert bool(about) == bool(server.remembers)
    had = [server.pardon(client) for client in about]
    assert all(had) or name in ("drop", "droplet")  # who was always in the majority has no points
    assert any(had) == bool(about)
    left = json.dumps(pack(server.state_dict())[0])
    assert not [client for client in about if f'"{client}"' in left]
    assert [server.pardon(str(node)) for node in nodes] == [""] * len(nodes)


def test_a_pardon_takes_effect_at_the_next_round_and_is_logged(
    federation, make_grid, tmp_path, caplog
):
    strategy, _, _ = run(federation, make_grid, tmp_path, 2)
    assert strategy.report.refused == {BAD: "8.5 penalty points"}
    decision = decide(tmp_path, "pardon", BAD, "its disk was full, and is not")
    with caplog.at_level(logging.INFO, "entity"):
        strategy, _, _ = run(federation, make_grid, tmp_path, 3)
    assert strategy.report.refused == {}
    said = f"node {BAD} is pardoned (8.5 penalty points): its disk was full, and is not"
    assert said in caplog.text
    assert [line["decisions"] for line in lines_of(tmp_path)[:2]] == [[], []]
    (kept,) = lines_of(tmp_path)[2]["decisions"]
    assert kept == {
        "kind": "pardon",
        "client": BAD,
        "reason": "its disk was full, and is not",
        "time": decision.time,
        "by": decision.by,
        "forgotten": "8.5 penalty points",
    }


def test_a_pardon_during_a_round_waits_for_the_next_one(federation, make_grid, tmp_path):
    class Pardoning(Loopback):
        def push_messages(self, messages):
            if len(self.sent) == len(NODES):  # the nodes of round 2 have their work now
                decide(tmp_path, "pardon", BAD, "while it trains")
            return super().push_messages(messages)

    nodes = {node: federation.honest() for node in NODES[1:]}
    nodes[NODES[0]] = lambda m: federation.honest(
        3.0 if m.content["config"]["server-round"] == 1 else 0.01
    )(m)
    run(federation, make_grid, tmp_path, 3, Pardoning(nodes))
    verdicts = [{v["client"]: v["accepted"] for v in x["verdicts"]} for x in lines_of(tmp_path)]
    assert [each[BAD] for each in verdicts] == [False, False, True]


def test_a_restart_neither_forgets_a_pardon_nor_repeats_it(federation, make_grid, tmp_path):
    """Who is pardoned before round 1 and attacks in it is refused after any number of restarts."""
    run(federation, make_grid, tmp_path, 0)
    decide(tmp_path, "pardon", BAD, "in advance")
    run(federation, make_grid, tmp_path, 1)
    for rounds, points in ((2, "8.5"), (3, "8")):
        strategy, _, _ = run(federation, make_grid, tmp_path, rounds)
        assert strategy.report.refused == {BAD: f"{points} penalty points"}
    decide(tmp_path, "pardon", BAD, "after all")
    whole, _, never = run(federation, make_grid, tmp_path, 4)
    assert whole.report.refused == {}
    # Killed between the pardon and the checkpoint, it does the round again, to the same bits.
    (tmp_path / "checkpoint" / "round_0004.json").unlink()
    again, _, result = run(federation, make_grid, tmp_path, 4)
    assert again.report.verdicts == whole.report.verdicts
    assert torch.equal(state_of(federation, result).weights, state_of(federation, never).weights)
    assert len(lines_of(tmp_path)[3]["decisions"]) == 1


def test_a_blacklisted_node_is_pardoned_too(federation, make_grid, tmp_path):
    run(federation, make_grid, tmp_path, 2, blacklist_threshold=9.0)
    assert lines_of(tmp_path)[1]["verdicts"][-1]["reason"] == "blacklisted"
    decide(tmp_path, "pardon", BAD, "a mistake")
    strategy, _, _ = run(federation, make_grid, tmp_path, 3, blacklist_threshold=9.0)
    assert strategy.report.refused == {}
    (kept,) = lines_of(tmp_path)[2]["decisions"]
    assert kept["forgotten"] == "8.5 penalty points, blacklisted"


def test_who_is_removed_for_good_is_taken_back(federation):
    server = federation.server("fldetector", removal="for_good")
    server.removed, server.distances = {"5", "7"}, {"5": [2.0], "9": [1.0]}
    assert [server.pardon(each) for each in ("5", "5", "9", "8")] == [
        *("its removal", "", "its updates", "")
    ]
    assert (server.removed, server.distances) == ({"7"}, {})


def test_lines_that_are_no_decisions_end_no_round(federation, make_grid, tmp_path, caplog):
    run(federation, make_grid, tmp_path, 1)
    odd = b'{"kind": "pardon"}\n[]\n\xff\n{"kind": "raise", "client": "5"}\n'
    decide(tmp_path, "rekey", "5", "typed with a zero", "011")
    decide(tmp_path, "rekey", "5", "of more than 64 bits", str(2**64))
    odd += (tmp_path / "decisions.jsonl").read_bytes()
    (tmp_path / "decisions.jsonl").write_bytes(odd + b'{"kind": "par')
    decide(tmp_path, "pardon", BAD, "whole")  # begins a line of its own
    strategy, _, _ = run(federation, make_grid, tmp_path, 3)
    assert strategy.report.refused == {}
    for number in range(1, 8):
        said = f"decisions.jsonl, line {number}: is no decision"
        assert caplog.text.count(said) == 1
    (tmp_path / "decisions.jsonl").unlink()
    (tmp_path / "decisions.jsonl").mkdir()
    strategy, _, _ = run(federation, make_grid, tmp_path, 4)
    assert "decisions.jsonl: cannot be read" in caplog.text
    assert strategy.report.round == 4


def test_a_client_with_a_new_key_is_who_it_was_to_the_bit(federation, make_grid, tmp_path):
    """Its new node has another id, and sends what the old one would have sent."""

    def as_node(old):
        def answer(message):
            round = message.content["config"]["server-round"]
            size = 3.0 if old == NODES[0] and round == 1 else 0.01
            return federation.reply(
                message, federation.layout.write(federation.moved(old, round, size))
            )

        return answer

    old, new = NODES[0], 3
    before = {node: as_node(node) for node in NODES}
    after = {node: as_node(node) for node in NODES if node != old} | {new: as_node(old)}
    never, _, expected = run(federation, make_grid, tmp_path / "never", 4, make_grid(before))
    folder = tmp_path / "rekeyed"
    run(federation, make_grid, folder, 2, make_grid(before))
    decide(folder, "rekey", str(old), "its key was lost", str(new))
    strategy, grid, result = run(federation, make_grid, folder, 3, make_grid(after))
    assert {m.metadata.dst_node_id for m in grid.sent} == {*NODES[1:], new}
    # With the old key still connected beside the new one, and after another restart.
    both = make_grid(after | {old: federation.failing("stolen")})
    strategy, grid, result = run(federation, make_grid, folder, 4, both)
    assert {m.metadata.dst_node_id for m in grid.sent} == {*NODES[1:], new}
    assert strategy.report.verdicts == never.report.verdicts
    assert strategy.report.refused == {str(old): "7.5 penalty points"}
    assert torch.equal(state_of(federation, result).weights, state_of(federation, expected).weights)
    ours, theirs = (
        Checkpoints(place, {}, 1).last().snapshot.server for place in (folder, tmp_path / "never")
    )
    assert {k: v for k, v in ours.items() if k in theirs} == theirs


def test_what_an_old_key_sends_is_not_held_against_its_client(federation, make_grid, tmp_path):
    nodes = {node: federation.honest() for node in NODES}
    run(federation, make_grid, tmp_path, 1, make_grid(nodes), min_separation=1e9)
    decide(tmp_path, "rekey", "40", "stolen", "41")
    server = federation.server("droplet", penalty=9.0, reward=0.5, min_separation=1e9)
    strategy = RobustStrategy(server, state_folder=tmp_path)
    nodes[41] = federation.honest()
    grid = make_grid(nodes)
    strategy._resume(federation.arrays)
    messages = strategy.configure_train(2, federation.arrays, ConfigRecord(), grid)
    replies = {m.metadata.dst_node_id: nodes[m.metadata.dst_node_id](m) for m in messages}
    assert 40 not in replies
    old = federation.failing()(messages[-1])
    old.metadata.__dict__["_src_node_id"] = 40
    strategy.aggregate_train(2, [old, *replies.values()])
    assert strategy.report.refused == {}
    assert {v.client for v in strategy.report.verdicts} == set(map(str, NODES))


def test_names_of_registered_nodes_are_in_the_log_and_the_rounds(
    federation, make_grid, tmp_path, caplog
):
    class Named(Loopback):
        def get_nodes(self):
            names = {NODES[0]: "clinic \x1b[2J3", 17: "clinic 1"}
            return [NodeInfo(node_id=node, name=names.get(node, "")) for node in self.nodes]

    nodes = {node: federation.honest() for node in NODES}
    nodes[NODES[0]] = federation.failing("no disk")
    run(federation, make_grid, tmp_path, 1, Named(nodes))
    assert lines_of(tmp_path)[0]["names"] == {BAD: "clinic [2J3", "17": "clinic 1"}
    assert f"round 1: node {BAD} (clinic [2J3) refused: error reply: no disk" in caplog.text


def test_what_a_strategy_does_is_in_its_state_folder(federation, make_grid, tmp_path):
    seen = []

    class Looking(Loopback):
        def get_node_ids(self):
            seen.append(status())
            return super().get_node_ids()

        def pull_messages(self, ids):
            seen.append(status())
            return super().pull_messages(ids)

    def status():
        path = tmp_path / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    nodes = {node: federation.honest() for node in NODES}
    run(federation, make_grid, tmp_path, 1, Looking(nodes))
    assert seen[0] == {}
    assert {k: v for k, v in seen[-1].items() if k != "since"} == {
        "defense": "Droplet",
        "remembers": "penalty points and the blacklist",
        "rounds": 1,
        "stage": "training",
        "round": 1,
        "asked": 5,
        "connected": 5,
        "replies": 0,
    }
    assert (status()["stage"], status()["round"], status()["sound"]) == ("finished", 1, 5)
    nodes[5] = lambda message: ConnectionResetError("gone")
    with pytest.raises(ConnectionResetError):
        run(federation, make_grid, tmp_path, 2, make_grid(nodes))
    assert (status()["stage"], status()["reason"]) == ("failed", "ConnectionResetError: gone")


@pytest.mark.parametrize(
    ("error", "state"),
    [(SystemExit(0), "stopped"), (KeyboardInterrupt(), "stopped"), (SystemExit("no"), "failed")],
)
def test_who_was_told_to_stop_has_not_failed(error, state, federation, make_grid, tmp_path):
    def told(message_ids):
        raise error

    grid = make_grid({node: federation.honest() for node in NODES})
    run(federation, make_grid, tmp_path, 1, grid)
    grid.pull_messages = told
    with pytest.raises(type(error)):
        run(federation, make_grid, tmp_path, 2, grid)
    followed = FollowedFederation(tmp_path)
    followed.look()
    assert followed.state == state
