"""Which MLflow this machine uses, and how it is reached.

It sets what MLflow reads from the environment before MLflow is imported (no telemetry, no uv detection, no endless
retries), creates the SQLite store under a lock, and turns MLflow's errors into ours. Importing MLflow and opening a
SQLite store take 4 s of one core: nothing here does either before it must.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.base.aws import tell_boto_the_region
from headrace.base.errors import HeadraceError, InvalidInput, MissingExtra, Unavailable
from headrace.base.home import home
from headrace.base.locks import file_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Set before MLflow is imported, where the user has not set them.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # MLflow phones home as it comes
    "DO_NOT_TRACK": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",  # else the caller's lock file and pyproject are taken along with a model
    "MLFLOW_LOG_UV_FILES": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # of a request to a server; MLflow's 7 take four minutes
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",  # seconds, doubled each time
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "ALEMBIC_LOGGING_LEVEL": "WARNING",
}
PROBE_SECONDS = 5.0  # how long a server may take to say that it is there
SERVER_ERROR = 500  # HTTP status from which on it is the server's fault
_USER = re.compile("[^:/]*(?::[^@]*)?@")  # as SQLAlchemy reads an address: a password may have a `?` or `/` in it


def own_folder() -> Path:
    """Where this machine's own MLflow store lies."""
    return home() / "mlflow"


def own_uri() -> str:
    """The tracking URI of this machine's own store."""
    return f"sqlite:///{own_folder() / 'mlflow.db'}"


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the SQLite store below home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or own_uri()


def registry_uri(uri: str) -> str:
    """The registry that belongs to the tracking URI: MLFLOW_REGISTRY_URI, or the same."""
    return os.environ.get("MLFLOW_REGISTRY_URI") or uri


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite tracking URI, None for any other."""
    prefix = "sqlite:///"
    return Path(uri[len(prefix) :].split("?")[0]).absolute() if uri.startswith(prefix) else None


def is_server(uri: str) -> bool:
    """Whether URI names an MLflow server."""
    return uri.startswith(("http://", "https://"))


def artifact_root(uri: str) -> str | None:
    """Where new experiments keep their artifacts: MLFLOW_DEFAULT_ARTIFACT_ROOT (as `s3://bucket/mlflow`), else beside a
    SQLite file; None lets a server decide."""
    database = sqlite_path(uri)
    if database is None:
        return None
    return os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", "").rstrip("/") or (database.parent / "artifacts").as_uri()


def without_credentials(uri: str) -> str:
    """URI as it may stand in a message: without user and password, also those that may follow a ?.

    `a:1/b?c@d` is shown as `***`: what is before the @ may be a password, or what is after it the end of one.
    """
    scheme, separator, rest = uri.partition("://")
    user = _USER.match(rest)
    if user is None:
        return f"{scheme}{separator}{rest.partition('?')[0]}"
    if "/" in user[0].rpartition("?")[0]:
        return f"{scheme}{separator}***"
    return f"{scheme}{separator}{rest[user.end() :].partition('?')[0].rsplit('@', 1)[-1]}"


def lock_path(name: str) -> Path:
    """The file of a lock between this machine's processes."""
    return home() / "locks" / name


def me() -> str:
    """This process as a lock's holder."""
    return f"process {os.getpid()}"


def require_mlflow() -> None:
    """Raise MissingExtra where MLflow is not installed; imports nothing."""
    if find_spec("mlflow") is None:
        raise MissingExtra("train", "tracking")


def import_mlflow() -> None:
    """Import MLflow with the environment it should see. Raises MissingExtra."""
    require_mlflow()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    tell_boto_the_region()
    import mlflow  # noqa: F401

    logging.getLogger("mlflow").setLevel(logging.WARNING)


def open_store(uri: str) -> None:
    """Make sure that the store at URI can be written.

    A SQLite store is created under a lock: MLflow fails when two processes do so at once. This machine's own is brought
    to this MLflow's schema as well; another's is its owner's to upgrade. A server is asked whether it is there, which
    takes less than importing MLflow.

    Raises:
        Unavailable: a server does not answer.
    """
    if is_server(uri):
        _probe(uri)
    elif (database := sqlite_path(uri)) is not None and not _is_current(database):
        with file_lock(lock_path("mlflow-store"), holder=f"{me()}, creating the MLflow store"):
            if not _is_current(database):
                _create_store(uri, database)


