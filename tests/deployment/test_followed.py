"""A federation seen from its state folder, and the commands that an operator gives there."""

import fcntl
import io
import json
import re

import pytest
from rich.console import Console

from entity.cli import console, main
from entity.config.schema import ConfigError
from entity.deployment.decisions import decide, read
from entity.deployment.followed import FollowedFederation, find
from entity.record.json_files import write_json

STATUS = {
    "defense": "Droplet",
    "remembers": "penalty points and the blacklist",
    "rounds": 20,
    "stage": "training",
    "round": 3,
    "asked": 5,
    "replies": 2,
    "since": 0.0,
}
LONG = str(2**63 + 11)


def line(number, refused=(), asked=("5", "17", LONG), **more):
    out = dict(refused)
    verdicts = [
        {"client": c, "accepted": c not in out, "reason": out.get(c, ""), "undecided": False}
        for c in asked
    ]
    facts = {"time": 1e9 + number, "seconds": {"receive": 2.0, "aggregate cluster": 9.0}}
    return {"round": number, "verdicts": verdicts, "aggregated": True, **facts, **more}


@pytest.fixture
def federation(tmp_path):
    """A state folder with a lock as a running strategy has it, and ways to go on and to end."""

    class Federation:
        folder = tmp_path / "state"

        def add(self, *lines):
            with (self.folder / "rounds.jsonl").open("a") as file:
                file.writelines(json.dumps(each) + "\n" for each in lines)

        def status(self, **facts):
            write_json(self.folder / "status.json", STATUS | facts)

        def end(self, **facts):
            self.status(**facts)
            self.lock.close()

    made = Federation()
    made.folder.mkdir()
    made.status()
    made.lock = (made.folder / ".lock").open("a")
    fcntl.flock(made.lock, fcntl.LOCK_EX)
    names = {"names": {LONG: "clinic 3"}}
    made.add(line(1, {LONG: "1 penalty points"}, **names), line(2, {"5": "no reply in time"}))
    yield made
    made.lock.close()


@pytest.fixture
def terminal(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(console, "out", screen)
    return screen.file


def said(capsys):
    shown = capsys.readouterr()
    return " ".join(shown.out.split()), " ".join(shown.err.split())


def test_the_screen_fits_80_columns_and_says_who_was_refused(federation, terminal):
    federation.add(line(3, {LONG: "x" * 200, "5": "no reply in time"}))
    assert main(["deploy", "watch", str(federation.folder), "--once"]) == 0
    shown = terminal.getvalue()
    assert max(len(each) for each in shown.splitlines()[:-1]) <= 80
    assert "round 3/20  training: 2 of 5 replies" in shown
    assert "refused so far: 2 no reply, 1 penalty points" in shown.replace("1 x" + "x" * 79, "")
    assert f"{LONG}: xxx" in shown
    rows = [each.split() for each in shown.splitlines() if re.match(r"\s+[123]\s", each)]
    assert [row[0] + row[2] + row[3] + row[4] for row in rows] == ["1321", "2321", "3312"]
    assert [row[-1] for row in rows] == ["new"] * 3
    assert rows[0][5] == "2.0"  # the defense's parts are in the stages


def test_lines_for_a_log_and_for_programs(federation, capsys):
    federation.end(stage="finished")
    watch = ["deploy", "watch", str(federation.folder)]
    assert main(watch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "  1/20  accepted 2 of 3  2.0 s  refused 1: clinic 3 (1 penalty points)",
        "  2/20  accepted 2 of 3  2.0 s  refused 1: 5 (no reply in time)",
        "finished: 2 rounds, 2 refusals",
    ]
    assert main([*watch, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main([*watch, "--json"]) == 0
    facts = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
    assert [each["round"] for each in facts] == [1, 2]
    assert facts[0]["refused"] == [
        {"client": LONG, "name": "clinic 3", "reason": "1 penalty points"}
    ]
    assert (facts[0]["asked"], facts[0]["accepted"], facts[0]["aggregated"]) == (3, 2, True)


def test_a_federation_is_followed_until_it_ends(federation, capsys, monkeypatch):
    naps = []

    def nap(seconds):
        naps.append(seconds)
        federation.add(line(len(naps) + 2, aggregated=len(naps) == 1))
        if len(naps) == 2:
            federation.end(stage="failed", reason="the disk is full")

    monkeypatch.setattr("entity.cli.deploy_watch.time.sleep", nap)
    assert main(["deploy", "watch", str(federation.folder), "--every", "3"]) == 1
    shown = capsys.readouterr()
    assert naps == [3, 3]
    assert [each.split("/")[0].strip() for each in shown.out.splitlines()] == ["1", "2", "3", "4"]
    err = " ".join(shown.err.split())
    assert "round 4: the global model stayed as it was" in err
    assert "failed after round 4 of 20: the disk is full" in err


@pytest.mark.parametrize(
    ("facts", "locked", "state", "doing"),
    [
        (
            {"stage": "waiting", "connected": 3, "needed": 5},
            True,
            "running",
            "waiting for nodes: 3 of 5",
        ),
        ({"stage": "aggregating", "sound": 4}, True, "running", "aggregating 4 updates"),
        ({"stage": "evaluating"}, True, "running", "evaluating"),
        ({"stage": "finished"}, True, "running", "starting"),
        ({"stage": "finished"}, False, "finished", "finished"),
        ({"stage": "failed", "reason": "why"}, False, "failed", "failed: why"),
        ({"stage": "training"}, False, "stopped", "stopped"),
    ],
)
def test_what_a_federation_does(facts, locked, state, doing, federation):
    federation.status(**facts)
    if not locked:
        federation.lock.close()
    followed = FollowedFederation(federation.folder)
    followed.look()
    assert followed.state == state
    assert followed.doing.startswith(doing)


def test_damage_is_named_and_a_folder_without_a_federation_refused(federation, tmp_path, capsys):
    (federation.folder / "rounds.jsonl").write_text('{"round": 1}\nrubbish\n')
    (federation.folder / "status.json").write_text("rubbish")
    assert main(["deploy", "watch", str(federation.folder), "--once"]) == 0
    assert "rounds.jsonl is damaged after round 1" in said(capsys)[1]
    assert main(["deploy", "watch", str(tmp_path), "--once"]) == 2
    assert "is no state folder of a federation" in said(capsys)[1]


def test_a_pardon_by_name_is_written_with_reason_and_time(federation, capsys):
    pardon = ["deploy", "pardon", str(federation.folder), "clinic 3", "5", "--reason", "a new disk"]
    assert main(pardon) == 0
    out, _ = said(capsys)
    assert f"node {LONG} (clinic 3): refused in 1 of 2 rounds, last in round 1: 1 penalty" in out
    assert "last in round 2: no reply in time (which no pardon changes" in out
    assert "From the next round on Droplet forgets penalty points and the blacklist" in out
    decisions, damaged = read(federation.folder)
    assert [(d.kind, d.client, d.reason) for d in decisions] == [
        ("pardon", LONG, "a new disk"),
        ("pardon", "5", "a new disk"),
    ]
    assert damaged == []
    assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$", decisions[0].time)
    assert " on " in decisions[0].by


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["6"], f"6: is no client of the 2 rounds in .*; refused were 5, {LONG} \\(clinic 3\\)\\."),
        (["5", "clinic"], "clinic: is no client of the 2 rounds"),
        (["twin"], "twin: is the name of several clients \\(5, 17\\); give an id"),
        (["5", "--reason", ""], "a reason of 0 letters: allowed is one line of 1 to 300"),
        (["5", "--reason", "two\nlines"], "a reason of 9 letters"),
        (["5", "--reason", "x" * 301], "a reason of 301 letters"),
    ],
)
def test_a_pardon_that_is_not_possible_is_a_sentence_and_pardons_nobody(
    words, message, federation, capsys
):
    federation.add(line(3, names={"5": "twin", "17": "twin"}) if words == ["twin"] else {})
    words = [*words, *([] if "--reason" in words else ["--reason", "r"])]
    assert main(["deploy", "pardon", str(federation.folder), *words]) == 2
    assert re.search(message, said(capsys)[1])
    assert not (federation.folder / "decisions.jsonl").exists()


