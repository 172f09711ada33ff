"""Rows of a database as JSON values, and back into whatever type a column has in the database that takes them."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection, Table

PIECE = 1000  # rows in memory at once


def stored(table: Table) -> list[Column[Any]]:
    """The columns of TABLE that hold something, which are not computed by the database."""
    return [column for column in table.columns if column.computed is None]


def encoded(value: Any) -> Any:
    """VALUE as JSON has it: bytes as base64, times as ISO 8601. What it was, the column that takes it knows."""
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else value


def decoded(column: Column[Any], value: Any) -> Any:
    """The inverse of `encoded`, for COLUMN."""
    from sqlalchemy import types

    if value is None:
        return None
    if isinstance(column.type, types.LargeBinary):
        return base64.b64decode(value)
    for kind, read in ((types.DateTime, datetime.datetime), (types.Date, datetime.date), (types.Time, datetime.time)):
        if isinstance(column.type, kind):
            return read.fromisoformat(value)
    return bool(value) if isinstance(column.type, types.Boolean) else value


def write(connection: Connection, table: Table, names: Sequence[str], rows: Iterator[Sequence[Any]]) -> int:
    """Insert ROWS, whose values are in the order of the columns NAMES, into TABLE; how many there were."""
    from sqlalchemy import types

    columns = [table.columns[name] for name in names]
    for column in columns:
        if isinstance(column.type, types.JSON):
            column.type.none_as_null = True  # else an absent value would become JSON's null
    written = 0
    while piece := [row for _, row in zip(range(PIECE), rows, strict=False)]:
        values = [{c.name: decoded(c, value) for c, value in zip(columns, row, strict=True)} for row in piece]
        connection.execute(table.insert(), values)
        written += len(piece)
    return written


def reset_sequences(connection: Connection, table: Table) -> None:
    """Let PostgreSQL's counters go on after the ids that were written."""
    from sqlalchemy import func, select, text

    for column in table.columns:
        sequence = connection.execute(
            text("select pg_get_serial_sequence(:name, :column)"),
            {"name": f'"{table.name}"', "column": column.name},
        ).scalar_one()
        if sequence is not None:
            highest = connection.execute(select(func.max(column))).scalar_one()
            connection.execute(
                text("select setval(cast(:sequence as regclass), :value, :used)"),
                {"sequence": sequence, "value": max(highest or 1, 1), "used": bool(highest)},
            )


def root_of(location: str | None) -> str | None:
    """Where experiments keep their files, from the LOCATION of the first, which is `<root>/0`."""
    return location.removesuffix("/0") if location is not None and location.endswith("/0") else None
