"""Plugins: what they add, what is refused in one sentence, and what becomes of a run's identity."""

import hashlib
import importlib
import json
import pickle
import sys
import textwrap
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch
from plugin_registry import forget, refusal

import entity
from entity.attacks import ATTACKS
from entity.cli import main
from entity.config.schema import ConfigError
from entity.dataset import OWN_DATASETS
from entity.defenses import DEFENSES
from entity.engine.schedule import Schedule, fault_of
from entity.models import MODELS
from entity.results import store
from entity.seeding import Seeds
from entity.setup import plugin_files, plugins, resolve
from entity.setup.assembly import recruit
from entity.setup.resume import recorded
from entity.sweep import cells
from entity.sweep.grid_file import read

DEFENSE = """
    from dataclasses import dataclass
    from entity.server import Server
    from entity.updates import Aggregation, verdicts
    import torch

    @dataclass(frozen=True)
    class Args:
        '''Settings.'''
        patience: int = {default}
        '''How long.'''

    class Mine(Server[Args]):
        summary = "of my own"
        hyperparameters = Args

        def aggregate(self, updates):
            everybody = torch.ones(len(updates), dtype=torch.bool)
            shares = self.shares(updates, everybody)
            judged = verdicts(updates, everybody.tolist(), shares)
            return Aggregation(*self.average(updates, shares), judged)

    DEFENSES = {{"{name}": Mine}}
"""


pytestmark = pytest.mark.usefixtures("forget_plugins")


@pytest.fixture
def write(tmp_path):
    """Write a plugin, of a defense unless its text is given."""

    def write(file="mine.py", name="mine", text=None, default=3):
        path = tmp_path / file
        path.write_text(textwrap.dedent(text or DEFENSE.format(name=name, default=default)))
        return path

    return write


@pytest.fixture
def config(tmp_path, tables):
    """Write a configuration beside the plugins; a pair of defense and list of plugins."""

    def config(type="mine", named=("mine.py",), **args):
        data = tables({"server.defense": {"type": type, "defense_args": args}})
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**data, "plugins": list(named)}))
        return path

    return config


# --- what a plugin adds


def test_a_file_is_named_relative_to_the_configuration_and_recorded_with_its_hash(
    write, config, tmp_path, monkeypatch
):
    path = write()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    loaded = entity.load(config(patience=7))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.plugins == (f"{path}#sha256={sha256}",)
    assert loaded.server.defense.defense_args.patience == 7
    again = resolve.experiment(resolve.to_json(loaded))
    assert again == loaded
    assert resolve.identity(again) == resolve.identity(loaded)


def test_its_code_is_a_part_of_the_identity_and_its_place_is_not(write, config, tmp_path, tables):
    write()
    first = resolve.identity(entity.load(config()))
    write(file="moved.py")
    plugins._remove("DEFENSES", "mine")
    plugins._sources.clear()
    assert resolve.identity(entity.load(config(named=["moved.py"]))) == first
    write(file="moved.py", default=4)
    assert resolve.identity(entity.load(config(named=["moved.py"], patience=3))) != first


def test_a_plugin_that_is_not_used_changes_nothing(write, tables):
    write_path = write()
    plain = resolve.experiment(tables())
    beside = resolve.experiment({**tables(), "plugins": [str(write_path)]})
    assert beside == plain
    assert beside.plugins == ()


def test_an_identity_is_the_same_where_the_plugin_is_not_loaded(write, config):
    write()
    loaded = entity.load(config())
    known = resolve.to_json(loaded)
    identity = resolve.identity(loaded)
    plugins._remove("DEFENSES", "mine")
    assert resolve.fingerprint(known) == identity


