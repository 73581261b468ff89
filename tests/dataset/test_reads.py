"""Files that the function of a data set declares by `reads`: a change of them makes it anew."""

import os
import textwrap

import numpy as np
import pytest
from plugin_registry import forget

import entity
from entity.cli import main
from entity.config.schema import ConfigError
from entity.dataset import find, load, reads
from entity.dataset.reads import stamps_of
from entity.seeding import Seeds
from entity.setup import plugins

PLUGIN = """
    from pathlib import Path

    import numpy as np

    from entity.dataset import Arrays, reads

    HERE = Path(__file__).parent
    CALLS = []

    @reads("samples.npy", "more/")
    def noted():
        \"""Numbers from files.\"""
        CALLS.append(1)
        x = np.load(HERE / "samples.npy")
        y = np.arange(len(x)) % 2
        return Arrays((x, y), (x[:4], y[:4]), ("even", "odd"), held_out=2)

    DATASETS = {"noted": noted}
"""


@pytest.fixture(autouse=True)
def registries():
    """Leave the registries as they were."""
    yield
    forget()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A loaded plugin beside the files that it reads."""
    monkeypatch.setenv("DROP_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    (tmp_path / "more" / "deep").mkdir(parents=True)
    np.save(tmp_path / "samples.npy", np.zeros((8, 3)))
    (tmp_path / "more" / "deep" / "words.txt").write_text("one")
    # The same text at two places is one plugin in a process.
    (tmp_path / "own.py").write_text(f"{textwrap.dedent(PLUGIN)}\n# {tmp_path}\n")
    plugins.use([str(tmp_path / "own.py")])
    return tmp_path


def samples(folder):
    """Return the data set as a run gets it, and how often its function has been called."""
    split = load(find("noted", folder / "data"), folder / "data", Seeds(1))
    calls = plugins.OWN_DATASETS["noted"].function.__globals__["CALLS"]
    return split, len(calls)


def test_the_same_files_are_a_cache_and_changed_ones_are_other_data(folder):
    old, calls = samples(folder)
    assert calls == 1
    again, calls = samples(folder)
    assert calls == 1
    assert again.digest() == old.digest()
    np.save(folder / "samples.npy", np.ones((8, 3)))
    new, calls = samples(folder)
    assert calls == 2
    assert float(new.test.x.sum()) == 12
    assert new.digest() != old.digest()  # so a run that was begun with the old does not go on
    assert samples(folder)[1] == 2


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        (lambda below: (below / "words.txt").write_text("other"), 2),
        (lambda below: os.utime(below / "words.txt", ns=(1, 1)), 2),
        (lambda below: (below / "words.txt").rename(below / "word.txt"), 2),
        (lambda below: (below / "more.txt").write_text(""), 2),
        (lambda below: (below / ".hidden").write_text("seen by nobody"), 1),
        (lambda below: (below / "back").symlink_to(below.parent), 1),
    ],
)
def test_of_a_folder_all_files_count_but_hidden_ones(folder, change, calls):
    samples(folder)
    change(folder / "more" / "deep")
    assert samples(folder)[1] == calls


def test_files_behind_a_link_to_a_hidden_folder_count(tmp_path):
    hidden = tmp_path / "data/.store"
    hidden.mkdir(parents=True)
    (hidden / "x.npy").write_text("")
    (tmp_path / "data/sub").mkdir()
    (tmp_path / "data/sub/link").symlink_to(hidden)
    found = stamps_of(reads(tmp_path / "data")(lambda: None))
    assert [name.rpartition("\0")[2] for name, _, _ in found] == ["sub/link/x.npy"]


def test_a_missing_file_is_one_sentence(folder, capsys):
    samples(folder)
    (folder / "samples.npy").unlink()
    with pytest.raises(ConfigError) as refusal:
        samples(folder)
    assert str(refusal.value) == (
        f'dataset = noted: its function reads "samples.npy", and {folder / "samples.npy"} cannot '
        "be found (No such file or directory); put it there, or correct its @reads."
    )
    plugin = str(folder / "own.py")
    assert main(["run", "--config", "mnist5k/undefended", "--dataset", "noted"]) == 2
    assert main(["data", "verify", "noted", "--plugins", plugin]) == 2
    assert "samples.npy cannot be found" in " ".join(capsys.readouterr().err.split())


def test_names_are_as_declared_so_a_plugin_may_move_with_its_files(folder, tmp_path_factory):
    function = plugins.OWN_DATASETS["noted"].function
    before = stamps_of(function)
    assert [name for name, _, _ in before] == ["samples.npy\0.", "more/\0deep/words.txt"]
    moved = tmp_path_factory.mktemp("moved") / "project"
    folder.rename(moved)
    function.__globals__["__file__"] = str(moved / "own.py")
    assert stamps_of(function) == before


def test_undeclared_files_are_seen_by_verify_alone_which_knows_new_classes(tmp_path, capsys):
    text = textwrap.dedent(PLUGIN).replace('@reads("samples.npy", "more/")\n', "")
    text = text.replace("% 2", "% int(x[0, 0])").replace(
        '("even", "odd")', 'tuple("abc")[: y.max() + 1]'
    )
    (tmp_path / "silent.py").write_text(f"{text}\n# {tmp_path}\n")
    verify = ["data", "verify", "noted", "--plugins", str(tmp_path / "silent.py")]
    verify += ["--data_root", str(tmp_path)]
    changed = "The cache was not what the function returns now, and has been made anew."
    for value, said in ((2, ""), (2, ""), (3, changed), (3, "")):
        np.save(tmp_path / "samples.npy", np.full((12, 3), value))
        plugins.use([str(tmp_path / "silent.py")])
        assert find("noted", tmp_path).num_classes == (2 if said else value)
        capsys.readouterr()
        assert main(verify) == 0
        shown = capsys.readouterr().out
        assert (changed in shown) == bool(said)
        assert find("noted", tmp_path).num_classes == value


def test_without_paths_it_is_refused_where_the_plugin_is_loaded(tmp_path):
    text = textwrap.dedent(PLUGIN).replace('@reads("samples.npy", "more/")', "@reads")
    (tmp_path / "bare.py").write_text(text)
    with pytest.raises(ConfigError, match=r"bare\.py, line 11: TypeError: reads takes the paths"):
        entity.load("mnist5k/undefended", plugins=[str(tmp_path / "bare.py")])
    assert stamps_of(reads(tmp_path / "bare.py")(lambda: None))[0][1] == len(text)
