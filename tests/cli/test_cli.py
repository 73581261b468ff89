"""The command line, mostly in this process: every start of another one imports torch."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from entity import __version__, experiment
from entity.cli import app, main, run
from entity.experiment import Result
from entity.setup import resolve

MAIN = Path(app.__file__).parents[2] / "main.py"
SHIPPED = Path(app.__file__).parents[1] / "configs"


@pytest.fixture
def config(tmp_path, tables, monkeypatch):
    """A tiny configuration beside which `runs/` will appear."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(tables({"client.ADR": 0.05, "federation.rounds": 1})))
    return str(path)


@pytest.fixture
def pretend(monkeypatch):
    """Experiments that are asked for, and not run; so that flags are tested in no time."""
    asked = []

    def remember(config, folder, *, on_round, overwrite):
        asked.append((config, folder, overwrite))
        summary = {
            "mta": {"last10": 0.5},
            "asr": {"last10": None},
            "detection": {"tpr": float("nan"), "fpr": 0.25},
            "refusals": 2,
            "seconds": {"total": 1.0},
        }
        return Result(config, folder, [], summary, None)

    monkeypatch.setattr(run, "run", remember)
    return asked


def told(folder):
    return json.loads((Path(folder) / "config.json").read_text())


# --- drop run


def test_a_run_is_written_shown_and_summed_up(config, capsys):
    assert main(["run", "--config", config, "--seed", "3", "--rounds", "2"]) == 0
    folder = Path("runs/mnist5k-undefended-badnets-seed3")
    assert told(folder)["settings"]["seed"] == 3
    assert len((folder / "rounds.jsonl").read_text().splitlines()) == 2
    shown = capsys.readouterr()
    lines = shown.out.splitlines()  # what a shell writes to a log: a line a round, then the table
    assert [line.split()[:3] for line in lines[:2]] == [
        ["undefended", "1/2", "MTA"],
        ["undefended", "2/2", "MTA"],
    ]
    assert "Mean of the last 2 of 2 rounds" in shown.out
    assert lines[-1] == f"Written to {folder}"
    assert "MTA" not in shown.err


