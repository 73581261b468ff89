"""The map of the package in CONTRIBUTING.md names every module, in its folder."""

import re
from pathlib import Path

import entity

PACKAGE = Path(entity.__file__).parent
PAGE = PACKAGE.parent / "CONTRIBUTING.md"


def the_map() -> dict[str, set[str]]:
    """Return the words of every folder's paragraph; the root's are under an empty name."""
    (block,) = re.findall(r"```\nentity/\n(.*?)```", PAGE.read_text(), re.DOTALL)
    found: dict[str, set[str]] = {"": set()}
    folder = ""
    for line in block.splitlines():
        if heads := re.match(r"  ((?:\w+/ +)+)", line):
            folder = heads[1].split()[0].rstrip("/")
            found[folder] = set()
        found[folder] |= set(re.findall(r"\w+", line))
    return found


def modules() -> dict[str, set[str]]:
    """Return the modules of every folder."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if not path.stem.startswith("__"):
            folder = path.parent.relative_to(PACKAGE).as_posix().removeprefix(".")
            found.setdefault(folder, set()).add(path.stem)
    return found


def test_every_module_is_on_the_map_in_its_folder():
    shown = the_map()
    missing = {
        f"{folder}/{name}"
        for folder, names in modules().items()
        for name in names
        if name not in shown.get(folder, set())
    }
    assert missing == set()


def test_folders_of_the_map_exist():
    assert {folder for folder in the_map() if not (PACKAGE / folder).is_dir()} == set()
    assert len(the_map()) > 15
