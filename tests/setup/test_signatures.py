"""Methods that cannot be called as the project calls them are one sentence with file and line."""

import json
import textwrap

import pytest
from plugin_registry import refusal

from entity.attacks import ATTACKS
from entity.cli import main
from entity.defenses import DEFENSES
from entity.poisons import POISONS
from entity.setup import plugins
from entity.setup.signatures import refuse_other_signatures

pytestmark = pytest.mark.usefixtures("forget_plugins")

BASES = {"DEFENSES": "median", "ATTACKS": "badnets", "POISONS": "label_flip"}
REGISTRIES = {"DEFENSES": DEFENSES, "ATTACKS": ATTACKS, "POISONS": POISONS}


@pytest.fixture
def write(tmp_path):
    """Write a plugin of one class with one method of its own, in lines 4 and 5."""

    def write(table, method, body="..."):
        module = f"entity.{table.lower()}"
        path = tmp_path / "mine.py"
        path.write_text(
            f"from {module} import {table} as KNOWN\n"
            f'class Mine(KNOWN["{BASES[table]}"]):\n'
            "    summary = 'of my own'\n"
            + textwrap.indent(f"{method}\n    {body}\n", "    ")
            + "\n"
            f"{table} = {{'mine': Mine}}\n"
        )
        return path

    return write


@pytest.mark.parametrize(
    ("table", "method", "said"),
    [
        ("ATTACKS", "def craft(self, trained):", "it must be craft(self, trained, broadcast)"),
        ("DEFENSES", "def aggregate(self):", "it must be aggregate(self, updates)"),
        ("DEFENSES", "def aggregate(self, updates, more):", "it must be aggregate(self, updates)"),
        ("DEFENSES", "def aggregate(self, *, updates):", "it must be aggregate(self, updates)"),
        ("DEFENSES", "def needs(cls, args):", "it must be a classmethod, needs(cls, args)"),
        ("DEFENSES", "def __init__(self):", "it must be __init__(self, args, resources)"),
        ("POISONS", "def poison(self, chosen, rank):", "poison(self, chosen, rank, generator)"),
        ("POISONS", "def test_set(self):", "it must be test_set(self, test)"),
        (
            "ATTACKS",
            "def collude(cls, args, updates, malicious, seeds):",
            "it must be a classmethod, collude(cls, args, updates, malicious, seeds)",
        ),
    ],
)
def test_a_method_with_other_arguments_is_refused_with_its_line(write, table, method, said):
    path = write(table, method)
    own = method.removeprefix("def ").removesuffix(":")
    text = refusal(path)
    assert f"{table}: mine has {own} at {path}, line 4; " in text
    assert text.endswith(f"{said}.")


@pytest.mark.parametrize("value", ["needs = None #", "aggregate = property(lambda self: 3) #"])
def test_what_is_no_method_is_refused(write, value):
    name = value.split()[0]
    text = refusal(write("DEFENSES", value, ""))
    assert f"DEFENSES: mine has {name} that is no method; it must be " in text


@pytest.mark.parametrize(
    ("table", "method"),
    [
        ("ATTACKS", "def craft(self, *everything):"),
        ("DEFENSES", "def aggregate(self, of_the_round, verbose=False):"),
        ("DEFENSES", "needs = classmethod(lambda cls, args: None) #"),
        ("DEFENSES", "needs = staticmethod(lambda args: None) #"),
        ("DEFENSES", "def of_my_own(self):"),
    ],
)
def test_what_can_be_called_is_taken(write, table, method):
    body = "..." if method.endswith(":") else ""
    plugins.use([str(write(table, method, body))])
    assert "mine" in REGISTRIES[table]


def test_all_methods_of_the_project_keep_to_it():
    for registry in REGISTRIES.values():
        for entry in registry.values():
            refuse_other_signatures(type("Own", (entry,), dict(vars(entry))))


@pytest.mark.parametrize(
    ("table", "field", "method", "call"),
    [
        ("DEFENSES", "server.defense", "def __init__(self, args, resources):", "args, resources"),
        (
            "ATTACKS",
            "client.attack",
            "def __init__(self, id, data, context, plan):",
            "id, data, context, plan",
        ),
        (
            "POISONS",
            "client.attack",
            "def __init__(self, attack, args, channels, size):",
            "attack, args, channels, size",
        ),
    ],
)
def test_a_constructor_that_leaves_out_the_projects_is_one_sentence(
    write, tables, tmp_path, capsys, table, field, method, call
):
    path = write(table, method)
    attack = tables()["client"]["attack"]
    chosen = {
        "DEFENSES": {"type": "mine"},
        "ATTACKS": {**attack, "type": "mine"},
        "POISONS": {**attack, "poison": "mine"},
    }[table]
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**tables({field: chosen}), "plugins": [str(path)]}))
    assert main(["run", "--config", str(config), "--out", str(tmp_path / "run")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"Mine.__init__ at {path}, line 4: leaves out super().__init__; call" in said
    assert f"super().__init__({call}) in it." in said
