"""Write docs/FIDELITY.md: what of its paper each method implements, and what holds it to it.

    python docs/make_fidelity.py

Names, summaries, papers and deliberate departures come from the code, the rest from
docs/fidelity.yml. tests/docs/test_fidelity.py fails while the page is out of date.
"""

import ast
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from entity.attacks import ATTACKS
from entity.defenses import DEFENSES
from entity.poisons import POISONS
from entity.results.tables import markdown_lines

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "FIDELITY.md"
REGISTRIES: Mapping[str, Any] = {"defenses": DEFENSES, "attacks": ATTACKS, "poisons": POISONS}
TITLES = {
    "defenses": "Defenses",
    "attacks": "Attacks",
    "poisons": "Data poisons",
    "federation": "The federation itself",
    "distillation": "Distillation",
}
SOURCES = {
    "drop": "the original DROP code",
    "authors": "the authors' code",
    "benchmark": "a public benchmark",
}
LEAD = """# Fidelity

What of its paper each method implements, where the mathematics stands, which tests judge it by an
independent expectation, and which defects of published implementations tests keep it clear of.
Equations and algorithms are numbered as in the paper, whose text was read; *(quoted)* statements
were read in the text of another paper, those of *(authors' code)* in what the paper's authors
published, and those *(from memory)* have been checked against neither. Tests are counted once for
every method that they speak for; a defect names the kind of code it was seen in.

This page is generated from the code and from `docs/fidelity.yml` by
`python docs/make_fidelity.py`; `tests/docs/test_fidelity.py` fails while it is out of date."""

Entry = dict[str, Any]
Names = dict[str, list[str]]


def facts() -> dict[str, dict[str, Entry]]:
    """Return all entries by section, those of the registries with what the code says of them."""
    found = yaml.safe_load((ROOT / "docs" / "fidelity.yml").read_text())
    for section, registry in REGISTRIES.items():
        for name in registry.keys() & found[section].keys():
            method = registry[name]
            file = Path(inspect.getfile(method)).resolve().relative_to(ROOT.resolve())
            found[section][name] |= {
                "summary": method.summary,
                "paper": method.paper,
                "file": file.as_posix(),
            }
    return found


def departures(docstring: str) -> list[str]:
    """Return where a module leaves its paper, as paragraphs and list items without line breaks.

    That is the paragraph that begins "Where we leave", with the list that it announces; in a
    docstring without one, all that follows the title and the description.
    """
    paragraphs = docstring.split("\n\n")
    found = paragraphs[2:]
    for i, paragraph in enumerate(paragraphs):
        if paragraph.startswith("Where we leave"):
            found = [paragraphs[i + 1] if paragraph.endswith(":") else paragraph]
    items = [item for part in found for item in re.split(r"^- ", part, flags=re.MULTILINE)]
    return [" ".join(item.split()).rstrip(";") for item in items if item.strip()]


def tests_of(entry: Entry) -> set[str]:
    """Return all tests that an entry names, as file::function."""
    groups: list[Names] = [entry["tests"], *(defect["tests"] for defect in entry["defects"])]
    return {f"{file}::{name}" for names in groups for file in names for name in names[file]}


def counts(entry: Entry) -> list[str]:
    """Return how many tests and defects an entry names."""
    return [str(len(tests_of(entry))), str(len(entry["defects"]))]


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return markdown_lines(heads, lines, [False] * len(heads)).rstrip("\n")


def link(file: str) -> str:
    """Return a link from the page to a file of the repository."""
    return f"[{file}](../{file})"


def listed(names: Names) -> str:
    """Return functions as file::function, for a cell of a table."""
    return "<br>".join(f"`{file}::{name}`" for file in names for name in names[file])


def section_of(name: str, entry: Entry) -> str:
    """Return the part of the page on one method."""
    files = [entry["file"], *entry.get("also", [])]
    docstrings = [ast.get_docstring(ast.parse((ROOT / file).read_text())) for file in files]
    apart = [item for text in docstrings for item in departures(text or "")]
    rows = [
        ["implements", entry["equation"]],
        ["mathematics", listed(entry["functions"])],
        ["judged by", listed(entry["tests"])],
        ["on purpose", "<br>".join(f"• {item}" for item in apart) or "no departure is named"],
    ]
    head = f"{entry['summary']} ({entry['paper']}; {link(entry['file'])})"
    parts = [f"### {name}", head, markdown(["", ""], rows)]
    rows = [
        [defect["what"], SOURCES[defect["by"]], listed(defect["tests"])]
        for defect in entry["defects"]
    ]
    if rows:
        parts.append(markdown(["published defect", "seen in", "kept out by"], rows))
    return "\n\n".join(parts)


def page() -> str:
    """Return the whole page."""
    found = facts()
    heads = ["method", "paper", "our file", "tests", "defects covered"]
    rows = [
        [f"[{name}](#{name})", entry["paper"], link(entry["file"]), *counts(entry)]
        for section in TITLES
        for name, entry in found[section].items()
    ]
    parts = [LEAD, markdown(heads, rows)]
    for section, title in TITLES.items():
        parts.append(f"## {title}")
        parts += [section_of(name, entry) for name, entry in found[section].items()]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
