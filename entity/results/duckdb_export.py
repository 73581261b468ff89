"""Results in DuckDB, for SQL and for Parquet: the extra `store`.

DuckDB rather than Polars: it has all of SQL, where Polars has a part, and writes Parquet without
another package. Nothing else that `drop results` does needs it.
"""

import importlib
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

from entity.config.full_disk import DiskFull, is_full, reason
from entity.config.schema import ConfigError
from entity.record.atomic import CannotWrite
from entity.results.tables import Column, Table


class BadQuery(ConfigError):
    """A query that DuckDB cannot answer, in its words."""


class NoDuckDB(ConfigError):
    """DuckDB is not installed."""

    def __init__(self) -> None:
        super().__init__("DuckDB is not installed; `pip install -e '.[store]'` brings it.")


def query(table: Table, sql: str) -> Table:
    """Ask the table, which SQL knows as `runs`.

    Raises
    ------
    BadQuery
        If DuckDB cannot answer it.
    NoDuckDB
        If DuckDB is not installed.
    """
    duckdb = _duckdb()
    with duckdb.connect(":memory:") as connection:
        try:
            _fill(connection, table)
            answer = connection.execute(sql)
            columns = tuple(Column(str(item[0])) for item in answer.description or ())
            rows = answer.fetchall() if columns else []
        except duckdb.Error as error:
            raise BadQuery(" ".join(str(error).split())) from error
    return Table(columns, tuple(tuple(map(_simple, row)) for row in rows))


def write_parquet(table: Table, path: Path) -> None:
    """Write a table as Parquet, atomically.

    Raises
    ------
    CannotWrite
        If the file cannot be written.
    NoDuckDB
        If DuckDB is not installed.
    """
    duckdb = _duckdb()
    part = path.with_name(path.name + ".part")
    with duckdb.connect(":memory:") as connection:
        target = str(part).replace("'", "''")
        try:
            _fill(connection, table)
            connection.execute(f"COPY runs TO '{target}' (FORMAT PARQUET)")
            os.replace(part, path)
        except (duckdb.Error, OSError) as error:
            part.unlink(missing_ok=True)
            if is_full(error):
                raise DiskFull(path, reason(error)) from error
            raise CannotWrite(path, reason(error)) from error


def _duckdb() -> Any:
    try:
        return importlib.import_module("duckdb")
    except ImportError as error:
        raise NoDuckDB from error


def _simple(cell: Any) -> Any:
    return float(cell) if isinstance(cell, Decimal) else cell


def _fill(connection: Any, table: Table) -> None:
    names, rows = table.plain()
    kinds = [_kind([row[place] for row in rows]) for place in range(len(names))]
    columns = [f"{name} {kind}" for name, kind in zip(_quoted(names), kinds, strict=True)]
    connection.execute(f"CREATE TABLE runs ({', '.join(columns)})")
    fitting = [
        [_fitting(cell, kind) for cell, kind in zip(row, kinds, strict=True)] for row in rows
    ]
    if fitting:  # DuckDB refuses an empty list
        places = ", ".join("?" * len(names))
        connection.executemany(f"INSERT INTO runs VALUES ({places})", fitting)


def _kind(cells: list[Any]) -> str:
    """Return the narrowest of DuckDB's types that holds a column; a number where it is empty."""
    found = {type(cell) for cell in cells if cell is not None}
    if any(type(cell) is int and abs(cell) >= 1 << 63 for cell in cells):
        return "VARCHAR"
    options = (("DOUBLE", set[type]()), ("BOOLEAN", {bool}), ("BIGINT", {int}))
    for kind, types in (*options, ("DOUBLE", {int, float})):
        if found <= types:
            return kind
    return "VARCHAR"


def _fitting(cell: Any, kind: str) -> Any:
    if cell is None or kind != "VARCHAR":
        return cell
    return str(cell).lower() if isinstance(cell, bool) else str(cell)


def _quoted(names: list[str]) -> list[str]:
    """Quote names, and tell apart those that differ by case alone, which DuckDB does not."""
    used: set[str] = set()
    quoted: list[str] = []
    for name in names:
        while name.lower() in used:
            name += "_"
        used.add(name.lower())
        quoted.append('"' + name.replace('"', '""') + '"')
    return quoted