def test_command_line_environment_and_files_that_are_extended_add_up(
    write, config, tmp_path, monkeypatch
):
    write()
    write("second.py", "second")
    write("third.py", "third")
    base = config()
    child = tmp_path / "child.json"
    child.write_text(json.dumps({"extends": "config.json", "plugins": ["second.py"]}))
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "third.py"))
    for name in ("mine", "second", "third"):
        found = entity.load(child, **{"defense.type": name})
        assert [Path(entry).name[: len(name)] for entry in found.plugins] == [name]
    monkeypatch.delenv(plugins.VARIABLE)
    given = entity.load(base, **{"plugins": [str(tmp_path / "third.py")], "defense.type": "third"})
    assert given.server.defense.type == "third"


def test_all_tables_of_a_file_are_added_and_a_model_gets_the_numbers_of_images(write, tables):
    path = write(
        text="""
        from torch import nn
        from entity.attacks.badnets import BadNets
        from entity.poisons.label_flip import LabelFlip

        class Own(BadNets):
            summary = "own"

        class Flip(LabelFlip):
            summary = "own flip"

        def net(channels, size, classes):
            '''Build one layer.'''
            return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))

        ATTACKS, POISONS, MODELS = {"own": Own}, {"flip": Flip}, {"net": net}
        """
    )
    data = tables({"model": "net", "client.attack.type": "own", "client.attack.poison": "flip"})
    loaded = resolve.experiment({**data, "plugins": [str(path)]})
    assert len(loaded.plugins) == 1
    roster = recruit(loaded, Seeds(1))[1]
    assert roster.spec.num_parameters == 28 * 28 * 10 + 10
    assert MODELS["net"].summary == "Build one layer"


def test_a_module_is_named_as_python_finds_it(write, config, tmp_path, monkeypatch):
    write("found_by_python.py")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = entity.load(config(named=["found_by_python"]))
    name, sha256 = plugins.split(loaded.plugins[0])
    assert name == "found_by_python"
    assert sha256 is not None
    assert len(sha256) == 64