def test_json_is_all_that_stdout_holds_and_quiet_silences_the_rest(config, capsys):
    assert main(["run", "--config", config, "--json", "--quiet", "--out", "a/b"]) == 0
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert summary == json.loads(Path("a/b/summary.json").read_text())
    assert summary["state"] == "finished"
    assert shown.err == ""
    assert main(["run", "--config", config, "--json", "--out", "c", "--client.attack", "null"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["asr"]["final"] is None  # JSON has no NaN
    assert "1/1  MTA" in shown.err
    quiet = ["run", "--config", config, "--out", "d", "--verbose", "false"]
    assert main(quiet) == 0
    assert capsys.readouterr().err == ""


def test_an_occupied_folder_is_kept_unless_overwritten(config, capsys):
    assert main(["run", "--config", config, "--out", "a", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    before = Path("a/rounds.jsonl").read_bytes()
    assert main(["run", "--config", config, "--out", "a", "--seed", "9"]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert Path("a/rounds.jsonl").read_bytes() == before
    again = ["run", "--config", config, "--out", "a", "--seed", "9", "--overwrite", "--quiet"]
    assert main(again) == 0
    assert told("a")["settings"]["seed"] == 9


def test_without_out_there_is_no_run_to_overwrite(config, pretend, capsys):
    assert main(["run", "--config", config, "--overwrite"]) == 2
    assert "--overwrite: needs --out DIR, which holds the run" in capsys.readouterr().err
    assert pretend == []


def test_without_out_a_folder_that_is_taken_gets_a_number(config, pretend):
    for _ in range(3):
        assert main(["run", "--config", config, "--name", "mine"]) == 0
        pretend[-1][1].mkdir(parents=True)
    assert [folder for _, folder, _ in pretend] == [
        Path("runs/mine"),
        Path("runs/mine-2"),
        Path("runs/mine-3"),
    ]


def test_main_py_is_the_same_command(config, pretend, monkeypatch):
    words = ["--config", str(SHIPPED / "mnist5k/drop.json"), "--DPR", "0.25", "--cuda", "0"]
    assert main(["run", *words]) == 0
    monkeypatch.setattr(sys, "argv", ["main.py", *words])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(str(MAIN), run_name="__main__")
    assert leaving.value.code == 0
    (one, folder, _), (other, same_folder, _) = pretend
    assert one == other
    assert folder == same_folder
    assert one.client.attack.DPR == 0.25
    assert one.settings.cuda == 0


def test_a_shipped_configuration_goes_by_its_name_and_a_file_before_it(config, pretend, capsys):
    named = ["cifar10/flame", str(SHIPPED / "cifar10/flame.json")]
    for name in named:
        assert main(["run", "--config", name]) == 0
    (by_name, _, _), (by_path, _, _) = pretend
    assert by_name == by_path
    Path("cifar10").mkdir()
    Path("cifar10/flame").write_text(Path(config).read_text())
    assert main(["run", "--config", "cifar10/flame"]) == 0
    assert pretend[-1][0].dataset == "mnist5k"
    assert main(["run", "--config", "cifar10/flam"]) == 2
    assert capsys.readouterr().err.endswith("Did you mean cifar10/flame?\n")


def test_a_first_word_that_is_no_option_is_the_configuration(
    tmp_path, monkeypatch, pretend, capsys
):
    monkeypatch.chdir(tmp_path)
    for words in (["mnist5k/drop", "--DPR", "0.25"], ["--config", "mnist5k/drop", "--DPR", "0.25"]):
        assert main(["run", *words]) == 0
    (first, _, _), (second, _, _) = pretend
    assert first == second
    assert first.client.attack.DPR == 0.25
    assert main(["data", "preview", "mnist5k/krum"]) == 0
    capsys.readouterr()
    for words in (["mnist5k/drop", "--config", "mnist5k/krum"], ["mnist5k/drop", "--resume", "x"]):
        assert main(["run", *words]) == 2
        assert '"mnist5k/drop" belongs to no option' in capsys.readouterr().err
    assert main(["run", "mnist5k/drp"]) == 2
    assert capsys.readouterr().err.endswith("Did you mean mnist5k/drop?\n")


def test_a_preview_and_an_app_take_a_shipped_configuration_by_its_name(tmp_path, capsys):
    assert main(["data", "preview", "--config", "mnist5k/krum"]) == 0
    assert "mnist5k" in capsys.readouterr().out
    assert main(["deploy", "init", str(tmp_path / "app"), "--config", "mnist5k/krum"]) == 0
    app = json.loads((tmp_path / "app/federation/experiment.json").read_text())
    assert app["server"]["defense"]["type"] == "krum"
    assert "extends" not in app


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (["--DPR", "0.25"], "client.attack.DPR", 0.25),
        (["--DPR=0.25"], "client.attack.DPR", 0.25),
        (["--client.attack", "null"], "client.attack", None),
        (["--cuda", "-1"], "settings.cuda", -1),
        (["--K", "-1"], "server.defense.defense_args.K", -1),
        (["--lr_clone", "1e-3"], "server.defense.defense_args.lr_clone", 1e-3),
        (["--server.defense.type", "droplet"], "server.defense.defense_args.penalty", 1.0),
        (["--batch_size", "8"], "client.batch_size", 8),
        (["--augment"], "server.defense.defense_args.augment", True),
        (
            ["--trigger_pattern", "[[0, 0], [1, 1]]"],
            "client.attack.trigger_pattern",
            ((0, 0), (1, 1)),
        ),
    ],
)
def test_any_field_is_an_option(config, pretend, words, path, value):
    drop = str(SHIPPED / "mnist5k/drop.json")
    assert main(["run", "--config", drop, *words, "--quiet"]) == 0
    found = pretend[0][0]
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--wandb", "test"], "--wandb is unknown. Did you mean trackers?"),
        (["--dpr", "1"], "--dpr is unknown. Did you mean DPR?"),
        (["--DPR", "2"], "client.attack.DPR = 2: allowed is a number from 0 to 1."),
        (["--DPR"], "--DPR needs a value: a number from 0 to 1."),
        (["0.25"], '"0.25" belongs to no option; fields are given as --NAME VALUE.'),
        (["--seed", "1", "2"], '"2" belongs to no option'),
        (["--ou", "x"], "--ou is unknown."),  # no abbreviations
        (
            ["--client.attack.target_class", "0"],
            "client.attack.victim_class = 0: is also the target",
        ),
        (["--round_size", "99"], "federation.round_size = 99: is more than federation.size"),
        (["--K", "0"], "server.defense.defense_args.K = 0: allowed is -1 (never) or at least 1."),
        (["--num_seed", "9999"], "server.defense.defense_args.num_seed = 9999"),
        (["--dataset", "minst5k"], 'dataset = "minst5k" is unknown. Did you mean mnist5k?'),
        (["--server.defense.type", "dropp"], 'server.defense.type = "dropp" is unknown.'),
        (["--engine", "pol"], 'settings.engine = "pol": allowed is one of auto, inline, pool'),
        (["--size", "9000"], "federation.size = 9000: allowed is at most"),  # the data says so
        (["--name", "../x"], 'name = "../x": names a folder'),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2_and_leaves_nothing(
    config, capsys, words, sentence
):
    drop = str(SHIPPED / "mnist5k/drop.json")
    before = sorted(os.listdir("."))
    assert main(["run", "--config", drop, *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"drop: {sentence}")
    assert len(shown.err.strip().splitlines()) == 1
    assert sorted(os.listdir(".")) == before


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b"{", "is not JSON ("),
        ("a.yaml", b"a: [", "is not YAML ("),
        ("a.json", b"\xff\xfe", "is not UTF-8 text."),
        ("a.json", b"[" * 100_000, "is nested too deeply"),
        ("a.json", b"[]", "holds [], not a table of fields."),
        ("missing.json", None, "No such file or directory."),
        (".", None, "Is a directory."),
    ],
)
def test_a_file_that_is_no_configuration_is_bad_input(
    tmp_path, monkeypatch, capsys, name, content, reason
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["run", "--config", name]) == 2
    assert capsys.readouterr().err.startswith(f"drop: --config {name}: {reason}")
    assert sorted(os.listdir(".")) == ([name] if content is not None else [])


def test_an_unknown_key_names_the_nearest(tmp_path, tables, capsys):
    (tmp_path / "a.json").write_text(json.dumps({**tables(), "cleint": {}}))
    assert main(["run", "--config", str(tmp_path / "a.json")]) == 2
    assert capsys.readouterr().err == "drop: cleint is unknown. Did you mean client?\n"


@pytest.mark.parametrize("words", [[], ["walk"], ["run"], ["--sed", "run"], ["report"]])
def test_a_command_line_that_is_none_has_exit_code_2(words, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 2
    assert "usage: drop" in capsys.readouterr().err


def test_ctrl_c_is_exit_code_130_and_no_traceback(config, capsys, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run", stop)
    assert main(["run", "--config", config]) == 130
    assert capsys.readouterr().err == "drop: stopped; the finished rounds are kept.\n"


# --- the other commands


def test_the_version(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"drop-fl {__version__}\n"


def test_the_help_has_three_examples_that_are_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # whoever tried the examples has their runs in the project's folder
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out.partition("examples:\n")[2].split("\n\n")[0]
    examples = [line.split() for line in shown.splitlines() if line.strip()]
    assert [words[:2] for words in examples] == [
        ["drop", "run"],
        ["drop", "sweep"],
        ["drop", "report"],
    ]
    assert main([*examples[1][1:], "--dry-run"]) == 0
    assert "6 runs: 6 new" in capsys.readouterr().out


def test_lists_and_fields_are_searched_by_a_word(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["fields", "alpha"]) == 0
    shown = capsys.readouterr().out
    heads = [line for line in shown.splitlines() if not line.startswith(" ")]
    assert any(line.startswith("client.dirichlet_alpha: ") for line in heads)
    assert any("alpha_gan" in line and "(drop" in line for line in heads)
    assert not any("DPR" in line.partition(":")[0] for line in heads)
    assert main(["fields", "alpha", "--attack", "nosuch"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--attack: has no effect beside alpha, which is looked for in the fields" in said
    assert main(["fields", "alhpa"]) == 2
    assert "no field has that word. Did you mean alpha?" in capsys.readouterr().err
    assert main(["list", "krum", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["defenses"]][:2] == ["krum", "multikrum"]
    assert "datasets" not in found
    assert main(["list", "defenses", "yin", "--json"]) == 0
    assert "median" in [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert main(["list", "attacks", "rflbat"]) == 2
    assert "drop list attacks rflbat: there is nothing of that word." in capsys.readouterr().err


def test_list_shows_what_there_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for word in ("drop", "badnets", "pixel", "mnist5k", "resnet18", "2502.07011"):
        assert word in shown
    assert main(["list", "attacks", "--json"]) == 0
    assert "badnets" in [row["name"] for row in json.loads(capsys.readouterr().out)]
    assert main(["list", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {"attacks", "defenses", "datasets"}
    assert main(["list", "atacks"]) == 2
    assert "Did you mean attacks?" in capsys.readouterr().err
    assert main(["list", "--sed", "1"]) == 2
    assert capsys.readouterr().err == "drop: --sed is not an option of drop list.\n"


def test_fields_shows_every_flag_with_its_default_and_help(capsys):
    assert main(["fields"]) == 0
    shown = capsys.readouterr().out
    for field in resolve.fields_of("drop", "badnets", "pixel"):
        assert f"{field.path}: " in shown
    assert "client.attack.DPR: a number from 0 to 1 [0.5]" in shown
    for group in ("experiment\n", "client.attack of badnets and pixel\n", "defense_args of drop\n"):
        assert group in shown
    assert main(["fields", "--defense", "undefended"]) == 0
    assert "penalty" not in capsys.readouterr().out
    assert main(["fields", "--defense", "maze"]) == 0
    assert "defense_args.K: " in capsys.readouterr().out
    assert main(["fields", "--defense", "mazzze"]) == 2
    assert "is unknown" in capsys.readouterr().err


def test_a_report_of_runs_is_one_page(config, capsys):
    assert main(["run", "--config", config, "--out", "a", "--quiet"]) == 0
    assert main(["report", "a", "--out", "page.html"]) == 0
    assert "<html" in Path("page.html").read_text()
    assert "page.html" in capsys.readouterr().out
    assert main(["report", "nothing-here", "--out", "other.html"]) == 2
    assert not Path("other.html").exists()


# --- a real process


@pytest.fixture
def start(tmp_path, tables):
    """Start `drop run` of many short rounds in a session of its own, as a terminal would."""
    started = []

    def start(*words):
        path = tmp_path / "long.json"
        path.write_text(json.dumps(tables({"client.ADR": 0.05, "federation.rounds": 100_000})))
        command = [sys.executable, "-m", "entity.cli", "run", "--config", str(path)]
        started.append(
            subprocess.Popen(
                [*command, "--out", str(tmp_path / "run"), *words],
                start_new_session=True,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[0]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_until(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def finished_rounds(folder):
    path = folder / "rounds.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def left_of(session):
    """Processes of a session that still live."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = entry.read_text().rpartition(")")
        except OSError:
            continue
        state, _, _, of_session = rest.split()[:4]
        if int(of_session) == session and state != "Z":
            found.append(int(entry.parent.name))
    return found


@pytest.mark.slow
def test_kill_9_loses_no_finished_round(start, tmp_path):
    process = start("--quiet")
    wait_until(lambda: finished_rounds(tmp_path / "run") >= 3)
    process.kill()
    process.wait()
    text = (tmp_path / "run" / "rounds.jsonl").read_text()
    whole = text[: text.rindex("\n")].split("\n")
    rounds = [json.loads(line)["round"] for line in whole]
    assert rounds == list(range(1, len(rounds) + 1))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["state"] == "running"
    assert len(rounds) - 1 <= summary["rounds"] <= len(rounds)
    assert resolve.experiment(told(tmp_path / "run")).federation.rounds == 100_000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_ctrl_c_with_workers_is_exit_code_130_with_no_traceback_and_nobody_left(start, tmp_path):
    process = start("--engine", "pool", "--workers", "2")
    wait_until(lambda: finished_rounds(tmp_path / "run") >= 2)
    assert len(left_of(process.pid)) >= 3
    os.killpg(process.pid, signal.SIGINT)  # the terminal sends it to all of them
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in shown
    assert shown.endswith("drop: stopped; the finished rounds are kept.\n")
    wait_until(lambda: not left_of(process.pid), 10)
    lines = [json.loads(x) for x in (tmp_path / "run/rounds.jsonl").read_text().splitlines()]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["state"], summary["rounds"]) == ("interrupted", len(lines))
    # The pool gave what this process gives by itself.
    again = resolve.experiment(
        told(tmp_path / "run"), [("engine", "inline"), ("rounds", str(min(3, len(lines))))]
    )
    here = experiment.run(again).rounds
    for one, other in zip(here, lines, strict=False):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }


def test_ctrl_c_while_it_is_imported_is_one_sentence(monkeypatch, capsys):
    """Regression: PyTorch takes seconds to import, and a traceback came."""

    class Stopped:
        def find_spec(self, name, path=None, target=None):
            if name == "entity.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "entity.cli.app")
    monkeypatch.delattr("entity.cli.app")
    monkeypatch.setattr(sys, "meta_path", [Stopped(), *sys.meta_path])
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "drop: stopped before anything was begun.\n"


@pytest.mark.parametrize(
    "words", [["run", "--config=mnist5k/drop", "--out"], ["results"], ["report"], ["watch"]]
)
def test_a_name_too_long_for_a_file_is_bad_input(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*words, 300 * "a"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.endswith("File name too long.\n")
    assert not list(tmp_path.iterdir())
