"""What a database of MLflow's holds, so that none is written over that somebody uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.tracking import database_rows as rows
from headrace.tracking.connection import artifact_root, import_mlflow, sqlite_path
from headrace.tracking.database_connection import REVISION_TABLE, check_uri, engine_of, reflected, translated

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

# What a database that somebody uses has rows in; of experiments MLflow makes the first itself.
USED = ("runs", "registered_models", "logged_models", "trace_info", "evaluation_datasets")


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
    with translated(uri), engine_of(uri) as engine, engine.connect() as connection:
        found = contents_of(connection, reflected(connection))
    return found if path is None else Contents(found.revision, found.counts, artifact_root(uri))


def contents_of(connection: Connection, metadata: MetaData) -> Contents:
    """What is in the database behind CONNECTION, whose tables METADATA has."""
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