@pytest.fixture
def installed(write, tmp_path, monkeypatch):
    """Install a package with a defense and a data set, as `pip install -e` would."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "found_in_package").mkdir()
    info = tmp_path / "drop_mine-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: drop-mine\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[entity.defenses]\nmine = found_in_package.rule:Mine\nbroken = found_in_package:Missing\n"
        "[entity.datasets]\nsome = found_in_package.rule:some\n"
    )

    def installed(default=3, other=""):
        """Write the code, and load it as another process does."""
        text = DEFENSE.format(name="mine", default=default) + "\n    def some(): ...\n"
        write("found_in_package/rule.py", text=text)
        write("found_in_package/__init__.py", text=f"# {other}\n")
        for name in [name for name in sys.modules if name.startswith("found_in_package")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        forget()
        plugins._packages.clear()
        plugins._load_installed.cache_clear()
        plugins._load_installed()

    installed()
    return installed


def test_a_package_adds_by_entry_points_and_is_recorded_with_its_version(
    installed, tables, monkeypatch, caplog
):
    installed()  # its warning is this test's
    data = tables({"server.defense": {"type": "mine"}})
    loaded = resolve.experiment(data)
    name, sha256 = plugins.split(loaded.plugins[0])
    assert (name, len(sha256)) == ("drop-mine==1.2", 64)
    assert "broken of drop-mine==1.2" in caplog.text
    assert resolve.experiment(resolve.to_json(loaded)) == loaded
    recorded_before = {**data, "plugins": ["drop-mine==1.2"]}  # without a hash
    assert resolve.experiment(recorded_before) == loaded
    monkeypatch.setattr(metadata, "version", lambda name: "1.3")
    with pytest.raises(ConfigError, match=r"version 1\.3 is installed; install 1\.2\.$"):
        resolve.experiment(resolve.to_json(loaded))


@pytest.mark.parametrize("edit", [{"default": 4}, {"other": "edited"}])
def test_the_code_of_a_package_is_a_part_of_the_identity_and_of_its_data(installed, tables, edit):
    data = tables({"server.defense": {"type": "mine", "defense_args": {"patience": 5}}})
    first, cached_as = resolve.experiment(data), OWN_DATASETS["some"].mark
    installed()
    assert resolve.identity(resolve.experiment(data)) == resolve.identity(first)
    assert OWN_DATASETS["some"].mark == cached_as
    installed(**edit)
    assert resolve.identity(resolve.experiment(data)) != resolve.identity(first)
    assert OWN_DATASETS["some"].mark != cached_as
    with pytest.raises(ConfigError, match=r"drop-mine==1\.2: has changed since it was recorded"):
        resolve.experiment(resolve.to_json(first))


def test_a_run_from_before_packages_had_hashes_goes_on_and_says_so(
    installed, tables, tmp_path, monkeypatch, caplog
):
    changes = {"server.defense": {"type": "mine"}, "federation.rounds": 1}
    config, folder = resolve.experiment(tables(changes)), tmp_path / "run"
    with monkeypatch.context() as earlier:
        earlier.setattr(plugins, "_packages", {})
        entity.run(replace(config, plugins=("drop-mine==1.2",)), folder)
    again = recorded(folder, [("rounds", 2)])
    assert again.plugins == config.plugins
    result = entity.run(again, folder, resume=True)
    assert len(result.rounds) == 2
    assert "whether that of drop-mine==1.2 is the same is not known" in caplog.text


# --- where plugins are honoured


def test_a_worker_that_has_not_loaded_it_unpickles_clients_and_cells(write, config, tmp_path):
    path = write()
    loaded = entity.load(config())
    grid_file = tmp_path / "grid.yaml"
    grid_file.write_text("plugins: [mine.py]\nbase: config.json\nseeds: [1]\n")
    (cell,) = cells.expand(read(grid_file), tmp_path / "runs")
    sent = pickle.dumps((recruit(loaded, Seeds(1))[1], cell))
    plugins._remove("DEFENSES", "mine")
    plugins._sources.clear()
    path.unlink()  # a node of a cluster may not have it: it is sent along
    roster, back = pickle.loads(sent)
    assert "mine" in DEFENSES
    assert roster.config == loaded
    assert back.config.server.defense.type == "mine"


def test_list_and_fields_show_what_a_plugin_adds(write, capsys):
    path = str(write())
    assert main(["list", "defenses", "--json", "--plugins", path]) == 0
    assert {"name": "mine", "summary": "of my own"}.items() <= json.loads(capsys.readouterr().out)[
        -1
    ].items()
    assert main(["fields", "--defense", "mine", "--plugins", path]) == 0
    assert "server.defense.defense_args.patience" in capsys.readouterr().out


def test_help_and_options_know_the_settings_of_a_plugin(write, config, capsys):
    path = config()
    write()
    with pytest.raises(SystemExit):
        main(["run", "--config", str(path), "--help"])
    assert "--patience" in capsys.readouterr().out
    assert main(["run", "--config", str(path), "--patience", "many"]) == 2
    assert "patience" in capsys.readouterr().err


def test_a_run_goes_on_with_the_code_it_was_begun_with(write, config, tmp_path, capsys):
    path, file = write(), config()
    folder = tmp_path / "run"
    entity.run(entity.load(file, rounds=1), folder)
    assert main(["run", "--resume", str(folder), "--rounds", "2", "--quiet"]) == 0
    before = path.read_text()
    path.write_text(before + "# edited\n")
    assert main(["run", "--resume", str(folder), "--rounds", "3", "--quiet"]) == 2
    assert (
        f"plugins = {path}: has changed since it was recorded"
        in capsys.readouterr().err.replace("\n", " ")
    )


def test_the_module_of_a_model_is_a_part_of_the_experiment(tmp_path, monkeypatch, tables, capsys):
    module = tmp_path / "nets_of_mine.py"
    module.write_text(
        "from torch import nn\n\n\ndef net(channels, size, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(tables({"model": "nets_of_mine:net", "federation.rounds": 1})))
    folder = tmp_path / "run"
    assert main(["run", "--config", str(file), "--out", str(folder), "--quiet"]) == 0
    (entry,) = json.loads((folder / "config.json").read_text())["plugins"]
    assert entry.startswith("nets_of_mine#sha256=")
    assert main(["run", "--resume", str(folder), "--rounds", "2", "--quiet"]) == 0
    before = resolve.identity(entity.load(folder / "config.json"))
    module.write_text(module.read_text() + "# edited\n")
    assert main(["run", "--resume", str(folder), "--rounds", "3", "--quiet"]) == 2
    assert "plugins = nets_of_mine: has changed" in " ".join(capsys.readouterr().err.split())
    monkeypatch.delitem(sys.modules, "nets_of_mine")
    plugin_files._loaded.clear()
    assert resolve.identity(entity.load(file)) != before


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_run_goes_on_with_a_plugin_that_has_moved(
    write, config, tmp_path, capsys, monkeypatch, how
):
    path, file = write(), config()
    folder = tmp_path / "run"
    entity.run(entity.load(file, rounds=1), folder)
    moved = path.rename(tmp_path / "moved.py")
    forget()
    go_on = ["run", "--resume", str(folder), "--quiet"]
    assert main([*go_on, "--rounds", "2"]) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert "if it has moved, say where to by --plugins." in said
    if how == "option":
        go_on += ["--plugins", str(moved)]
    else:
        monkeypatch.setenv(plugins.VARIABLE, str(moved))
    assert main([*go_on, "--rounds", "2"]) == 0, capsys.readouterr().err
    forget()
    moved.write_text(moved.read_text() + "# another\n")
    assert main([*go_on, "--rounds", "3"]) == 2


def test_it_goes_on_where_the_order_of_their_places_has_changed(write, config, tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "c").mkdir()
    defense = write("a/x.py")
    write(
        "b.py",
        text="""
        from torch import nn

        def line(channels, size, classes):
            return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))

        MODELS = {"line": line}
    """,
    )
    file = config(named=("a/x.py", "b.py"))
    folder = tmp_path / "run"
    entity.run(entity.load(file, rounds=1, model="line"), folder)
    moved = defense.rename(tmp_path / "c/x.py")
    forget()
    go_on = ["run", "--resume", str(folder), "--quiet", "--rounds", "2", "--plugins", str(moved)]
    assert main(go_on) == 0, capsys.readouterr().err


def test_a_file_that_has_moved_may_be_edited_in_one_process(write, tmp_path):
    path = write()
    plugins.use([str(path)])
    moved = path.rename(tmp_path / "moved.py")
    plugins.use([str(moved)])
    moved.write_text(moved.read_text() + "# edited\n")
    plugins.use([str(moved)])
    assert plugins._owners["DEFENSES", "mine"].startswith(f"{moved}#")


def test_the_same_file_at_two_places_is_one_plugin(write, config, tmp_path):
    write()
    write("copy.py")
    first, second = (entity.load(config(named=[name])) for name in ("mine.py", "copy.py"))
    both = entity.load(config(named=["mine.py", "copy.py"]))
    again = entity.load(config(named=["mine.py"]))
    assert [Path(each.plugins[0]).name[:7] for each in (first, second, both, again)] == [
        *("mine.py", "copy.py", "mine.py", "mine.py")
    ]
    assert len({resolve.identity(each) for each in (first, second, both, again)}) == 1
    (tmp_path / "mine.py").write_text("DEFENSES = {}\nMODELS = {'net': print}\n")
    plugins.use([str(tmp_path / "mine.py")])
    assert "mine" not in DEFENSES
    assert entity.load(config(named=["copy.py"])).server.defense.type == "mine"


def test_reading_a_run_loads_nothing(write, config, tmp_path, capsys):
    path, file = write(), config()
    folder = tmp_path / "run"
    done = entity.run(entity.load(file, rounds=1), folder)
    path.write_text("raise SystemExit('a report has run this')\n")
    plugins._remove("DEFENSES", "mine")
    plugins._sources.clear()
    (run,) = store.collect([folder])
    assert run.facts["defense"] == "mine"
    assert run.facts["hash"] == done.summary["config_hash"]
    page = tmp_path / "page.html"
    for words in (
        ["results", str(folder)],
        ["watch", str(folder), "--once"],
        ["report", str(folder), "--out", str(page)],
    ):
        assert main(words) == 0, capsys.readouterr().err
    (opened,) = entity.results(folder)
    assert opened.name in repr(opened)
    assert opened.rounds == done.rounds
    assert opened._repr_html_()
    assert len(opened.frame()) == 1
    assert "mine" not in DEFENSES
    with pytest.raises(ConfigError, match="has changed since it was recorded"):
        _ = opened.config


def test_a_flower_app_brings_the_file_along(write, config, tmp_path):
    path, app = write(), tmp_path / "app"
    file = config(patience=5)
    assert main(["deploy", "init", str(app), "--config", str(file)]) == 0
    assert (app / "federation/plugin_1_mine.py").read_bytes() == path.read_bytes()
    original = resolve.identity(entity.load(file))
    plugins._remove("DEFENSES", "mine")
    plugins._sources.clear()
    path.unlink()
    there = entity.load(app / "federation/experiment.json")
    assert there.server.defense.defense_args.patience == 5
    assert resolve.identity(there) == original


def test_a_flower_app_says_which_modules_its_machines_need(tmp_path, monkeypatch, tables):
    (tmp_path / "of_mine.py").write_text(textwrap.dedent(DEFENSE.format(name="mine", default=3)))
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps({**tables({"server.defense": {"type": "mine"}}), "plugins": ["of_mine"]})
    )
    assert main(["deploy", "init", str(tmp_path / "app"), "--config", str(file)]) == 0
    said = " ".join((tmp_path / "app/README.md").read_text().split())
    assert "Each must have the plugins of_mine installed, too." in said


# --- refusals


def test_a_missing_file_or_module_is_one_sentence(tmp_path):
    assert "no_such.py: cannot be read (No such file or directory)" in refusal(
        tmp_path / "no_such.py"
    )
    assert "no such module on Python's path" in refusal("no_such_module_at_all")
    assert "allowed is a Python file" in refusal("no module")
    assert "the package no-such-package is not installed" in refusal("no-such-package==1.0")
    for entry in ("==", "==1", " ==1", "numpy=="):
        said = (
            f'plugins = "{entry}": allowed is a package with its version, such as my-package==1.2.'
        )
        assert refusal(entry) == said


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("x = 1\ndef f(:\n", 2, "SyntaxError"),
        ("import os\n\nfrom entity.server import Nothing\n", 3, "ImportError"),
        ("def f():\n    return 1 / 0\nf()\n", 2, "ZeroDivisionError: division by zero."),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3."),
        ("def __getattr__(name):\n    raise RuntimeError(name)\n", 2, "RuntimeError: DEFENSES."),
        (
            "class D(dict):\n    def keys(self): raise RuntimeError('no')\n"
            "    def __iter__(self): raise RuntimeError('no')\nMODELS = D(a=print)\n",
            *(2, "RuntimeError: no."),
        ),
    ],
)
def test_a_broken_one_is_one_sentence_with_file_and_line(write, text, line, said):
    path = write(text=text)
    told = refusal(path)
    assert told.startswith(f"plugins = {path}, line {line}: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "adds nothing; it must have a table DEFENSES, ATTACKS"),
        ("from entity.defenses import DEFENSES\n", "DEFENSES must be a table of its own"),
        ("DEFENSES = ['a']\n", "DEFENSES must be a table of its own"),
        ("DEFENSES = {'a': int}\n", "DEFENSES: a is no subclass of entity.server.contract.Server."),
        ("MODELS = {'a': 3}\n", "MODELS: a is no function"),
        ("DATASETS = {'a': dict}\n", "DATASETS: a is no function that returns"),
        (
            "from entity.server import Server\nclass A(Server): pass\nDEFENSES = {'a': A}\n",
            "DEFENSES: a lacks the method aggregate.",
        ),
        (
            "from entity.server import Server\nclass A(Server):\n    def aggregate(self, u): ...\n"
            "DEFENSES = {'a': A}\n",
            "DEFENSES: a lacks `summary`, the line of `drop list`.",
        ),
    ],
)
def test_what_is_no_plugin_is_refused_and_adds_nothing(write, text, said):
    before = dict(DEFENSES)
    path = write()
    path.write_text(text)
    assert said in refusal(path)
    assert before == DEFENSES


BOTH = """
    from dataclasses import dataclass
    from entity.attacks import ATTACKS as KNOWN
    from entity.poisons import POISONS as OTHERS

    @dataclass(frozen=True)
    class Args:
        '''Settings.'''
        {setting}: float = 0.5
        '''How much.'''

    class Loud(KNOWN["badnets"]):
        summary = "loud"
        hyperparameters = Args

    class Frame(OTHERS["pixel"]):
        summary = "frame"
        hyperparameters = Args

    ATTACKS, POISONS = {{"loud": Loud}}, {{"frame": Frame}}