def test_a_defense_without_memory_has_nothing_to_pardon(federation, capsys):
    federation.status(defense="Krum", remembers="")
    assert main(["deploy", "pardon", str(federation.folder), "5", "--reason", "r"]) == 2
    assert "Krum keeps nothing about single clients: it judges every round" in said(capsys)[1]
    assert not (federation.folder / "decisions.jsonl").exists()


def test_a_client_of_rounds_that_were_lost_can_be_pardoned_by_its_id(federation):
    federation.add({"round": 3, "verdicts": [], "aggregated": None, "lost": True})
    assert find(federation.folder, "99").client == "99"
    with pytest.raises(ConfigError, match="clinic 9: is no client"):
        find(federation.folder, "clinic 9")


def test_a_new_key_is_told_and_the_client_found_under_all_its_nodes(federation, capsys):
    rekey = ["deploy", "rekey", str(federation.folder)]
    assert main([*rekey, "clinic 3", "40", "--reason", "yearly"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: flwr supernode unregister {LONG}"
    assert main([*rekey, "40", "41", "--reason", "stolen"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Next: flwr supernode unregister 40"
    decisions, _ = read(federation.folder)
    assert [(d.client, d.node) for d in decisions] == [(LONG, "40"), (LONG, "41")]
    assert find(federation.folder, "41").client == LONG
    again = (federation.folder / "decisions.jsonl").read_text()
    assert main([*rekey, "40", "41", "--reason", "once more"]) == 2
    assert "41: is the client's own node already." in capsys.readouterr().err
    assert (federation.folder / "decisions.jsonl").read_text() == again
    assert main([*rekey, LONG, LONG, "--reason", "the old one after all"]) == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("5", "17", "17: has taken part as a client of its own"),
        ("5", "5", "5: is the client's own node already"),
        ("5", "40", "40: is client 17 already"),
        ("5", "x", "x: is no node id; flwr supernode list shows those"),
        ("5", "040", "040: is no node id"),
        ("5", "0", "0: is no node id"),
        ("5", str(2**64), f"{2**64}: is no node id"),
        ("5", "9" * 5000, "is no node id"),
        ("6", "50", "6: is no client of the 2 rounds"),
    ],
)
def test_a_key_that_cannot_be_the_client_s_is_refused(old, new, message, federation, capsys):
    decide(federation.folder, "rekey", "17", "r", "40")
    before = (federation.folder / "decisions.jsonl").read_bytes()
    assert main(["deploy", "rekey", str(federation.folder), old, new, "--reason", "r"]) == 2
    assert message in said(capsys)[1]
    assert (federation.folder / "decisions.jsonl").read_bytes() == before
