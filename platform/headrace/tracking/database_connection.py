"""Which databases of MLflow's can be copied, how they are opened, and what their errors mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headrace.base.errors import InvalidInput, MissingExtra, Unavailable
from headrace.tracking.connection import sqlite_path, without_credentials

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData

REVISION_TABLE = "alembic_version"
DIALECTS = ("sqlite", "postgresql")


def check_uri(uri: str) -> str:
    """The dialect of a database that can be backed up. Raises InvalidInput for any other."""
    dialect = uri.partition(":")[0].partition("+")[0]
    if dialect not in DIALECTS or (dialect == "sqlite" and sqlite_path(uri) is None):
        raise InvalidInput(
            f"{without_credentials(uri)} is no database of MLflow that Headrace can copy",
            action="name it as sqlite:////absolute/path or postgresql://USER:PASSWORD@HOST/NAME, in "
            "MLFLOW_BACKEND_STORE_URI; an MLflow server's address is not its database's",
            code="database-unknown",
        )
    return dialect


def opened(uri: str) -> Engine:
    """An engine for URI. Raises MissingExtra where the database's driver is not installed."""
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url

    url = make_url(uri)
    if url.drivername == "postgresql":  # SQLAlchemy's own choice changed with 2.1; ours is what the extra brings
        url = url.set(drivername="postgresql+psycopg2")
    try:
        return create_engine(url)
    except ModuleNotFoundError as error:
        raise MissingExtra("mlflow-server", f"a database at {without_credentials(uri)}") from error


@contextmanager
def engine_of(uri: str) -> Iterator[Engine]:
    """An engine for URI, for the length of a block."""
    engine = opened(uri)
    try:
        yield engine
    finally:
        engine.dispose()


def reflected(connection: Connection) -> MetaData:
    """The tables of MLflow's that are there. Others (its logins, somebody else's) may share the database, and are
    neither read nor written."""
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.model_registry import sqlalchemy_store as _registry  # noqa: F401  (each names its tables)
    from mlflow.store.tracking import sqlalchemy_store as _tracking  # noqa: F401
    from sqlalchemy import MetaData

    names = {*Base.metadata.tables, REVISION_TABLE}
    metadata = MetaData()
    metadata.reflect(connection, only=lambda name, _: name in names)
    return metadata


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn the database's errors inside the block into ours."""
    from sqlalchemy import exc

    shown = without_credentials(uri)
    try:
        yield
    except (exc.OperationalError, sqlite3.OperationalError) as error:
        raise Unavailable(
            f"the database {shown} cannot be used: {_first_line(error)}",
            action="check that it is up, its address and its password",
            code="database-unavailable",
        ) from error
    except exc.DBAPIError as error:
        raise InvalidInput(
            f"the database {shown} refuses: {_first_line(error)}",
            action="nothing was changed in it; check what its user may do, and that its tables are MLflow's",
            code="database-refused",
        ) from error


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
