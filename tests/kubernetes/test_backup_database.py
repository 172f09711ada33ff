"""MLflow's database from SQLite into PostgreSQL and back, from older schemas, and never by half."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from mlflow.entities import Metric
from mlflow.store.db.utils import _get_alembic_config

from headrace.base.errors import InvalidInput, Unavailable
from headrace.tracking.connection import client
from headrace.tracking.database import snapshot
from headrace.tracking.database_contents import Contents, contents
from headrace.tracking.database_load import Dump, load
from headrace_testbed.postgres import Postgres

Rows = dict[str, list[list[Any]]]
Database = Callable[[], str]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="hrpg", dir="/tmp") as folder, Postgres(Path(folder)) as server:
        yield server


@pytest.fixture
def empty(postgres: Postgres, request: pytest.FixtureRequest) -> str:
    """A database of this test's own, without a table."""
    name = f"d{abs(hash(request.node.name)) % 10**9}"
    postgres.run("createdb", "--maintenance-db", postgres.url_of("postgres"), name)
    return postgres.url_of(name).replace("postgresql://", "postgresql+psycopg2://")


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite database with what is hard to carry: infinities, no numbers, long and strange texts, JSON, booleans."""
    place = tmp_path_factory.mktemp("sqlite")
    uri = f"sqlite:///{place / 'mlflow.db'}"
    mlflow = client(uri)
    experiment = mlflow.create_experiment("houses", artifact_location=(place / "artifacts").as_uri())
    run = mlflow.create_run(experiment, tags={"headrace.run_id": "houses-abcdefgh", "strange": "ü\n'\"%\\ 日本"})
    values = [float(step) for step in range(1500)] + [float("nan"), float("inf"), float("-inf"), 1e-300]
    mlflow.log_batch(run.info.run_id, metrics=[Metric("loss", v, 1, n) for n, v in enumerate(values[:1000])])
    mlflow.log_batch(run.info.run_id, metrics=[Metric("loss", v, 1, n + 1000) for n, v in enumerate(values[1000:])])
    mlflow.create_registered_model("houses", description="x" * 4000)
    version = mlflow.create_model_version("houses", source="s3://b/x", run_id=run.info.run_id)
    mlflow.set_registered_model_alias("houses", "champion", version.version)
    mlflow.delete_experiment(mlflow.create_experiment("gone"))
    engine = sa.create_engine(uri)
    with engine.begin() as connection:  # tables that Headrace does not use, with types of every kind
        connection.execute(
            sa.text(
                "insert into secrets (secret_id, secret_name, encrypted_value, wrapped_dek, kek_version, masked_value,"
                " created_at, last_updated_at, workspace) values ('s', 'n', :b, :b, 1, 'm', 1, 1, 'default')"
            ),
            {"b": bytes(range(256))},
        )
        day = "insert into sql_span_cost_daily_rollups (experiment_id, rollup_day, metric_name, grouping_set,"
        rest = " model_name, model_provider, sample_count) values (1, '2026-11-26', 'm', 'g', 'a', 'b', 1)"
        connection.execute(sa.text(day + rest))
    engine.dispose()
    return uri


def taken(uri: str) -> tuple[Dump, Rows]:
    """Everything in the database at URI."""
    with snapshot(uri) as database:
        rows = {table: list(database.rows(table)) for table in database.tables}
        return Dump(database.revision, "3", database.tables, lambda table: iter(rows[table])), rows


def given(dump: Dump, uri: str) -> dict[str, int]:
    return load(uri, dump, expected=contents(uri), tell=lambda _: None)


def same(one: Rows, other: Rows) -> bool:
    assert one.keys() == other.keys()
    return all(sorted(map(repr, one[table])) == sorted(map(repr, other[table])) for table in one)


def test_every_row_goes_to_postgresql_and_back_unchanged(sqlite: str, empty: str, tmp_path: Path) -> None:
    dump, rows = taken(sqlite)
    assert given(dump, empty)["metrics"] == 1504
    there, in_postgres = taken(empty)
    assert same(rows, in_postgres)
    back = f"sqlite:///{tmp_path / 'mlflow.db'}"
    given(there, back)
    assert same(rows, taken(back)[1])


def test_mlflow_goes_on_with_what_was_written(sqlite: str, empty: str) -> None:
    given(taken(sqlite)[0], empty)
    mlflow = client(empty)
    assert mlflow.get_model_version_by_alias("houses", "champion").version == 1
    assert mlflow.create_experiment("new", "s3://b/3") == "3"  # after 0, 1 and the deleted 2
    assert mlflow.get_experiment_by_name("gone").lifecycle_stage == "deleted"


def test_a_database_in_use_is_replaced_as_a_whole(sqlite: str, empty: str) -> None:
    client(empty).create_experiment("somebody's", "s3://b/1")
    given(taken(sqlite)[0], empty)
    assert same(taken(sqlite)[1], taken(empty)[1])


def test_a_backup_of_an_older_mlflow_is_brought_to_this_ones_schema(sqlite: str, empty: str) -> None:
    """Only rows that an older schema had: of its tables, one without a column that came later."""
    from alembic.script import ScriptDirectory

    dump, rows = taken(sqlite)
    script = ScriptDirectory.from_config(_get_alembic_config("sqlite://"))
    revisions = [step.revision for step in script.walk_revisions()]
    assert revisions[0] == dump.revision
    older_revision = revisions[3]
    columns = columns_at(older_revision)
    shared = {table: [c for c in names if c in columns.get(table, ())] for table, names in dump.columns.items()}
    shared = {table: names for table, names in shared.items() if table in columns and names}

    def cut(table: str) -> Iterator[Sequence[Any]]:
        places = [dump.columns[table].index(name) for name in shared[table]]
        return iter([[row[place] for place in places] for row in rows[table]])

    given(Dump(older_revision, "2", shared, cut), empty)
    assert contents(empty).revision == dump.revision
    assert len(taken(empty)[1]["metrics"]) == 1504
    assert client(empty).get_model_version("houses", "1").source == "s3://b/x"


def columns_at(revision: str) -> dict[str, list[str]]:
    """The columns of every table at REVISION."""
    from mlflow.store.tracking.dbmodels.initial_models import Base

    from headrace.tracking import database_schema

    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        database_schema.upgrade(connection, revision)
        metadata = sa.MetaData()
        metadata.reflect(connection)
    return {table.name: [column.name for column in table.columns] for table in metadata.sorted_tables}


def test_a_schema_that_this_mlflow_does_not_know_is_refused_before_anything_changes(sqlite: str, empty: str) -> None:
    dump = replace(taken(sqlite)[0], revision="ffffffffffff", mlflow="9.9.0")
    with pytest.raises(InvalidInput, match=r"MLflow 9\.9\.0 .* does not know") as refused:
        given(dump, empty)
    assert "mlflow>=9.9.0" in refused.value.action
    assert contents(empty) == Contents(None, {}, None)


def test_what_fails_in_the_middle_leaves_what_was_there(sqlite: str, empty: str) -> None:
    client(empty).create_experiment("somebody's", "s3://b/1")
    before = taken(empty)[1]
    dump, rows = taken(sqlite)

    def broken(table: str) -> Iterator[Sequence[Any]]:
        yield from rows[table]
        if table == "metrics":
            raise OSError("the destination went away")

    with pytest.raises(OSError, match="went away"):
        given(replace(dump, rows=broken), empty)
    assert same(before, taken(empty)[1])


def test_who_writes_meanwhile_is_noticed(sqlite: str, empty: str) -> None:
    client(empty)
    expected = contents(empty)
    client(empty).create_experiment("somebody's", "s3://b/1")
    with pytest.raises(InvalidInput, match="wrote to the database"):
        load(empty, taken(sqlite)[0], expected=expected, tell=lambda _: None)


def test_a_snapshot_stays_as_it_was_while_others_write(empty: str) -> None:
    mlflow = client(empty)
    with snapshot(empty) as database:
        before = database.count("experiments")
        mlflow.create_experiment("later", "s3://b/1")
        assert database.count("experiments") == before == 1
        assert len(list(database.rows("experiments"))) == 1
    with snapshot(empty) as database:
        assert database.count("experiments") == 2


OTHERS = ("users", "role_permissions", "somebody_else")  # of MLflow's logins, and of another program


@pytest.mark.parametrize("ready", [True, False], ids=["of this schema", "of an older schema"])
def test_tables_that_are_not_mlflows_are_neither_read_nor_written(sqlite: str, empty: str, ready: bool) -> None:
    client(empty)
    engine = sa.create_engine(empty)
    with engine.begin() as connection:
        for table in OTHERS:
            connection.execute(sa.text(f"create table {table} (id serial primary key, password_hash text)"))
            connection.execute(sa.text(f"insert into {table} (password_hash) values ('hash')"))
        if not ready:
            connection.execute(sa.text("update alembic_version set version_num = '867495a8f9d4'"))
    dump, _ = taken(sqlite)
    with snapshot(empty) as database:
        assert not set(OTHERS) & set(database.tables)
    given(replace(dump, columns={**dump.columns, "users": ["id"]}, rows=without(dump, "users")), empty)
    with engine.connect() as connection:
        for table in OTHERS:
            assert connection.execute(sa.text(f"select password_hash from {table}")).scalars().all() == ["hash"]
    engine.dispose()
    assert len(taken(empty)[1]["metrics"]) == 1504


def without(dump: Dump, left_out: str) -> Callable[[str], Iterator[Sequence[Any]]]:
    """The rows of DUMP, with a row of a table that an older Headrace has taken along."""
    return lambda table: iter([[7]]) if table == left_out else dump.rows(table)


def test_a_sqlite_file_that_somebody_has_open_is_not_replaced_under_him(sqlite: str, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    uri = f"sqlite:///{path}"
    client(uri).create_experiment("first")
    dump, log = taken(sqlite)[0], path.with_name("mlflow.db-wal")
    with closing(sqlite3.connect(path)) as somebody:  # part of what is in it is in its log
        somebody.execute("pragma journal_mode = wal")
        somebody.execute("update experiments set name = 'in the log' where name = 'first'")
        somebody.commit()
        with pytest.raises(Unavailable, match="locked"):
            given(dump, uri)
        assert log.exists()
        assert somebody.execute("select name from experiments where experiment_id = 1").fetchone() == ("in the log",)
    assert given(dump, uri)["metrics"] == 1504
    assert not log.exists()
    assert same(taken(sqlite)[1], taken(uri)[1])
