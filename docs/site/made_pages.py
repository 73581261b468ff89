"""The pages of the site that are made from the code: methods, fields, the API, files linked to."""

import dataclasses
import inspect
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import figures
import yaml
from latex2mathml.converter import convert

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]

import make_deploy  # noqa: E402 -- beside this folder, not in it
import make_fidelity  # noqa: E402

from entity.attacks import ATTACKS  # noqa: E402
from entity.client import Attacker  # noqa: E402
from entity.client.poison import AdaptivePoison  # noqa: E402
from entity.config import schema  # noqa: E402
from entity.config.fields import ExperimentConfig  # noqa: E402
from entity.config.schema import describe, docs, hints, show  # noqa: E402
from entity.defenses import DEFENSES  # noqa: E402
from entity.poisons import POISONS  # noqa: E402
from entity.results.formatting import counted  # noqa: E402
from entity.server import Needs, StreamingServer  # noqa: E402

KINDS: dict[str, dict[str, Any]] = {
    "defenses": DEFENSES,
    "attacks": ATTACKS,
    "poisons": POISONS,
}
TITLES = {"defenses": "Defenses", "attacks": "Attacks", "poisons": "Data poisons"}
API = {
    "entity": "The package",
    "entity.api.run": "One run in Python",
    "entity.api.runs": "Many runs in Python",
    "entity.api.sweep": "A sweep in Python",
    "entity.experiment": "The federated loop",
    "entity.setup.load": "Reading a configuration",
    "entity.federation": "Who takes part in a round",
    "entity.metrics": "MTA, ASR and detection",
    "entity.updates": "A round's updates and verdicts",
    "entity.layout": "Models as flat vectors",
    "entity.seeding": "Randomness",
    "entity.server.contract": "What a defense is",
    "entity.server.streaming": "Defenses that need no matrix",
    "entity.client.attacker": "What an attack is",
    "entity.client.poison": "What a data poison is",
    "entity.dataset.source": "What a data set is",
    "entity.dataset.partition": "Sharing data out",
    "entity.distill.student": "Distillation",
    "entity.results.store": "Many runs as a table",
    "entity.flower.strategy": "The strategy for Flower",
    "entity.flower.round_report": "Reports of Flower's rounds",
}
SYMBOLS = (
    "As ever, w is the global model and w&prime; the next one; client i of the n that came sent "
    "w<sub>i</sub>, its update is &Delta;<sub>i</sub> = w<sub>i</sub> &minus; w, "
    "and &eta; is the server's rate."
)
SHARED_FILE = {"krum": "Krum", "multikrum": "Multi-Krum"}
"""Titles of methods whose file has more than one."""
LETTERS = {
    *("Delta", "alpha", "gamma", "epsilon", "eta", "theta", "lambda", "mu", "nu", "pi", "rho"),
    *("sigma", "Sigma", "delta"),
}
CAVEAT = (
    "Every dot is one run of "
    "[RESULTS](../../RESULTS.md#defenses-against-five-attacks-at-a-rate-of-01): "
    "`mnist5k`, 10 clients of which 4 attack, a learning rate of 0.1, three seeds. "
    "<span class='key asr'>●</span> ASR, <span class='key before'>○</span> ASR of the same run "
    "undefended, <span class='key mta'>■</span> MTA. That page names the rows that were run "
    "before a method was corrected."
)


@cache
def formulas() -> dict[str, dict[str, dict[str, str]]]:
    """Return formula and meaning of the symbols of every method."""
    return yaml.safe_load((Path(__file__).parent / "formulas.yml").read_text())


def mathml(latex: str) -> str:
    """Return a formula as MathML, which browsers draw without a script."""
    return f'<div class="formula">{convert(latex, display="block")}</div>'


def symbols(text: str) -> str:
    """Return a line on symbols with Greek letters and subscripts."""
    parts = text.split("`")
    for number in range(0, len(parts), 2):
        words = re.sub(
            r"[A-Za-z]+", lambda m: f"&{m[0]};" if m[0] in LETTERS else m[0], parts[number]
        )
        parts[number] = re.sub(r"(?<=\w)_(\(\w\)\w+|\w+)", r"<sub>\1</sub>", words)
    return "`".join(parts)