"""


def test_settings_of_an_attack_and_a_poison_have_names_of_their_own(write, tables):
    """They stand in one table, with those that every attack has."""
    own = {"plugins": [str(write(text=BOTH.format(setting="much")))]}
    base = tables(own)["client"]["attack"]
    for type, poison in (("loud", "pixel"), ("badnets", "frame")):
        attack = {"type": type, "poison": poison, "much": 0.25}
        loaded = resolve.experiment(tables({**own, "client.attack": base | attack})).client.attack
        assert 0.25 in {getattr(each, "much", 0) for each in (loaded.args, loaded.poison_args)}
    both = base | {"type": "loud", "poison": "frame"}
    with pytest.raises(ConfigError, match=r"attack\.much is a setting of the attack loud and of"):
        resolve.experiment(tables({**own, "client.attack": both}))
    forget()
    said = refusal(write("other.py", text=BOTH.format(setting="DPR")))
    assert "ATTACKS: loud has a setting DPR, as every attack has; rename it." in said


def test_names_are_not_taken_from_others(write):
    path = write(name="median")
    assert "there is a defense median already, of the project itself; rename it" in refusal(path)
    plugins.use([str(write())])
    told = refusal(write("other.py", default=9))
    assert "there is a defense mine already, of " in told
    assert "Mine" in refusal(write("third.py", name="Mine"))


def test_an_edited_file_takes_the_place_of_what_it_was(write):
    plugins.use([str(write())])
    first = DEFENSES["mine"]
    plugins.use([str(write(default=8))])
    assert DEFENSES["mine"] is not first
    assert DEFENSES["mine"].hyperparameters().patience == 8


def test_an_experiment_names_the_plugins_that_it_needs_itself(write, tables):
    path = write()
    plugins.use([str(path)])
    data = tables({"server.defense": {"type": "mine"}})
    with pytest.raises(ConfigError, match=r"is of the plugin .*mine\.py.*; add it to plugins\.$"):
        resolve.experiment(data)


@pytest.mark.parametrize("kind", ["file", "module"])
def test_code_that_has_changed_since_it_was_recorded_is_not_run(tmp_path, monkeypatch, kind):
    """Resuming a run of somebody else's must not run what was put in a plugin's place."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "changed_package").mkdir()
    path = tmp_path / "changed_package" / "inner.py"
    text = textwrap.dedent(DEFENSE.format(name=f"inner_{kind}", default=3))
    path.write_text(text)
    name = str(path) if kind == "file" else "changed_package.inner"
    (entry,) = plugins.use([name])
    ran = tmp_path / "ran"
    path.write_text(f"{text}\nopen({str(ran)!r}, 'w').close()\n")
    with pytest.raises(ConfigError, match="has changed since it was recorded"):
        plugins.use([entry])
    if kind == "module":
        with pytest.raises(ConfigError, match="has changed since this process loaded it"):
            plugins.use([name])
    assert not ran.exists()


