"""The fidelity page: complete, true to the code, and as it is generated."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = spec_from_file_location("make_fidelity", ROOT / "docs" / "make_fidelity.py")
assert SPEC is not None
assert SPEC.loader is not None
fidelity = module_from_spec(SPEC)
SPEC.loader.exec_module(fidelity)

FACTS = fidelity.facts()
ENTRIES = [
    pytest.param(entry, id=f"{section}-{name}")
    for section, entries in FACTS.items()
    for name, entry in entries.items()
]
KEYS = {"summary", "paper", "file", "equation", "functions", "tests", "defects"}


@cache
def defined(file: str) -> frozenset[str]:
    """Return the functions and methods of a file, the latter as Class.method."""

    def names() -> Iterator[str]:
        for node in ast.parse((ROOT / file).read_text()).body:
            if isinstance(node, ast.FunctionDef):
                yield node.name
            elif isinstance(node, ast.ClassDef):
                yield from (
                    f"{node.name}.{item.name}"
                    for item in node.body
                    if isinstance(item, ast.FunctionDef)
                )

    return frozenset(names())


def test_the_registries_and_the_facts_have_the_same_names_in_the_same_order():
    assert list(FACTS) == list(fidelity.TITLES)
    for section, registry in fidelity.REGISTRIES.items():
        assert list(FACTS[section]) == list(registry)


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_says_all_that_the_page_needs_and_nothing_else(entry):
    assert set(entry) - {"also"} == KEYS
    assert all(entry[key] for key in KEYS - {"defects"})
    for file in [entry["file"], *entry.get("also", [])]:
        assert (ROOT / file).is_file()
    for defect in entry["defects"]:
        assert set(defect) == {"by", "what", "tests"}
        assert defect["by"] in fidelity.SOURCES


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_named_function_exists(entry):
    for file, names in entry["functions"].items():
        assert file.startswith("entity/")
        assert set(names) <= defined(file)


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_named_test_exists_and_every_defect_has_one(entry):
    for names in [entry["tests"], *(defect["tests"] for defect in entry["defects"])]:
        assert any(names.values())
        for file, tests in names.items():
            assert Path(file).name.startswith("test_")
            assert all(test.startswith("test_") for test in tests)
            assert set(tests) <= defined(file)


def test_the_page_is_what_the_generator_writes():
    assert fidelity.PAGE.read_text() == fidelity.page(), "run python docs/make_fidelity.py"


def test_departures_are_the_announced_list_or_sentences_or_what_follows_the_description():
    title = "Title.\n\nPaper, year. What it does.\n\n"
    after = "\n\nNot part of it."
    announced = "Where we leave the paper, and why:\n\n- one thing\n  in two lines;\n- another."
    assert fidelity.departures(title + announced + after) == ["one thing in two lines", "another."]
    told = "Where we leave the paper: not\nat all."
    assert fidelity.departures(title + told + after) == ["Where we leave the paper: not at all."]
    assert fidelity.departures(title + "Ours.\n\n- And\n  this.") == ["Ours.", "And this."]
    assert fidelity.departures("Title.\n\nPaper.") == []


def test_cells_cannot_break_their_table():
    assert fidelity.markdown(["a"], [["|x|"]]) == "| a |\n| --- |\n| \\|x\\| |"
