"""`entity.run`: one experiment with its progress, and a result that a notebook can show.

entity.run("mnist5k/drop", rounds=20, DPR=0.25, seed=3)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from entity import experiment
from entity.api import frames, html, plots
from entity.api.progress import Display
from entity.config.fields import ExperimentConfig
from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.engine.main_module import refuse_second_start
from entity.experiment import OnRound
from entity.reading import parse_json
from entity.record.directory import read_summary
from entity.record.json_fields import mapping, number
from entity.record.rounds import of_a_run, whole_lines
from entity.report.runs import RunRecord, of_memory, read_run
from entity.results.formatting import compact_percent
from entity.setup import resolve
from entity.setup.load import load, overrides
from entity.setup.resume import recorded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class Result(experiment.Result):
    """The outcome of an experiment: its config, rounds, summary and final model.

    Of a run that is opened, `config` is read when it is asked for: that loads the plugins and the
    model's module which the folder names, and with them runs their code. Nothing else does.

    In a notebook it shows a small table and the curves.
    """

    def frame(self) -> "DataFrame":
        """Return a row for each round; see `entity.api.frames.of_rounds` for the columns.

        Raises
        ------
        ConfigError
            If pandas is not installed.
        """
        return frames.of_rounds(self.rounds)

    def plot(self, *figures: str, titles: Mapping[str, str] | None = None) -> "dict[str, Axes]":
        """Draw figures of the report, and return their axes by name.

        Parameters
        ----------
        figures
            Some of `mta`, `asr` and `roc`; none for all that there is data for.
        titles
            What methods are called, such as `{"drop": "DROP (ours)"}`; others as published.

        Raises
        ------
        ConfigError
            For another name, for one without data, and without matplotlib.
        """
        return plots.plot([self.record()], figures, titles)

    def record(self) -> RunRecord:
        """Return what `entity.report` stands on."""
        if self.folder is not None:
            return read_run(self.folder)
        return of_memory(resolve.to_json(self.config), self.rounds, self.summary)

    def _repr_html_(self) -> str:
        headings = (
            "run",
            "MTA",
            "ASR",
            "worst ASR",
            "refused",
            "of attackers",
            "of honest",
            "seconds",
        )
        return html.table(headings, [row_of(self)]) + html.curves(self.rounds)


def row_of(result: experiment.Result) -> list[str]:
    """Return what a run came to, as texts, for the table of a notebook."""
    summary = result.summary
    detection = mapping(summary.get("detection"))
    shares = (
        number(mapping(summary.get("mta")), "last10"),
        number(mapping(summary.get("asr")), "last10"),
        number(mapping(summary.get("consistency")), "worst_asr"),
    )
    judged = (number(detection, "tpr"), number(detection, "fpr"))
    return [
        result.name,
        *map(compact_percent, shares),
        str(summary.get("refusals", "-")),
        *map(compact_percent, judged),
        f"{number(mapping(summary.get('seconds')), 'total') or 0:.1f}",
    ]


def run(
    config: ExperimentConfig | Mapping[str, Any] | str | Path | None,
    folder: Path | str | None = None,
    *,
    on_round: OnRound | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = True,
    **fields: Any,
) -> Result:
    """Run one experiment.

    Parameters
    ----------
    config
        The name of a shipped configuration such as `mnist5k/drop`, a file, tables of fields, or
        an experiment that `entity.load` returned. None with `resume`: the run's own.
    folder
        Run directory to write; None keeps the record in memory.
    on_round
        Called with the line of every finished round.
    overwrite
        Replace a run that the folder already holds.
    resume
        Go on with the run that the folder holds, from its last checkpoint, and end as if it had
        never been stopped. Of the fields, runtime settings and a larger number of rounds may be
        given. A finished run is only read.
    progress
        Show a bar in a terminal or notebook, and a line a round on standard error elsewhere.
    fields
        Fields to change, by name as on the command line: `rounds=20, DPR=0.25, seed=3,
        defense="flame"`. A dotted name is given as `**{"client.lr": 0.1}`.

    Returns
    -------
    Result
        With `summary`, `rounds`, `state`, and `frame()`, `plot()`.

    Raises
    ------
    ConfigError
        There is no such configuration or field, a value is not allowed, the data is missing, or
        the folder cannot be used. Nothing is left behind then.
    CannotGoOn
        If the disk is full, or all workers died; the run can go on with `resume`.

    """
    refuse_second_start()
    config = _experiment(config, folder, resume, fields)
    quiet = not progress or not config.settings.verbose
    title = config.name or config.server.defense.type
    with _shown(title, config.federation.rounds, quiet) as display:

        def told(line: Mapping[str, Any]) -> None:
            display(line)
            if on_round is not None:
                on_round(line)

        result = experiment.run(config, folder, on_round=told, overwrite=overwrite, resume=resume)
    return as_shown(result)


def _experiment(
    config: ExperimentConfig | Mapping[str, Any] | str | Path | None,
    folder: Path | str | None,
    resume: bool,
    given: Mapping[str, Any],
) -> ExperimentConfig:
    if config is not None:
        return load(config, **given)
    if not resume or folder is None:
        raise ConfigError(
            "config = None: allowed only with resume, which goes on with the run of a folder."
        )
    return recorded(folder, overrides(given))


def _shown(title: str, rounds: int, quiet: bool) -> Display:
    console = Console(stderr=True, emoji=False, markup=False)
    return Display(console, title, rounds, quiet=quiet)


def as_shown(result: experiment.Result) -> Result:
    """Return a result that a notebook can show."""
    return Result(*(getattr(result, each.name) for each in fields_of(experiment.Result)))


def open_run(folder: Path | str) -> Result:
    """Read a run directory, finished or not.

    Raises
    ------
    ConfigError
        If the folder holds no run. `config` of the result, if that is none of this version.
    """
    return _Opened(user_path(folder))


class _Opened(Result):
    """A run of a folder."""

    def __init__(self, folder: Path) -> None:
        record = read_run(folder)
        lines = [mapping(parse_json(line)) for line in whole_lines(folder, of_a_run)]
        known = {"folder": folder, "rounds": lines, "summary": read_summary(folder), "state": None}
        vars(self).update(known, _record=record)

    def __getattr__(self, name: str) -> Any:
        if name != "config":  # only what is not there yet is asked for here
            raise AttributeError(name)
        vars(self)["config"] = config = resolve.experiment(self._record.config)
        return config

    @property
    def name(self) -> str:
        """What the run is called."""
        return self._record.name


__all__ = ["Result", "as_shown", "open_run", "row_of", "run"]