@pytest.mark.parametrize(
    ("table", "name"),
    [("DEFENSES", "maze"), ("DEFENSES", "none"), ("MODELS", "gtsrb"), ("ATTACKS", "none")],
)
def test_other_names_of_what_there_is_are_taken(write, table, name):
    path = write(text=f"{table} = {{{name!r}: 1}}")
    with pytest.raises(
        ConfigError, match=f"{name} is another name of an? .* of the project itself"
    ):
        plugins.use([str(path)])


def test_a_defense_whose_settings_have_no_default_is_refused(write):
    text = DEFENSE.format(name="bare", default=3).replace("patience: int = 3", "patience: int")
    with pytest.raises(ConfigError, match="bare lacks a default of its settings patience"):
        plugins.use([str(write(text=text))])


@pytest.mark.parametrize("name", ["no_such_module", "json.decoder.string"])
def test_a_recorded_module_that_is_gone_is_missing_and_not_changed(name):
    """Nor is a module of the same last name taken for one within a module that is no package."""
    with pytest.raises(ConfigError, match="there is no such module on Python's path"):
        plugins.use([f"{name}#sha256={'0' * 64}"])


# --- errors of their code in a run

SWEEP = pytest.param("sweep", marks=pytest.mark.slow)
"""It starts a worker of its own."""

