"""Rows of a backup into a database of MLflow's: all of them, in one transaction, or none.

A SQLite file is made beside the present one and takes its place when it is whole. In PostgreSQL everything happens in
one transaction, its schema included, so whoever is killed in the middle leaves what was there before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.base.errors import InvalidInput
from headrace.base.locks import file_lock
from headrace.tracking import database_rows as rows
from headrace.tracking.connection import (
    artifact_root,
    import_mlflow,
    lock_path,
    mark_current,
    me,
    own_uri,
    sqlite_path,
    without_credentials,
)
from headrace.tracking.database import REVISION_TABLE, check_uri, opened, reflected, translated

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData

# What a database that somebody uses has rows in; of experiments MLflow makes the first itself.
USED = ("runs", "registered_models", "logged_models", "trace_info", "evaluation_datasets")


@dataclass(frozen=True)
class Dump:
    """What is to be written: each table's columns and, when asked, its rows."""

    revision: str
    mlflow: str  # the version that wrote it
    columns: Mapping[str, Sequence[str]]
    rows: Callable[[str], Iterator[Sequence[Any]]]


@dataclass(frozen=True)
class Contents:
    """What a database holds; `revision` is None where it holds no tables of MLflow's."""

    revision: str | None
    counts: Mapping[str, int]
    artifact_root: str | None

    @property
    def used(self) -> dict[str, int]:
        """The tables that have rows of somebody's."""
        return {name: count for name, count in self.counts.items() if count}


def contents(uri: str) -> Contents:
    """What is in the database at URI. Makes nothing. Raises InvalidInput, Unavailable."""
    check_uri(uri)
    import_mlflow()
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return Contents(None, {}, artifact_root(uri))
    with translated(uri), _engine(uri) as engine, engine.connect() as connection:
        found = _contents(connection, reflected(connection))
    return found if path is None else Contents(found.revision, found.counts, artifact_root(uri))


@contextmanager
def _engine(uri: str) -> Iterator[Engine]:
    engine = opened(uri)
    try:
        yield engine
    finally:
        engine.dispose()


def _contents(connection: Connection, metadata: MetaData) -> Contents:
    from sqlalchemy import func, select

    tables = metadata.tables
    if REVISION_TABLE not in tables or "experiments" not in tables:
        return Contents(None, {}, None)
    counts = {
        name: int(connection.execute(select(func.count()).select_from(tables[name])).scalar_one())
        for name in USED
        if name in tables
    }
    experiments = tables["experiments"]
    own = select(func.count()).select_from(experiments).where(experiments.c.experiment_id != 0)
    counts["experiments"] = int(connection.execute(own).scalar_one())
    first = select(experiments.c.artifact_location).where(experiments.c.experiment_id == 0)
    root = rows.root_of(connection.execute(first).scalar_one_or_none())
    revision = connection.execute(select(tables[REVISION_TABLE])).scalar_one_or_none()
    return Contents(revision, counts, root)


def check_revision(dump: Dump) -> None:
    """Raise InvalidInput where the installed MLflow does not know the schema of DUMP."""
    import_mlflow()
    import mlflow
    from alembic.util.exc import CommandError

    try:
        _script().get_revision(dump.revision)
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
            with _engine(uri) as engine, engine.begin() as connection:
                return _replace(connection, dump, expected, uri, tell)
        with file_lock(lock_path("mlflow-store"), holder=f"{me()}, restoring the MLflow store"):
            return _replace_file(path, uri, dump, expected, tell)


def _replace_file(path: Path, uri: str, dump: Dump, expected: Contents, tell: Callable[[str], None]) -> dict[str, int]:
    if contents(uri).counts != expected.counts:
        raise _changed(uri)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_suffix(".restoring")
    unfinished.unlink(missing_ok=True)
    with _engine(f"sqlite:///{unfinished}") as engine:
        with closing(engine.raw_connection()) as raw:
            raw.execute("PRAGMA synchronous = OFF")  # of this connection, which the pool keeps
        with engine.begin() as connection:
            written = _fill(connection, dump, tell)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.chmod(0o600)
    for suffix in ("-wal", "-shm", "-journal"):  # of the file that goes
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    unfinished.replace(path)
    if uri == own_uri():
        mark_current(path)
    return written


def _replace(
    connection: Connection, dump: Dump, expected: Contents, uri: str, tell: Callable[[str], None]
) -> dict[str, int]:
    """In PostgreSQL, inside the transaction of CONNECTION."""
    from sqlalchemy import text

    metadata = reflected(connection)
    if expected.revision is not None:
        connection.execute(text("lock table experiments, runs, registered_models in access exclusive mode"))
    if _contents(connection, metadata).counts != expected.counts:
        raise _changed(uri)
    if expected.revision == dump.revision == _head():
        _empty(connection, metadata, dump)
        written = _write(connection, metadata, dump, tell)
    else:
        _drop(connection, metadata)
        written = _fill(connection, dump, tell)
    for table in reflected(connection).sorted_tables:
        rows.reset_sequences(connection, table)
    return written


def _fill(connection: Connection, dump: Dump, tell: Callable[[str], None]) -> dict[str, int]:
    """Make the schema of DUMP's time, write its rows, and bring both to what the installed MLflow wants."""
    from mlflow.store.tracking.dbmodels.initial_models import Base

    Base.metadata.create_all(connection)
    _upgrade(connection, dump.revision)
    metadata = reflected(connection)
    _empty(connection, metadata, dump)  # of what the migrations put there
    written = _write(connection, metadata, dump, tell)
    _upgrade(connection, _head())
    return written


def _empty(connection: Connection, metadata: MetaData, dump: Dump) -> None:
    for table in reversed(metadata.sorted_tables):
        if table.name in dump.columns:
            connection.execute(table.delete())


def _drop(connection: Connection, metadata: MetaData) -> None:
    """Drop MLflow's tables, and those only."""
    from mlflow.store.db.base_sql_model import Base

    names = {*Base.metadata.tables, REVISION_TABLE}
    metadata.drop_all(connection, [table for table in metadata.sorted_tables if table.name in names])


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


def _script() -> Any:
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    return ScriptDirectory.from_config(_get_alembic_config("sqlite://"))


def _head() -> str:
    return str(_script().get_current_head())


def _upgrade(connection: Connection, revision: str) -> None:
    """Bring the schema to REVISION inside CONNECTION's transaction (MLflow's own way opens another connection)."""
    from alembic.runtime.environment import EnvironmentContext
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.db.utils import _get_alembic_config

    script = _script()

    def steps(present: Any, _: Any) -> Any:
        return script._upgrade_revs(revision, present)

    with EnvironmentContext(_get_alembic_config("sqlite://"), script, fn=steps, destination_rev=revision) as context:
        context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()


def _changed(uri: str) -> InvalidInput:
    return InvalidInput(
        f"somebody wrote to the database {without_credentials(uri)} meanwhile",
        action="stop what writes to MLflow (runs, schedules), and restore again",
        code="database-changed",
    )