def _letter(word: re.Match[str]) -> str:
    return f"&{word[0]};" if word[0] in LETTERS else word[0]


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |"
        for line in lines
    )


def paper(text: str) -> str:
    """Return a paper with a link to it, where the text has an identifier."""
    for pattern, address in (
        (r"arXiv (\d{4}\.\d{4,5})", "https://arxiv.org/abs/"),
        (r"doi (10\.\S+)", "https://doi.org/"),
        (r"openreview (\w+)", "https://openreview.net/forum?id="),
    ):
        text = re.sub(pattern, lambda m, to=address: f"[{m[0]}]({to}{m[1]})", text)
    return text


def title(kind: str, name: str) -> str:
    """Return a method's name as its file writes it."""
    if name in SHARED_FILE:
        return SHARED_FILE[name]
    first = (sys.modules[KINDS[kind][name].__module__].__doc__ or name).split("\n")[0]
    return re.split(r"[:,.]", first)[0]


def prose(kind: str, name: str) -> str:
    """Return the docstring of a method's file without its first line."""
    text = inspect.cleandoc(sys.modules[KINDS[kind][name].__module__].__doc__ or "")
    return escaped(text.split("\n", 1)[1].strip() if "\n" in text else "")


def escaped(text: str) -> str:
    """Return a docstring's text with what Markdown or HTML would take for its own."""
    lines = [
        line if line.startswith("    ") else re.sub(r"(?<!`)<(?!=)", "&lt;", line)
        for line in text.splitlines()
    ]
    return "\n".join(lines)


def settings(cls: type) -> str:
    """Return the fields of a settings class as a table."""
    return field_table(cls) or "It has no settings of its own."


def field_table(cls: type, prefix: str = "", skip: tuple[str, ...] = ()) -> str:
    """Return the fields of a dataclass: name, allowed, default, meaning.

    Parameters
    ----------
    cls
        The dataclass; tables within it that are always there have their own.
    prefix
        What stands before a name, with its dot.
    skip
        Fields that are shown elsewhere.
    """
    texts, kinds = docs(cls), hints(cls)
    rows = []
    for item in dataclasses.fields(cls):
        if item.name in skip or dataclasses.is_dataclass(kinds[item.name]):
            continue
        default = item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        shown = "required" if default is dataclasses.MISSING else f"`{show(default)}`"
        text = escaped(texts.get(item.name, ""))
        rows.append([f"`{prefix}{item.name}`", describe(kinds[item.name]), shown, text])
    return table(["field", "allowed", "default", "meaning"], rows) if rows else ""


def nested(kind: Any) -> type | None:
    """Return the dataclass behind a field that is a table of fields."""
    for option in (kind, *getattr(kind, "__args__", ())):
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            return option
    return None


def threat_model(kind: str, name: str) -> str:
    """Return what a method must be granted, or what an attacker does and knows."""
    method = KINDS[kind][name]
    if kind == "defenses":
        needs: Needs = method.needs(schema.load(method.hyperparameters, {}))
        words = docs(Needs)
        rows = [
            [key.replace("_", " "), "**yes**" if value else "no", words.get(key, "")]
            for key, value in vars(needs).items()
        ]
        more = [f"It needs at least {counted(method.least_clients, 'client')} in a round."]
        more.append(
            "It claims that a few clients cannot do with the model as they like, so BatchNorm "
            "statistics are a median by default."
            if method.robust
            else "It makes no claim of robustness: BatchNorm statistics are averaged by default."
        )
        if issubclass(method, StreamingServer):
            more.append(f"It can stream updates{_with(method.streams_with)}.")
        head = "What the operator must grant it, with its default settings:"
        return "\n\n".join([head, table(["what", "granted", "that is"], rows), " ".join(more)])
    return table(["", ""], [[f"**{a}**", b] for a, b in _abilities(kind, method)])


def _with(condition: str | None) -> str:
    return f" {condition}" if condition else ""