FAULTY = DEFENSE.replace("everybody = torch", "updates.nope\n            everybody = torch")


@pytest.mark.parametrize("command", ["run", SWEEP])
def test_an_error_in_a_round_is_one_sentence_with_file_and_line(
    write, config, tmp_path, capsys, command
):
    path = write(text=FAULTY.format(name="mine", default=3))
    line = path.read_text().splitlines().index("        updates.nope") + 1
    out = str(tmp_path / "out")
    assert main([command, "--config", str(config()), "--out", out, "--quiet"]) in (1, 2)
    shown = capsys.readouterr()
    said = " ".join(f"{shown.out} {shown.err}".split())
    assert f"{path}, line {line}, in aggregate: AttributeError: 'Updates' object has no" in said
    assert "Traceback" not in said


LEAVING = FAULTY.replace("import torch", "import sys, torch").replace("updates.nope", "sys.exit(4)")


@pytest.mark.parametrize("command", ["run", SWEEP])
def test_a_plugin_that_leaves_python_is_one_sentence(write, config, tmp_path, capsys, command):
    path = write(text=LEAVING.format(name="mine", default=3))
    line = path.read_text().splitlines().index("        sys.exit(4)") + 1
    out = str(tmp_path / "out")
    assert main([command, "--config", str(config()), "--out", out, "--quiet"]) in (1, 2)
    said = " ".join("".join(capsys.readouterr()).split())
    assert f"{path}, line {line}, in aggregate: SystemExit: 4." in said
    assert "Traceback" not in said


