"""The registry of defenses."""

import importlib
import pkgutil

import entity.defenses
import entity.server
from entity.defenses import DEFENSES
from entity.server import Server


def test_the_registry_can_be_imported_by_its_earlier_name_too():
    assert entity.server.SERVERS is entity.defenses.DEFENSES  # type: ignore[attr-defined]
    assert entity.defenses.SERVERS is entity.defenses.DEFENSES


def test_every_defense_is_registered_and_stands_in_the_file_of_its_name():
    """Multi-Krum stands with Krum."""
    files = {name: importlib.import_module(entry.__module__) for name, entry in DEFENSES.items()}
    assert {name: module.__name__ for name, module in files.items()} == {
        name: f"entity.defenses.{'krum' if name == 'multikrum' else name}" for name in DEFENSES
    }
    for file in pkgutil.iter_modules(entity.defenses.__path__):
        module = importlib.import_module(f"entity.defenses.{file.name}")
        for entry in vars(module).values():
            if isinstance(entry, type) and issubclass(entry, Server):
                whole = entry.__module__ == module.__name__ and "summary" in vars(entry)
                assert not whole or entry in DEFENSES.values(), entry