def _abilities(kind: str, method: Any) -> Iterator[tuple[str, str]]:
    if kind == "poisons":
        trained = issubclass(method, AdaptivePoison)
        yield (
            "where it acts",
            "on the attackers' own training samples; any attack can be combined with it",
        )
        yield (
            "its trigger",
            "is trained by the colluders against the global model, round by round"
            if trained
            else "is fixed before the first round",
        )
        yield "how it is judged", _first(method.test_set.__doc__)
        return

    def own(step: str) -> bool:
        return getattr(method, step) is not getattr(Attacker, step)

    yield (
        "training data",
        "the attackers' own, poisoned by the data poison"
        if method.needs_samples
        else "the attackers' own, clean: it wants a bad model, not a backdoor",
    )
    changed = own("corrupt") or own("local_loss") or own("after_step")
    yield "local training", "changed" if changed else "as a benign client's"
    yield "what is sent", "crafted from the trained model" if own("craft") else "as trained"
    together = "collude" in {step for base in method.__mro__[:2] for step in vars(base)}
    yield "collusion", "the attackers of a round agree on what they send" if together else "none"
    fields = {item.name for item in dataclasses.fields(method.hyperparameters)}
    if "knowledge" in fields:
        yield (
            "knowledge",
            "the colluders' own honest updates by default; with `knowledge: omniscient` those of "
            "all benign clients",
        )
    else:
        yield "knowledge", "the global models that it was sent, and its own data"


def _first(doc: str | None) -> str:
    return (doc or "").split("\n")[0]


@cache
def costs() -> dict[str, list[str]]:
    """Return the rows of the aggregation table in PERFORMANCE.md."""
    page = (DOCS / "PERFORMANCE.md").read_text()
    cut = page[page.index("<!-- aggregate -->") : page.index("<!-- /aggregate -->")]
    lines = [line.strip("| ").split(" | ") for line in cut.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines}


def cost(kind: str, name: str) -> str:
    """Return what a method costs, as it was measured."""
    if kind == "defenses" and name in costs():
        heads, row = costs()["defense"], costs()[name]
        link = "[PERFORMANCE](../../PERFORMANCE.md#aggregation)"
        note = f"A round of 25 clients at the server, of 1M and 11M parameters: {link}."
        return f"{table(heads, [row])}\n\n{note}"
    if kind == "attacks" and (ratio := _slower(name)):
        return (
            f"Runs of the figure below took {ratio:.2f} times as long as those of BadNets, in the "
            "median of their seeds, undefended and on a machine with other work: for orientation."
        )
    return "It has not been measured."


