"""A folder of Python files as one plugin: imports, hash, other processes, refusals."""

import json
import pickle
import subprocess
import sys
import textwrap

import pytest
from plugin_registry import forget, refusal

import entity
from entity.cli import main
from entity.config import schema
from entity.defenses import DEFENSES
from entity.setup import plugin_files, plugin_source, plugins, resolve

RULE = """
    from dataclasses import dataclass

    import torch

    from entity.server import Server
    from entity.updates import Aggregation, verdicts

    from . import parts
    from .parts.dtypes import ACCEPTED


    @dataclass(frozen=True)
    class Args:
        '''Settings.'''

        patience: int = 3
        '''How long it waits.'''


    class Mine(Server[Args]):
        summary = "of my own"
        hyperparameters = Args

        def aggregate(self, updates):
            everybody = torch.ones(len(updates), dtype=ACCEPTED)
            shares = self.shares(updates, everybody)
            judged = verdicts(updates, everybody.tolist(), shares)
            return Aggregation(*self.average(updates, shares), judged)
"""

LATIN = RULE.replace("How long it waits", "How long it wört")


pytestmark = pytest.mark.usefixtures("forget_plugins")


@pytest.fixture
def folder(tmp_path):
    """Write a plugin; `parts` is a folder without an `__init__.py`, as Python allows."""
    place = tmp_path / "my_methods"
    (place / "parts").mkdir(parents=True)
    (place / "__init__.py").write_text("from .rule import Mine\n\nDEFENSES = {'mine': Mine}\n")
    (place / "rule.py").write_text(textwrap.dedent(RULE))
    (place / "parts" / "dtypes.py").write_text("import torch\n\nACCEPTED = torch.bool\n")
    return place


@pytest.fixture
def config(tmp_path, tables):
    """Write a configuration beside the folder that uses its defense."""
    path = tmp_path / "config.json"
    data = tables({"server.defense": {"type": "mine", "defense_args": {"patience": 7}}})
    path.write_text(json.dumps({**data, "plugins": ["my_methods/"]}))
    return path


def test_its_files_import_one_another_and_it_is_recorded_with_one_hash(folder, config, capsys):
    loaded = entity.load(config)
    assert loaded.plugins == (f"{folder}#sha256={plugin_files.digest_of(folder)}",)
    assert loaded.server.defense.defense_args.patience == 7
    assert len(entity.run(loaded).rounds) == 2
    assert main(["fields", "--defense", "mine", "--plugins", f"{folder}/"]) == 0
    assert "How long it waits" in capsys.readouterr().out


def test_what_can_be_imported_is_in_the_hash_and_nothing_else(folder):
    first = plugin_files.digest_of(folder)
    (folder / "notes.txt").write_text("no code")
    (folder / "no-module.py").write_text("x = 1")
    (folder / "parts" / "gone.py").symlink_to("nowhere.py")
    for hidden in (".old", "__pycache__"):
        (folder / hidden).mkdir()
        (folder / hidden / "rule.py").write_text("x = 1")
    assert plugin_files.digest_of(folder) == first
    (folder / "parts" / "dtypes.py").write_text("import torch\n\nACCEPTED = torch.bool  # now\n")
    edited = plugin_files.digest_of(folder)
    (folder / "parts" / "dtypes.py").rename(folder / "parts" / "types.py")
    assert len({first, edited, plugin_files.digest_of(folder)}) == 3


def test_another_process_needs_no_files(folder, config, tmp_path):
    loaded = entity.load(config)
    sent = tmp_path / "sent.pickle"
    cls = DEFENSES["mine"]
    sent.write_bytes(pickle.dumps((plugins.Sent(loaded.plugins), cls, loaded)))
    folder.rename(tmp_path / "elsewhere")
    program = f"import pickle; print(pickle.load(open({str(sent)!r}, 'rb'))[1].__module__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == cls.__module__, done.stderr


def test_the_workers_of_an_engine_have_it(folder, config):
    inline = entity.run(entity.load(config))
    pool = entity.run(entity.load(config, engine="pool", workers=2))
    assert [each["mta"] for each in pool.rounds] == [each["mta"] for each in inline.rounds]


def test_a_flower_app_brings_it_along(folder, config, tmp_path):
    app = tmp_path / "app"
    assert main(["deploy", "init", str(app), "--config", str(config)]) == 0
    original = resolve.identity(entity.load(config))
    forget()
    folder.rename(tmp_path / "elsewhere")
    there = entity.load(app / "federation/experiment.json")
    assert there.plugins[0].startswith(f"{app}/federation/plugin_1_my_methods#sha256=")
    assert resolve.identity(there) == original


def test_a_run_goes_on_where_it_has_moved_to_and_not_when_it_was_edited(
    folder, config, tmp_path, capsys
):
    run, elsewhere = str(tmp_path / "run"), tmp_path / "elsewhere"
    assert main(["run", "--config", str(config), "--out", run, "--quiet"]) == 0
    forget()
    folder.rename(elsewhere)
    assert main(["run", "--resume", run, "--rounds", "3", "--plugins", f"{elsewhere}/"]) == 0
    forget()
    (elsewhere / "parts" / "dtypes.py").write_text("import torch\n\nACCEPTED = torch.bool  # now\n")
    capsys.readouterr()
    assert main(["run", "--resume", run, "--rounds", "4"]) == 2
    assert "has changed since it was recorded" in " ".join(capsys.readouterr().err.split())