def test_an_attacker_that_leaves_its_worker_is_one_sentence(write, tables):
    path = write(
        text="""
        import sys
        from entity.attacks import ATTACKS as KNOWN

        class Gone(KNOWN["badnets"]):
            summary = "leaves"
            def craft(self, trained, broadcast):
                sys.exit(4)

        ATTACKS = {"gone": Gone}
    """
    )
    changes = {"client.attack.type": "gone", "settings.engine": "pool", "federation.round_size": 4}
    data = tables({**changes, "settings.workers": 1})
    with pytest.raises(ConfigError, match=r"line 8, in craft: SystemExit: 4\."):
        entity.run(resolve.experiment({**data, "plugins": [str(path)]}))


def test_a_poison_without_anything_to_be_judged_on_is_said(write, tables, caplog):
    path = write(
        text="""
        from entity.poisons import POISONS as KNOWN

        class Blank(KNOWN["pixel"]):
            summary = "nothing"
            def test_set(self, test):
                return test.subset(test.y < 0)

        POISONS = {"blank": Blank}
    """
    )
    data = tables({"client.attack.poison": "blank", "federation.rounds": 1})
    result = entity.run(resolve.experiment({**data, "plugins": [str(path)]}))
    assert result.rounds[0]["asr"] is None
    said = "client.attack.poison = blank: Blank.test_set returned no samples, so that no round"
    assert said in caplog.text
    assert caplog.text.count("test_set") == 1


