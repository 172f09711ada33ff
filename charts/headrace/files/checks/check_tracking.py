"""`helm test`: MLflow answers by its Service's name and writes to its database; the store takes, gives and deletes.

What it writes it deletes again.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

NAME = f"headrace-helm-test-{uuid.uuid4().hex[:8]}"


def call(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One call of MLflow's REST API."""
    headers = {"Content-Type": "application/json", **credentials()}
    url = f"{os.environ['MLFLOW_TRACKING_URI'].rstrip('/')}/api/2.0/mlflow/{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)  # noqa: S310 ours
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 ours
        return dict(json.loads(answer.read() or b"{}"))


def credentials() -> dict[str, str]:
    """The header that says who asks, in MLflow's own order: name and password, else the token, else none."""
    name, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if name and password:
        return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def mlflow() -> str:
    """A registered model is made, found and deleted."""
    call("POST", "registered-models/create", {"name": NAME})
    try:
        found = call("GET", f"registered-models/get?name={NAME}", {})["registered_model"]["name"]
    finally:
        call("DELETE", "registered-models/delete", {"name": NAME})
    assert found == NAME, f"MLflow gave {found} for {NAME}"
    return "MLflow answers and writes to its database"


def database() -> str:
    """The database that the Secret names takes a connection and holds MLflow's tables."""
    import psycopg2

    uri = os.environ["MLFLOW_BACKEND_STORE_URI"].replace("postgresql+psycopg2://", "postgresql://")
    with contextlib.closing(psycopg2.connect(uri, connect_timeout=10)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version'), (SELECT version_num FROM alembic_version)")
        version, schema = cursor.fetchone()
    return f"the database is PostgreSQL {version.split()[0]}, with MLflow's tables {schema}"


def store() -> str:
    """An object is written, read and deleted in the bucket."""
    import boto3
    from botocore.config import Config

    client = boto3.client("s3", config=Config(connect_timeout=10, read_timeout=30))
    where = {"Bucket": os.environ["STORE_BUCKET"], "Key": f"{os.environ['STORE_PREFIX']}.helm-test/{NAME}"}
    client.put_object(**where, Body=NAME.encode())
    try:
        found = client.get_object(**where)["Body"].read().decode()
    finally:
        client.delete_object(**where)
    assert found == NAME, f"the store gave {found!r} for {NAME!r}"
    return f"s3://{where['Bucket']} can be written to, read and deleted from"


CHECKS: dict[str, Callable[[], str]] = {"mlflow": mlflow, "database": database, "store": store}


def main(names: list[str]) -> int:
    """How many of the checks of NAMES fail; each says what it saw."""
    failed = 0
    for name in names:
        try:
            print(CHECKS[name](), flush=True)
        except urllib.error.HTTPError as error:
            failed += 1
            print(f"{name}: {error} ({error.read().decode(errors='replace')[:300]})", file=sys.stderr)
        except Exception as error:
            failed += 1
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