def test_an_edited_one_takes_the_place_of_what_it_was(folder):
    plugins.use([f"{folder}/"])
    first = DEFENSES["mine"]
    rule = folder / "rule.py"
    rule.write_text(rule.read_text().replace("of my own", "edited"))
    plugins.use([f"{folder}/"])
    assert (first.summary, DEFENSES["mine"].summary) == ("of my own", "edited")


def test_a_folder_that_is_no_package_is_refused(folder):
    (folder / "__init__.py").unlink()
    said = refusal(f"{folder}/")
    assert "cannot be read (a folder without __init__.py); allowed is a Python file" in said


def test_one_that_is_too_large_is_refused(folder):
    (folder / "weights.py").write_text("#" * plugin_source.MOST_BYTES)
    assert "cannot be read (More than" in refusal(f"{folder}/")


def test_an_error_names_the_file_and_its_line_and_leaves_nothing(folder):
    dtypes = folder / "parts" / "dtypes.py"
    dtypes.write_text("import torch\n\nACCEPTED = torch.boolean\n")
    before = {*sys.modules}
    assert f"({dtypes}, line 3): AttributeError" in refusal(f"{folder}/")
    assert not [name for name in {*sys.modules} - before if "my_methods" in name]
    assert not [each for each in sys.meta_path if "my_methods" in repr(vars(type(each)))]
    dtypes.write_text("import torch\n\nACCEPTED = torch.bool\n")
    plugins.use([f"{folder}/"])
    assert "mine" in DEFENSES


def test_an_error_in_a_round_names_the_file_and_its_line(folder, config, capsys):
    dtypes = folder / "parts" / "dtypes.py"
    dtypes.write_text("ACCEPTED = 'no type'\n")
    assert main(["run", "--config", str(config), "--quiet"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{folder / 'rule.py'}, line 26, in aggregate: TypeError" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("import rule", "; within a folder write `from . import rule`."),
        ("from my_methods import rule", "; within a folder write `from . import ...`."),
        ("import parts.dtypes", "; within a folder write `from . import parts`."),
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'."),
    ],
)
def test_how_files_of_a_folder_are_imported_is_said(folder, line, hint):
    (folder / "__init__.py").write_text(f"{line}\n")
    said = refusal(f"{folder}/")
    assert said.startswith(f"plugins = {folder} ({folder / '__init__.py'}, line 1): ")
    assert said.endswith(hint)


def test_a_file_that_imports_what_lies_beside_it_is_told_of_folders(folder, tmp_path):
    (tmp_path / "helper_of_mine.py").write_text("")
    (tmp_path / "alone.py").write_text("import helper_of_mine\n")
    assert "name the folder, with __init__.py in it, and write `from . import helper_of_mine`." in (
        refusal(tmp_path / "alone.py")
    )


def test_what_lies_beside_the_hashed_files_is_not_found(folder, tmp_path):
    """A linked folder is not walked, and so neither hashed nor sent: its code must not run."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "__init__.py").write_text("V = 1\n")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "__init__.py").write_text("from .linked import V\n")
    assert refusal(f"{folder}/").startswith(
        f"plugins = {folder} ({folder / '__init__.py'}, line 1)"
    )
    (folder / "my-net.py").write_text("V = 1\n")
    (folder / "__init__.py").write_text(
        "import importlib\nimportlib.import_module('.my-net', __package__)\n"
    )
    assert "No module named 'my_methods.my-net'" in refusal(f"{folder}/")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + textwrap.dedent(RULE).encode(),
        textwrap.dedent(RULE).replace("\n", "\r\n").encode(),
        textwrap.dedent(RULE).replace("\n\n\n", "\n\x0c\n\n").encode(),
        b"# -*- coding: latin-1 -*-\n" + textwrap.dedent(LATIN).encode("latin-1"),
    ],
    ids=["mark", "windows", "form feeds", "latin"],
)  # fmt: skip
def test_source_is_read_as_python_reads_it(folder, config, content, tmp_path):
    (folder / "rule.py").write_bytes(content)
    loaded = entity.load(config)
    docs = schema.docs(DEFENSES["mine"].hyperparameters)
    assert docs["patience"] in ("How long it waits.", "How long it wört.")
    assert main(["deploy", "init", str(tmp_path / "app"), "--config", str(config)]) == 0
    copied = tmp_path / "app/federation/plugin_1_my_methods/rule.py"
    assert copied.read_bytes() == content
    assert resolve.identity(entity.load(tmp_path / "app/federation/experiment.json")) == (
        resolve.identity(loaded)
    )


def test_it_may_be_renamed_and_used_again_in_one_process(folder, config, tmp_path):
    first = entity.load(config)
    folder.rename(tmp_path / "renamed")
    data = json.loads(config.read_text())
    config.write_text(json.dumps({**data, "plugins": ["renamed/"]}))
    again = entity.load(config)
    assert resolve.identity(again) == resolve.identity(first)
    forget()
    plugins.use(again.plugins)
    assert DEFENSES["mine"].__module__ in sys.modules
    assert pickle.loads(pickle.dumps(DEFENSES["mine"])) is DEFENSES["mine"]


def test_files_that_flower_does_not_send_are_refused(folder, config, tmp_path, capsys):
    (folder / "parts" / "test_rule.py").write_text("")
    app = tmp_path / "app"
    assert main(["deploy", "init", str(app), "--config", str(config)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Flower sends no files named test_*.py or *_test.py, as is parts/test_rule.py;" in said
    assert not app.exists()


def test_a_file_within_a_package_is_told_of_its_folder(folder):
    assert "a file stands alone: name its folder, with __init__.py in it." in (
        refusal(folder / "__init__.py")
    )
