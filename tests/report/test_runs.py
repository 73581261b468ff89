import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file

from entity.cli import main
from entity.config.schema import ConfigError
from entity.report import read_run


def test_a_whole_run_is_read_back_as_it_was_written(make_run):
    path = make_run("whole", "drop", rounds=6)
    lines = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]

    run = read_run(path)

    assert run.complete
    assert run.name == "mnist5k-stealthy-drop"
    assert [each.asr for each in run.rounds] == [line["asr"] for line in lines]
    assert [len(each.refused) for each in run.rounds] == [len(line["refused"]) for line in lines]
    assert [each.distilled for each in run.rounds] == [False] * 4 + [True, False]
    assert run.images is not None
    assert run.images.pixels.shape == (80, 1, 28, 28)
    assert run.tree is not None
    assert run.tree.clients == tuple(str(one) for one in lines[-1]["selected"])


def test_a_last_line_cut_off_by_a_crash_is_left_out(make_run):
    run = read_run(make_run("crashed", rounds=10, stop=4))
    assert [each.round for each in run.rounds] == [1, 2, 3, 4]
    assert run.summary == {}
    assert not run.complete


def test_a_broken_line_in_the_middle_is_refused_with_its_number(make_run):
    path = make_run("broken", rounds=5)
    lines = (path / "rounds.jsonl").read_text().splitlines()
    lines[2] = lines[2][:40]
    (path / "rounds.jsonl").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="line 3 is not JSON"):
        read_run(path)


def test_a_round_that_a_resumed_run_wrote_again_counts_once(make_run):
    path = make_run("resumed", rounds=3)
    with (path / "rounds.jsonl").open("a") as file:
        file.write(json.dumps({"round": 2, "mta": 0.5}) + "\n")
    run = read_run(path)
    assert [each.round for each in run.rounds] == [1, 2, 3]
    assert run.rounds[1].mta == 0.5


def test_values_that_are_no_numbers_count_as_not_evaluated(make_run):
    path = make_run("diverged", rounds=1)
    line = {"round": 1, "mta": math.nan, "asr": None, "scores": {"0": math.inf, "1": 2}}
    (path / "rounds.jsonl").write_text(json.dumps(line))
    (only,) = read_run(path).rounds
    assert (only.mta, only.asr, only.scores) == (None, None, {"1": 2.0})


def test_where_there_is_no_run_the_message_says_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="there is no such directory"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        read_run(tmp_path)


def test_the_newest_artifact_that_can_be_read_is_taken(make_run):
    path = make_run("artifacts", "drop", rounds=12)
    older = np.full((2, 3, 8, 8), 7, np.uint8)
    save_file({"generated": older}, path / "artifacts" / "round_0009.safetensors")
    whole = (path / "artifacts" / "round_0012.safetensors").read_bytes()
    (path / "artifacts" / "round_0012.safetensors").write_bytes(whole[: len(whole) // 2])
    run = read_run(path)
    assert run.images is not None
    assert run.images.round == 9
    assert np.array_equal(run.images.pixels, older)
    assert run.tree is None


def test_a_linkage_that_is_not_of_the_selected_clients_is_left_out(make_run):
    path = make_run("linkage", "droplet", rounds=2)
    three = np.array([[0, 1, 0.5, 2], [2, 3, 0.9, 3]])
    save_file({"linkage": three}, path / "artifacts" / "round_0002.safetensors")
    assert read_run(path).tree is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", b"{", "config.json is not JSON"),
        ("summary.json", b"[1]", "summary.json holds no JSON object"),
        ("rounds.jsonl", b"x\n{}\n", "rounds.jsonl line 1 is not JSON"),
        ("rounds.jsonl", b'{"round": 1, "mta": "0.9"}\n', 'line 1: mta = "0.9" is no number; fix'),
        ("rounds.jsonl", b'{"round": 1, "asr": true}\n', "line 1: asr = true is no number; fix it"),
    ],
)
def test_a_damaged_run_is_named_and_left_out_of_a_report_of_others(
    make_run, tmp_path, capsys, name, content, said
):
    whole, damaged = make_run("whole", rounds=2), make_run("damaged", rounds=2)
    (damaged / name).write_bytes(content)
    page = tmp_path / "page.html"
    words = ["report", str(damaged), str(whole), "--out"]
    assert main([*words, str(page)]) == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "left out: " in err
    assert said in err
    assert err.count(str(damaged)) == 1
    assert page.exists()
    page.unlink()
    assert main(["report", str(damaged), "--out", str(page)]) == 2
    assert not page.exists()
    assert main(["report", str(whole), str(tmp_path / "mistyped"), "--out", str(page)]) == 2


def test_a_configuration_that_is_no_file_is_not_said_to_be_missing(tmp_path):
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"config.json cannot be read \(Not a regular file\)"):
        read_run(tmp_path)


def test_clients_that_nobody_judged_are_neither_refused_nor_accepted(make_run):
    path = make_run("kept", rounds=1)
    line = {
        **{"round": 1, "selected": [1, 2, 3], "malicious": [1, 2], "accepted": []},
        **{"refused": [1], "undecided": [2, 3], "diagnostics": {"kept_global": 1.0}},
    }
    (path / "rounds.jsonl").write_text(json.dumps(line))
    (only,) = read_run(path).rounds
    assert (only.selected, only.malicious, only.refused) == (("1",), {"1"}, {"1"})
    assert only.missed == 0