def _slower(name: str) -> float | None:
    label, found = labels(name), figures.runs()
    if label is None or name == "badnets":
        return None
    ours, plain = (
        sorted(run["seconds"] for run in found["undefended", attack])
        for attack in (label, "BadNets")
    )
    return ours[len(ours) // 2] / plain[len(plain) // 2]


def labels(name: str) -> str | None:
    """Return what baselines_rough.jsonl calls an attack or a data poison; None if it has none."""
    known = {
        "badnets": "BadNets",
        "neurotoxin": "Neurotoxin",
        "chameleon": "Chameleon",
        "dba": "DBA",
        "model_replacement": "model replacement",
    }
    return known.get(name)


def figure(kind: str, name: str) -> str:
    """Return a method's figures with their captions."""
    found, parts = figures.runs(), []
    if kind == "defenses" and found[name, "none"]:
        rows = {text: found[name, key] for key, text in figures.SCENARIOS.items()}
        before = {text: found["undefended", key] for key, text in figures.SCENARIOS.items()}
        beside = {} if name == "undefended" else before
        parts += [figures.dots(rows, beside, f"MTA and ASR of {name} by attack"), CAVEAT]
    if kind == "poisons" and (picture := figures.poisoned(name)):
        parts += [picture, "A 0 of `mnist5k` with target class 7, made by the poison's own code."]
    if kind == "attacks" and (picture := figures.sent(name)):
        parts += [
            picture,
            "Updates of a round in two dimensions, made by the attack's own code: "
            "<span class='key mta'>●</span> honest clients, <span class='key before'>○</span> what "
            "the attackers trained honestly, <span class='key asr'>●</span> what they all send "
            "instead; the cross is the global model.",
        ]
    if (label := labels(name)) and kind != "defenses":
        rows = {one: found[one, label] for one in DEFENSES if found[one, label]}
        parts += [figures.dots(rows, {}, f"MTA and ASR under {name} by defense"), CAVEAT]
    return "\n\n".join(parts) or "There is no measurement of it among the committed results."


def method(kind: str, name: str) -> str:
    """Return the page of one defense, attack or data poison."""
    entry = make_fidelity.facts()[kind][name]
    formula = formulas()[kind][name]
    tests, defects = make_fidelity.counts(entry)
    source = f"[{entry['file']}](../../../{entry['file']})"
    choice = {
        "defenses": f"drop run --config mnist5k/{name}",
        "attacks": f"drop run --config mnist5k/drop --client.attack.type {name}",
        "poisons": f"drop run --config mnist5k/drop --client.attack.poison {name}",
    }[kind]
    held = (
        f"{tests} tests judge it by an expectation of their own, and {defects} defects of "
        f"published codes are kept out by name: [its entry of FIDELITY](../../FIDELITY.md#{name})."
    )
    return "\n\n".join(
        [
            f"# {title(kind, name)}",
            f"`{name}` · {escaped(entry['summary'])}",
            f"{paper(entry['paper']) or 'No paper.'} · {source}",
            f"```\n{choice}\n```",
            "## Formula",
            mathml(formula["formula"]),
            f"Here {symbols(formula['where'])} {SYMBOLS}",
            f"What of its paper is implemented: {escaped(entry['equation'])}",
            "## How it works",
            prose(kind, name),
            "## Threat model",
            threat_model(kind, name),
            "## Cost",
            cost(kind, name),
            "## Figure",
            figure(kind, name),
            "## Settings",
            settings(KINDS[kind][name].hyperparameters),
            "## What holds it to its paper",
            held,
        ]
    )


def overview(kind: str) -> str:
    """Return the page that lists all defenses, attacks or data poisons."""
    rows = [
        [f"[{title(kind, name)}]({name}.md)", f"`{name}`", escaped(one.summary), paper(one.paper)]
        for name, one in KINDS[kind].items()
    ]
    parts = [f"# {TITLES[kind]}", table(["", "name", "what it is", "paper"], rows)]
    if kind == "defenses":
        parts += ["## What each must be granted", make_deploy.needs_table()]
    return "\n\n".join(parts)


def fields() -> str:
    """Return every field of a configuration, those of methods by method."""
    parts = [
        "# Fields of a configuration",
        "As `drop fields` prints them, from the schema itself. Every field can be given on the "
        "command line by its name, with its table where the name alone is ambiguous. Settings of "
        "one method stand beside the others in JSON: a defense's in `server.defense.defense_args`, "
        "an attack's and a data poison's in `client.attack`.",
    ]
    parts += [
        f"## {prefix.rstrip('.') or 'The top level'}\n\n{text}"
        for prefix, cls in _tables(ExperimentConfig, "")
        if (text := field_table(cls, prefix, skip=("args", "poison_args")))
    ]
    where = {"defenses": "server.defense.defense_args.", "attacks": "client.attack."}
    for kind, registry in KINDS.items():
        parts.append(f"## {TITLES[kind]}")
        for name, one in registry.items():
            text = field_table(one.hyperparameters, where.get(kind, "client.attack."))
            if text:
                parts.append(f"### {name}\n\n{text}")
    return "\n\n".join(parts)


def _tables(cls: type, prefix: str) -> Iterator[tuple[str, type]]:
    yield prefix, cls
    for item in dataclasses.fields(cls):
        if (inner := nested(hints(cls)[item.name])) is not None:
            yield from _tables(inner, f"{prefix}{item.name}.")


def api(module: str) -> str:
    """Return the page of a module, for mkdocstrings."""
    return f"# {API[module]}\n\n::: {module}"


def source(path: str) -> str:
    """Return a file of the repository as a page: Markdown as it is, anything else as code."""
    text = (ROOT / path).read_text()
    if path.endswith(".md"):
        return text
    fence = "~~~~~~"
    if path.endswith(".ipynb"):
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
        return "\n\n".join(
            part if kind == "markdown" else f"{fence}python\n{part}\n{fence}"
            for kind, part in cells
        )
    kind = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
    language = kind.get(Path(path).suffix, "text")
    head = "---\nsearch:\n  exclude: true\n---\n\n"
    return f"{head}# {path}\n\n{fence}{language}\n{text.rstrip()}\n{fence}"
