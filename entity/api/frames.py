"""Results as DataFrames of pandas, which is imported here, when one is asked for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from entity.config.schema import ConfigError
from entity.record.json_fields import ids, mapping, numbers
from entity.record.summary import MAIN_PHASES
from entity.results.tables import Table

if TYPE_CHECKING:
    from pandas import DataFrame

Line = Mapping[str, Any]


def of_rounds(lines: Sequence[Line], **beside: object) -> "DataFrame":
    """Return a row for each round.

    Its columns are `round`, `mta`, `asr` and whatever else was measured (shares of one, NaN where
    a round was not evaluated), the numbers of clients `n_selected`, `n_malicious`, `n_refused` and
    `n_malicious_refused`, the `seconds` of the round and of its phases (`seconds_train`, ...), and
    the clients themselves: `selected`, `malicious`, `accepted`, `refused`.

    Parameters
    ----------
    lines
        Of `rounds.jsonl`.
    beside
        Columns that stand before these, the same in all rows.

    Raises
    ------
    ConfigError
        If pandas is not installed.
    """
    return of_rows([{**beside, **row} for row in rows(lines)])


def rows(lines: Iterable[Line]) -> Iterator[dict[str, Any]]:
    """Yield the row of each round."""
    return map(_row, lines)


def of_table(table: Table) -> "DataFrame":
    """Return a table with the names and numbers that its CSV has.

    Raises
    ------
    ConfigError
        If pandas is not installed.
    """
    names, found = table.plain()
    return of_rows([dict(zip(names, cells, strict=True)) for cells in found], names)


def _row(line: Line) -> dict[str, Any]:
    malicious, refused = set(ids(line, "malicious")), set(ids(line, "refused"))
    seconds = numbers(line, "seconds")
    return {
        "round": line["round"],
        "mta": line.get("mta"),
        "asr": line.get("asr"),
        **mapping(line.get("metrics")),
        "n_selected": len(ids(line, "selected")),
        "n_malicious": len(malicious),
        "n_refused": len(refused),
        "n_malicious_refused": len(malicious & refused),
        "seconds": sum(seconds.get(phase, 0.0) for phase in MAIN_PHASES),
        **{f"seconds_{phase}": value for phase, value in seconds.items()},
        **{name: line.get(name, []) for name in ("selected", "malicious", "accepted", "refused")},
    }


def of_rows(found: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> "DataFrame":
    """Return rows as a DataFrame; None among numbers is NaN.

    Parameters
    ----------
    found
        The rows.
    columns
        Their names, for a frame that may have no row.

    Raises
    ------
    ConfigError
        If pandas is not installed.
    """
    try:
        from pandas import DataFrame, to_numeric
    except ImportError as error:
        raise ConfigError(
            "a DataFrame needs pandas, which is not installed: pip install -e '.[notebook]'."
        ) from error
    frame = DataFrame(list(found), columns=list(columns) or None)
    for name in frame.columns:
        if all(_is_number(value) for value in frame[name]):
            frame[name] = to_numeric(frame[name])
    return frame


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