def test_a_program_sees_the_error_itself(write, config):
    write(text=FAULTY.format(name="mine", default=3))
    with pytest.raises(AttributeError, match="nope"):
        entity.run(config())


def test_an_error_of_the_project_itself_is_none_of_a_plugins(write, config):
    plugins.use([str(write())])
    with pytest.raises(KeyError) as error:
        raise KeyError("ours")
    assert plugin_files.refusal(error.value) is None


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA")])
def test_where_memory_is_short_it_is_not_the_plugins_fault(write, error):
    path = write(text=FAULTY.format(name="mine", default=3))
    plugins.use([str(path)])
    names = {}
    exec(compile("def f(error):\n    raise error", str(path), "exec"), names)
    with pytest.raises(type(error)) as raised:
        names["f"](error)
    assert plugin_files.refusal(raised.value) is None


def test_a_link_to_nowhere_in_the_package_of_a_model_is_no_code(tmp_path, monkeypatch):
    package = tmp_path / "nets_in_a_package"
    package.mkdir()
    (package / "__init__.py").write_text("def net(*shape): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = plugins._code_of_model("nets_in_a_package:net")
    (package / ".#net.py").symlink_to("somebody@host.1234")  # of an editor
    assert plugins._code_of_model("nets_in_a_package:net") == before
    (package / "more.py").write_text("")
    with pytest.raises(ConfigError, match="has changed since this process loaded it"):
        plugins._code_of_model("nets_in_a_package:net")
    assert plugins._code_of_model("no_such_module:net") is None
    assert plugins._code_of_model("__main__:net") is None


def test_a_folder_of_a_package_that_is_renamed_changes_what_the_package_is(tmp_path, monkeypatch):
    package = tmp_path / "nets_that_move"
    for folder in (package, package / "one"):
        folder.mkdir()
        (folder / "__init__.py").write_text("def net(*shape): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins._code_of_model("nets_that_move:net")
    (package / "one").rename(package / "two")
    with pytest.raises(ConfigError, match="has changed since this process loaded it"):
        plugins._code_of_model("nets_that_move:net")


def test_a_worker_says_of_a_client_what_the_main_process_would(write, tmp_path):
    path = write(
        text="""
        from entity.attacks import ATTACKS as KNOWN

        class Loud(KNOWN["badnets"]):
            summary = "fails"
            def craft(self, trained, broadcast):
                return trained.nope

        ATTACKS = {"loud": Loud}
    """
    )
    plugins.use([str(path)])
    attacker = ATTACKS["loud"]
    with pytest.raises(AttributeError) as error:
        attacker.craft(None, None, None)
    fault = fault_of(error.value)
    assert isinstance(fault, ConfigError)
    assert f"{path}, line 7, in craft: AttributeError" in str(fault)
    schedule = Schedule((7,), [0], {})
    task = schedule.take()
    with pytest.raises(ConfigError, match="in craft"):
        schedule.complete(task, pickle.loads(pickle.dumps(fault)))


def test_needs_that_are_none_are_one_sentence(write, config):
    write(
        text=DEFENSE.format(name="mine", default=3).replace(
            "def aggregate",
            "@classmethod\n        def needs(cls, args): ...\n\n        def aggregate",
        )
    )
    with pytest.raises(ConfigError, match=r"mine: Mine\.needs returned None; it must return an"):
        entity.load(config())
