"""MLflow's database as rows that any other database of its kind can take: read in one snapshot, written as a whole.

Values travel as JSON, so a SQLite file can be moved into PostgreSQL and back; the revision of the schema (alembic's)
travels with them, and rows are only ever written into a schema of that very revision, which is then brought to the one
that the installed MLflow wants. SQLite is copied aside first, so that nobody who writes waits for a slow destination;
PostgreSQL gives a repeatable read.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.api.reports import PACKAGE_SHA256_TAG, PACKAGE_URI_TAG
from headrace.base.errors import InvalidInput
from headrace.tracking import database_rows as rows
from headrace.tracking.connection import import_mlflow, sqlite_path, without_credentials
from headrace.tracking.database_connection import REVISION_TABLE, check_uri, opened, reflected, translated

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

PACKAGE_TAGS = (PACKAGE_URI_TAG, PACKAGE_SHA256_TAG)


@dataclass(frozen=True)
class Needed:
    """What a registered version needs of the stores: its package, and the folder of the model that MLflow serves."""

    name: str
    version: str
    package_uri: str | None
    package_sha256: str | None
    model_location: str | None


class Snapshot:
    """A database as it was at one moment."""

    def __init__(self, connection: Connection, metadata: MetaData, revision: str) -> None:
        self.revision = revision
        self.dialect = connection.dialect.name
        self._connection = connection
        self._tables = {table.name: table for table in metadata.sorted_tables if table.name != REVISION_TABLE}

    @property
    def tables(self) -> dict[str, list[str]]:
        """The columns of every table; those that the database computes itself are left out."""
        return {name: [column.name for column in rows.stored(table)] for name, table in self._tables.items()}

    def rows(self, table: str) -> Iterator[list[Any]]:
        """The rows of TABLE as JSON values, in the order of its columns; one piece of them is in memory."""
        from sqlalchemy import select

        query = select(*rows.stored(self._tables[table]))
        for row in self._connection.execution_options(yield_per=rows.PIECE).execute(query):
            yield [rows.encoded(value) for value in row]

    def count(self, table: str) -> int:
        """How many rows TABLE has."""
        from sqlalchemy import func, select

        return int(self._connection.execute(select(func.count()).select_from(self._tables[table])).scalar_one())

    def artifact_root(self) -> str | None:
        """Where experiments keep their files, as the first of them tells."""
        from sqlalchemy import select

        experiments = self._tables["experiments"]
        query = select(experiments.c.artifact_location).where(experiments.c.experiment_id == 0)
        return rows.root_of(self._connection.execute(query).scalar_one_or_none())

    def needed(self) -> list[Needed]:
        """What every registered version needs."""
        from sqlalchemy import select

        versions, models, tags = (self._tables[n] for n in ("model_versions", "logged_models", "model_version_tags"))
        found = self._connection.execute(select(models.c.model_id, models.c.artifact_location))
        locations = {f"models:/{model_id}": location for model_id, location in found}
        told: dict[tuple[str, str], dict[str, str]] = {}
        query = select(tags.c.name, tags.c.version, tags.c.key, tags.c.value).where(tags.c.key.in_(PACKAGE_TAGS))
        for name, version, key, value in self._connection.execute(query):
            told.setdefault((name, str(version)), {})[key] = value
        listed = self._connection.execute(select(versions.c.name, versions.c.version, versions.c.source))
        return [
            Needed(
                name,
                str(version),
                package_uri=told.get((name, str(version)), {}).get(PACKAGE_URI_TAG),
                package_sha256=told.get((name, str(version)), {}).get(PACKAGE_SHA256_TAG),
                model_location=locations.get(source or ""),
            )
            for name, version, source in listed
        ]


@contextmanager
def snapshot(uri: str) -> Iterator[Snapshot]:
    """The database at URI as it is now, for as long as the block takes.

    Raises:
        InvalidInput: URI is no database, or none of MLflow's.
        Unavailable: it cannot be reached.
    """
    dialect = check_uri(uri)
    import_mlflow()
    with translated(uri), ExitStack() as stack:
        if dialect == "sqlite":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-backup-")))
            uri = f"sqlite:///{_copied_aside(uri, folder / 'mlflow.db')}"
        engine = opened(uri)
        stack.callback(engine.dispose)
        connection = stack.enter_context(engine.connect())
        if dialect == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        metadata = reflected(connection)
        yield Snapshot(connection, metadata, _revision(connection, metadata, uri))


def _copied_aside(uri: str, target: Path) -> Path:
    path = sqlite_path(uri)
    assert path is not None
    if not path.exists():
        raise InvalidInput(f"there is no database {path}", action="headrace up makes it", code="database-absent")
    with (
        closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)
    return target


def _revision(connection: Connection, metadata: MetaData, uri: str) -> str:
    from sqlalchemy import select

    table = metadata.tables.get(REVISION_TABLE)
    found = None if table is None else connection.execute(select(table)).scalar_one_or_none()
    if found is None or "model_versions" not in metadata.tables:
        raise InvalidInput(
            f"{without_credentials(uri)} holds no tables of MLflow",
            action="name the database that the MLflow server uses (its --backend-store-uri)",
            code="database-unknown",
        )
    return str(found)
