"""The schema of MLflow's database at any of its revisions, made inside a transaction of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection


def script() -> Any:
    """MLflow's migrations."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    return ScriptDirectory.from_config(_get_alembic_config("sqlite://"))


def head() -> str:
    """The schema that the installed MLflow wants."""
    return str(script().get_current_head())


def upgrade(connection: Connection, revision: str) -> None:
    """Bring the schema to REVISION inside CONNECTION's transaction (MLflow's own way opens another connection)."""
    from alembic.runtime.environment import EnvironmentContext
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.db.utils import _get_alembic_config

    migrations = script()

    def steps(present: Any, _: Any) -> Any:
        return migrations._upgrade_revs(revision, present)

    with EnvironmentContext(
        _get_alembic_config("sqlite://"), migrations, fn=steps, destination_rev=revision
    ) as context:
        context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()
