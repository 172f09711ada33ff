"""What the replica that leads sees to beside its reconcilers: how old the last backup is, and whether MLflow is up.

Both are asked of nobody's object: alerts about them must work while nothing is trained and nothing changes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from headrace.monitoring import names
from headrace_operators.kinds import BACKUP_LEASE, LEASE
from headrace_operators.mlflow import MLflow, Unreachable
from headrace_operators.runtime.client import Client
from headrace_operators.runtime.conditions import parse_time
from headrace_operators.runtime.errors import ApiError, NotFound
from headrace_operators.runtime.kinds import Key
from headrace_operators.runtime.logs import Log
from headrace_operators.runtime.metrics import gauge

BACKUP_SECONDS = 60.0  # between two looks at it
URI_VARIABLE = "MLFLOW_TRACKING_URI"

BACKUP_SUCCESS = gauge(
    names.BACKUP_SUCCESS,
    "When (Unix time) the last good backup ended; 0 where there has been none. Told by the replica that leads.",
    ("lease",),
)


async def follow_backup(client: Client, namespace: str, every_seconds: float = BACKUP_SECONDS) -> None:
    """Look at the backup's Lease in NAMESPACE for ever."""
    key = Key(namespace, BACKUP_LEASE)
    while True:
        try:
            BACKUP_SUCCESS.labels(str(key)).set(_renewed((await client.get(LEASE, key)).get("spec") or {}))
        except NotFound:
            BACKUP_SUCCESS.labels(str(key)).set(0)
        except ApiError as error:
            Log().warning("cannot read the backup's Lease: %s", error)
        await asyncio.sleep(every_seconds)


async def follow_mlflow(mlflow: MLflow, every_seconds: float, environment: Mapping[str, str] = os.environ) -> None:
    """Ask the MLflow server that the environment names, if it does, for ever; the answer is counted where all are."""
    uri, log, told = environment.get(URI_VARIABLE, ""), Log(), ""
    while uri:
        try:
            await mlflow.look(uri)
            told = ""
        except Unreachable as error:
            if error.message != told:
                log.warning("%s", error.message)
            told = error.message
        await asyncio.sleep(every_seconds)
    await asyncio.Event().wait()


def _renewed(spec: Mapping[str, object]) -> float:
    """When a Lease of SPEC was renewed; 0 where that is no time."""
    try:
        return parse_time(str(spec.get("renewTime"))).timestamp()
    except ValueError:
        return 0.0