def _marker(database: Path) -> Path:
    return database.with_suffix(".version")


def mark_current(database: Path) -> None:
    """Write down that DATABASE has the schema of the MLflow that is installed now."""
    _marker(database).write_text(version("mlflow"), encoding="utf-8")


def _is_current(database: Path) -> bool:
    """Whether DATABASE was completed by the MLflow that is installed now; another's is what it is."""
    if database != sqlite_path(own_uri()):
        return database.exists()
    try:
        return database.exists() and _marker(database).read_text(encoding="utf-8") == version("mlflow")
    except (FileNotFoundError, PackageNotFoundError):
        return False


def _create_store(uri: str, database: Path) -> None:
    import_mlflow()
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with translated(uri):
        if database.exists():
            _upgrade(uri)
        else:
            _create(database, artifact_root(uri))
    database.chmod(0o600)
    if uri == own_uri():
        mark_current(database)


def _upgrade(uri: str) -> None:
    """Bring an older MLflow's store to this one's schema."""
    from mlflow.store.db.utils import _upgrade_db, create_sqlalchemy_engine_with_retry

    engine = create_sqlalchemy_engine_with_retry(uri)
    _upgrade_db(engine)
    engine.dispose()


def _create(database: Path, artifacts: str | None) -> None:
    """Make a store under another name and give it its own when it is whole.

    MLflow makes its schema by a hundred migrations, each waiting for the disk: 2 s without, up to a minute with a busy
    one. So nothing is synced until the end.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def hurry(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    unfinished = database.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    event.listen(Engine, "connect", hurry)
    try:
        SqlAlchemyStore(f"sqlite:///{unfinished}", artifacts).engine.dispose()
    finally:
        event.remove(Engine, "connect", hurry)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.replace(database)


def _probe(uri: str) -> None:
    import httpx

    try:
        answer = httpx.get(f"{uri.rstrip('/')}/health", timeout=PROBE_SECONDS, follow_redirects=True)
    except httpx.HTTPError as error:
        raise _unavailable(uri, str(error) or type(error).__name__) from error
    if answer.status_code >= SERVER_ERROR:
        raise _unavailable(uri, f"it answers {answer.status_code}")


def _unavailable(uri: str, why: str) -> Unavailable:
    return Unavailable(
        f"MLflow at {without_credentials(uri)} cannot be reached: {why}",
        action="start it, or correct MLFLOW_TRACKING_URI (unset: a store of this machine's own)",
        code="mlflow-unavailable",
    )


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn MLflow's and its transports' errors inside the block into ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except HeadraceError:
        raise
    except MlflowException as error:
        raise _translate(error, uri) from error
    except sqlite3.OperationalError as error:
        raise _unavailable(uri, str(error)) from error
    except Exception as error:
        told = _of_transport(error, uri)
        if told is None:
            raise
        raise told from error


def _of_transport(error: Exception, uri: str) -> HeadraceError | None:
    """What an error of MLflow's clients means: of requests the server's, of boto that of the artifacts' own place."""
    origin = type(error).__module__.split(".")[0]
    if origin == "requests" and isinstance(error, OSError):
        return _unavailable(uri, str(error))
    if origin not in ("boto3", "botocore"):
        return None
    from headrace.store.s3 import endpoint_of, s3_explanation

    endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL") or endpoint_of()
    return s3_explanation(error, "where MLflow keeps artifacts", endpoint)


def _translate(error: Exception, uri: str) -> HeadraceError:
    code = str(getattr(error, "error_code", ""))
    text = str(error).splitlines()[0] if str(error) else code
    down = ("API request to", "Max retries", "timed out", "Connection", "unable to open database file", "is locked")
    if code in {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "IO_ERROR"} or any(word in text for word in down):
        return _unavailable(uri, text)
    if code in {"UNAUTHENTICATED", "PERMISSION_DENIED"}:
        return InvalidInput(
            f"MLflow at {without_credentials(uri)} refuses the credentials: {text}",
            action="check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
            code="mlflow-refused",
        )
    return HeadraceError(f"MLflow: {text}", action=f"look at {without_credentials(uri)}", code="mlflow")


@cache
def client(uri: str) -> MlflowClient:
    """MLflow's client for URI, one a process, its store created if need be. Raises Unavailable."""
    open_store(uri)
    import_mlflow()
    from mlflow import MlflowClient

    with translated(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=registry_uri(uri))
