"""A run directory, whole or cut short: config, rounds, summary, last artifacts."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.reading import parse_json, read_bytes
from entity.record.json_fields import at, attack_of, ids, mapping, number, numbers, text, texts
from entity.record.json_files import finite
from entity.record.rounds import fault_of
from entity.report.artifacts import (
    Example,
    Images,
    Tree,
    all_trees,
    last_images,
    read_example,
)
from entity.results.store import collect

log = logging.getLogger("entity")


@dataclass(frozen=True)
class Round:
    """One line of `rounds.jsonl`. Client ids are strings, whatever they were in the run."""

    round: int
    mta: float | None
    """Main-task accuracy, 0 to 1; None where it was not evaluated."""
    asr: float | None
    """Attack success rate, 0 to 1; None where it was not evaluated."""
    selected: tuple[str, ...]
    """Clients that trained and were judged: none where the round kept the global model."""
    malicious: frozenset[str]
    """Those of them that poisoned in this round."""
    refused: frozenset[str]
    reasons: Mapping[str, str]
    weights: Mapping[str, float]
    scores: Mapping[str, float]
    seconds: Mapping[str, float]
    distilled: bool

    @property
    def missed(self) -> int:
        """How many poisoned updates were accepted."""
        return len(self.malicious - self.refused)


@dataclass(frozen=True)
class RunRecord:
    """Everything the page shows of one run."""

    name: str
    config: Mapping[str, object]
    rounds: tuple[Round, ...]
    summary: Mapping[str, object]
    """Empty if the run did not end."""
    images: Images | None
    trees: tuple[Tree, ...]
    """Linkages of single rounds, first round first."""
    example: Example | None = None
    """Images of the attack and what the final model says of them; only finished runs have some."""

    @property
    def tree(self) -> Tree | None:
        """The last linkage."""
        return self.trees[-1] if self.trees else None

    def setting(self, path: str) -> str:
        """Return a setting as text, "" where the config has none."""
        value = at(self.config, path)
        return "" if value is None or isinstance(value, dict) else str(value)

    @property
    def defense(self) -> str:
        """Name of the defense, "none" if the config has none."""
        return text(self.summary, "defense") or self.setting("server.defense.type") or "none"

    @property
    def attack(self) -> str:
        """Name of the attack, "none" if the config has none."""
        return text(self.summary, "attack") or attack_of(self.config) or "none"

    @property
    def planned_rounds(self) -> int | None:
        """Rounds that the config asks for."""
        federation = mapping(self.config.get("federation"))
        planned = number(federation, "rounds")
        return None if planned is None else int(planned)

    @property
    def complete(self) -> bool:
        """Whether the run ended: it has a summary and as many rounds as were planned."""
        return bool(self.summary) and len(self.rounds) >= (self.planned_rounds or 0)

    @property
    def malicious(self) -> frozenset[str]:
        """Clients that poisoned at least once."""
        return frozenset[str]().union(*(each.malicious for each in self.rounds))


def read_run(path: Path) -> RunRecord:
    """Read a run directory.

    A missing summary, missing artifacts and a last line cut off by a crash are no errors.

    Raises
    ------
    ConfigError
        Where there is no run: no directory, no config, or a file that is not JSON.
    """
    if not path.is_dir():
        raise ConfigError(
            f"no run at {path}: there is no such directory; give one that `drop run` made"
        )
    config_file = path / "config.json"
    if not _is_there(config_file):
        raise ConfigError(
            f"no run at {path}: config.json is missing; give a directory that `drop run` made, or "
            "a folder of such, as `drop sweep` made"
        )
    config = _object(config_file)
    summary_file = path / "summary.json"
    summary = _object(summary_file) if summary_file.exists() else {}
    rounds = _rounds(path / "rounds.jsonl")
    return RunRecord(
        name=text(summary, "name") or text(config, "name") or path.resolve().name,
        config=config,
        rounds=rounds,
        summary=summary,
        images=last_images(path / "artifacts"),
        trees=all_trees(path / "artifacts", {each.round: each.selected for each in rounds}),
        example=read_example(path / "artifacts"),
    )


def _is_there(file: Path) -> bool:
    return file.exists() or file.is_symlink()  # a link to nowhere is damage, and said


def read_runs(
    paths: Sequence[Path], left_out: Callable[[str], None] | None = None
) -> list[RunRecord]:
    """Read run directories; what is damaged is left out and named.

    Parameters
    ----------
    paths
        The run directories; of another folder, such as a sweep's, all finished runs below it.
    left_out
        Takes a sentence on each that is left out; None writes it to the log.

    Raises
    ------
    ConfigError
        If a directory does not exist, or no run can be read: why the first cannot.
    """
    tell = left_out or log.warning
    runs: list[RunRecord] = []
    refused: list[ConfigError] = []
    for path in _directories([*map(user_path, paths)], tell):
        try:
            runs.append(read_run(path))
        except ConfigError as error:
            if not path.is_dir():  # a name that was mistyped is no damage
                raise
            refused.append(error)
    if refused and not runs:
        raise refused[0]
    for error in refused:
        tell(f"left out: {error}")
    return runs


def _directories(paths: Sequence[Path], tell: Callable[[str], None]) -> list[Path]:
    """Return the run directories that are meant; unfinished ones of a sweep are named."""
    found: dict[Path, Path] = {}
    named = {path.resolve() for path in paths}
    for path in paths:
        below = collect([path]) if path.is_dir() and not _is_there(path / "config.json") else []
        finished = [run.path for run in below if run.finished]
        for run in below:
            if finished and not run.finished and run.path.resolve() not in named:
                tell(f"left out: {run.path} is {run.facts['state']}; name it to have it, too")
        if below and not finished:
            raise ConfigError(
                f"no finished run in {path}: those below it are "
                f"{', '.join(sorted({str(run.facts['state']) for run in below}))}; name those to "
                "report on nevertheless"
            )
        for each in finished:
            found.setdefault(each.resolve(), each)
        if not below:
            found[path.resolve()] = path
    return [*found.values()]


def of_memory(
    config: Mapping[str, object],
    lines: Sequence[Mapping[str, object]],
    summary: Mapping[str, object],
) -> RunRecord:
    """Return the record of a run that is in no folder, and has no artifacts therefore.

    Parameters
    ----------
    config
        Its nested tables.
    lines
        Of its rounds, as `rounds.jsonl` would have them.
    summary
        Empty if it did not end.
    """
    found = (_round(mapping(finite(line))) for line in lines)
    return RunRecord(
        name=text(summary, "name") or text(config, "name") or "run",
        config=config,
        rounds=tuple(each for each in found if each is not None),
        summary=mapping(finite(summary)),
        images=None,
        trees=(),
    )


def _object(file: Path) -> dict[str, object]:
    content = _content(file)
    try:
        data: object = parse_json(content)
    except ValueError as error:
        raise ConfigError(
            f"{file} is not JSON ({error}); fix it or leave this run out of the report"
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file} holds no JSON object; fix it or leave this run out")
    return mapping(data)


def _content(file: Path) -> bytes:
    try:
        return read_bytes(file)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read ({error.strerror}); fix it or leave this run out of the report"
        ) from error


def _rounds(file: Path) -> tuple[Round, ...]:
    """Read the lines; a round that a resumed run wrote twice counts as it was written last."""
    if not file.exists():
        return ()
    lines = _content(file).splitlines()
    found: dict[int, Round] = {}
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            data = mapping(parse_json(line.decode("utf-8", errors="replace")))
        except ValueError as error:
            if index == len(lines) - 1:
                break
            raise ConfigError(
                f"{file} line {index + 1} is not JSON; fix it or leave this run out of the report"
            ) from error
        if said := fault_of(data):
            raise ConfigError(
                f"{file} line {index + 1}: {said}; fix it or leave this run out of the report"
            )
        each = _round(data)
        if each is not None:
            found[each.round] = each
    return tuple(found[key] for key in sorted(found))


def _round(data: Mapping[str, object]) -> Round | None:
    index = number(data, "round")
    if index is None:
        return None
    undecided = frozenset(ids(data, "undecided"))  # nobody has judged them
    return Round(
        round=int(index),
        mta=number(data, "mta"),
        asr=number(data, "asr"),
        selected=tuple(client for client in ids(data, "selected") if client not in undecided),
        malicious=frozenset(ids(data, "malicious")) - undecided,
        refused=frozenset(ids(data, "refused")),
        reasons=texts(data, "reasons"),
        weights=numbers(data, "weights"),
        scores=numbers(data, "scores"),
        seconds=numbers(data, "seconds"),
        distilled=bool(number(mapping(data.get("diagnostics")), "distilled")),
    )
