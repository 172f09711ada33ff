"""Rows of a backup into a database of MLflow's: all of them, in one transaction, or none.

A SQLite file is made beside the present one and takes its place when it is whole. In PostgreSQL everything happens in
one transaction, its schema included, so whoever is killed in the middle leaves what was there before.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.base.errors import InvalidInput
from headrace.base.locks import file_lock
from headrace.tracking import database_rows as rows
from headrace.tracking import database_schema as schema
from headrace.tracking.connection import (
    import_mlflow,
    lock_path,
    mark_current,
    me,
    own_uri,
    sqlite_path,
    without_credentials,
)
from headrace.tracking.database_connection import engine_of, reflected, translated
from headrace.tracking.database_contents import Contents, contents, contents_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

LOCK_SECONDS = 5.0  # for whoever has the file open to be done with it


@dataclass(frozen=True)
class Dump:
    """What is to be written: each table's columns and, when asked, its rows."""

    revision: str
    mlflow: str  # the version that wrote it
    columns: Mapping[str, Sequence[str]]
    rows: Callable[[str], Iterator[Sequence[Any]]]


def check_revision(dump: Dump) -> None:
    """Raise InvalidInput where the installed MLflow does not know the schema of DUMP."""
    import_mlflow()
    import mlflow
    from alembic.util.exc import CommandError

    try:
        schema.script().get_revision(dump.revision)
    except CommandError as error:
        raise InvalidInput(
            f"the backup is of MLflow {dump.mlflow} (schema {dump.revision}), which MLflow {mlflow.__version__} here "
            "does not know",
            action=f"restore with MLflow {dump.mlflow} or newer: pip install 'mlflow>={dump.mlflow}'",
            code="database-newer",
        ) from error


def load(uri: str, dump: Dump, *, expected: Contents, tell: Callable[[str], None]) -> dict[str, int]:
    """Make the database at URI hold exactly what DUMP has; rows written by table.

    Args:
        uri: SQLite or PostgreSQL.
        dump: what is to be in it.
        expected: what `contents` said; where somebody wrote since, nothing is done.
        tell: is told each table of many rows.

    Raises:
        InvalidInput: the schema is not known here, or the database has changed meanwhile.
        Unavailable: the database cannot be reached.
    """
    check_revision(dump)
    path = sqlite_path(uri)
    with translated(uri):
        if path is None:
            with engine_of(uri) as engine, engine.begin() as connection:
                return _replace(connection, dump, expected, uri, tell)
        with file_lock(lock_path("mlflow-store"), holder=f"{me()}, restoring the MLflow store"):
            return _replace_file(path, uri, dump, expected, tell)


def _replace_file(path: Path, uri: str, dump: Dump, expected: Contents, tell: Callable[[str], None]) -> dict[str, int]:
    if contents(uri).counts != expected.counts:
        raise _changed(uri)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_suffix(".restoring")
    unfinished.unlink(missing_ok=True)
    with engine_of(f"sqlite:///{unfinished}") as engine:
        with closing(engine.raw_connection()) as raw:
            raw.execute("PRAGMA synchronous = OFF")  # of this connection, which the pool keeps
        with engine.begin() as connection:
            written = _fill(connection, dump, tell)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.chmod(0o600)
    _complete(path)
    unfinished.replace(path)
    if uri == own_uri():
        mark_current(path)
    return written


def _complete(path: Path) -> None:
    """Bring into the SQLite file at PATH what lies beside it: it is whole then until the very moment it is replaced,
    and nothing is left over that SQLite would take for the new file's. Fails where somebody has it open."""
    if path.exists():
        with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")


def _replace(
    connection: Connection, dump: Dump, expected: Contents, uri: str, tell: Callable[[str], None]
) -> dict[str, int]:
    """In PostgreSQL, inside the transaction of CONNECTION."""
    from sqlalchemy import text

    metadata = reflected(connection)
    if expected.revision is not None:
        connection.execute(text("lock table experiments, runs, registered_models in access exclusive mode"))
    if contents_of(connection, metadata).counts != expected.counts:
        raise _changed(uri)
    if expected.revision == dump.revision == schema.head():
        _empty(connection, metadata, dump)
        written = _write(connection, metadata, dump, tell)
    else:
        metadata.drop_all(connection)
        written = _fill(connection, dump, tell)
    for table in reflected(connection).sorted_tables:
        rows.reset_sequences(connection, table)
    return written


def _fill(connection: Connection, dump: Dump, tell: Callable[[str], None]) -> dict[str, int]:
    """Make the schema of DUMP's time, write its rows, and bring both to what the installed MLflow wants."""
    from mlflow.store.tracking.dbmodels.initial_models import Base

    Base.metadata.create_all(connection)
    schema.upgrade(connection, dump.revision)
    metadata = reflected(connection)
    _empty(connection, metadata, dump)  # of what the migrations put there
    written = _write(connection, metadata, dump, tell)
    schema.upgrade(connection, schema.head())
    return written


def _empty(connection: Connection, metadata: MetaData, dump: Dump) -> None:
    for table in reversed(metadata.sorted_tables):
        if table.name in dump.columns:
            connection.execute(table.delete())


def _write(connection: Connection, metadata: MetaData, dump: Dump, tell: Callable[[str], None]) -> dict[str, int]:
    written: dict[str, int] = {}
    for table in metadata.sorted_tables:
        if table.name in dump.columns:
            written[table.name] = rows.write(connection, table, dump.columns[table.name], dump.rows(table.name))
            if written[table.name] > rows.PIECE:
                tell(f"{table.name}: {written[table.name]:,} rows")
    for name in set(dump.columns) - set(written):
        if next(dump.rows(name), None) is not None:
            tell(f"note: the table {name} is no part of MLflow's schema and was left out")
    return written


def _changed(uri: str) -> InvalidInput:
    return InvalidInput(
        f"somebody wrote to the database {without_credentials(uri)} meanwhile",
        action="stop what writes to MLflow (runs, schedules), and restore again",
        code="database-changed",
    )
