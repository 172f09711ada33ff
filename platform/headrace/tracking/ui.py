"""MLflow's web pages on this machine's store, on loopback, started when somebody wants to look.

One server a home: its process and port stand in `mlflow/ui.json`; a second call finds it, after a stop the port is
taken again if it is free. A server that Headrace did not start is neither used nor stopped: if it has our port, we take
another. MLflow as it comes starts 4 workers and 7 job processes (2.7 GiB); one worker is enough for a person.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.base.aws import aws_fingerprint, tell_boto_the_region
from headrace.base.errors import RunFailed
from headrace.base.home import folder, home
from headrace.base.jsonfile import read_json, write_json
from headrace.base.locks import file_lock
from headrace.base.processes import ProcessRef, end_session
from headrace.tracking.calls import ensure_store
from headrace.tracking.connection import (
    ENVIRONMENT,
    artifact_root,
    is_server,
    lock_path,
    me,
    registry_uri,
    tracking_uri,
    without_credentials,
)

FIRST_PORT = 5000  # MLflow's own; what people expect
START_SECONDS = 180.0  # until it answers: it imports MLflow twice
ANSWER_SECONDS = 10.0  # of one question; a server that is gone refuses at once, a busy machine's is slow
OK = 200


@dataclass(frozen=True)
class Ui:
    """A server that answers."""

    address: str
    process: ProcessRef | None  # None: not ours, MLFLOW_TRACKING_URI names it

    @property
    def url(self) -> str:
        """The page to open: without the query MLflow shows its pages for prompts and agents."""
        return f"{self.address.rstrip('/')}/#/experiments?workflowType=machine_learning"


def start(tell: Callable[[str], None] = lambda _: None) -> Ui:
    """The UI of this machine's store, started if it does not run.

    Where MLFLOW_TRACKING_URI names a server, that is the UI.

    Raises:
        MissingExtra: MLflow is not installed.
        Unavailable: the store or the server cannot be reached.
        RunFailed: the server does not come up.
    """
    uri = ensure_store(tracking_uri())
    if is_server(uri):
        return Ui(uri, None)
    with file_lock(lock_path("mlflow-ui"), holder=me()):
        found = running()
        same = {"tracking_uri": without_credentials(uri), "aws": aws_fingerprint()}
        if found is not None and same.items() <= _record().items():
            return found
        stop()
        port = free_port(_record().get("port"))
        tell(f"starting MLflow's UI on port {port}")
        process = _spawn(uri, port)
        record = {"process": process.to_record(), "port": port, **same}
        write_json(_record_path(), record)
        _wait(process, port)
        return Ui(_url(port), process)


def running() -> Ui | None:
    """The UI that Headrace started, if it runs and answers."""
    record = _record()
    process = ProcessRef.from_record(record.get("process"))
    if process is None or not process.alive() or not _answers(int(record["port"])):
        return None
    return Ui(_url(int(record["port"])), process)


def stop() -> bool:
    """End the UI that Headrace started, with all its processes; whether there was one."""
    record = _record()
    process = ProcessRef.from_record(record.get("process"))
    if process is None:
        return False
    alive = process.alive()
    process.send(signal.SIGTERM)
    process.wait(5.0)
    end_session(process)
    write_json(_record_path(), {"port": record["port"]})
    return alive


def free_port(remembered: Any) -> int:
    """The remembered port if nobody has it, else MLflow's own, else any free one."""
    wanted = [remembered] if isinstance(remembered, int) else []
    for port in [*wanted, FIRST_PORT]:
        with suppress(OSError):
            return _bind(port)
    return _bind(0)


def _bind(port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return int(probe.getsockname()[1])


def _record_path() -> Path:
    return home() / "mlflow" / "ui.json"


def _record() -> dict[str, Any]:
    found = read_json(_record_path())
    return found if isinstance(found, dict) else {}


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _spawn(uri: str, port: int) -> ProcessRef:
    place = folder("mlflow")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {
        **ENVIRONMENT,
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # By environment, not by argument: a database's password is not for everyone's `ps`.
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_REGISTRY_STORE_URI": registry_uri(uri),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    tell_boto_the_region(environment)
    if (root := artifact_root(uri)) is not None:
        environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = root
    with (place / "ui.log").open("wb") as log:
        started = subprocess.Popen(
            command,
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = ProcessRef.of(started.pid)
    if process is None:
        raise _failed()
    return process


def _wait(process: ProcessRef, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port):
        if not process.alive() or time.monotonic() > deadline:
            stop()
            raise _failed()
        time.sleep(0.2)


def _answers(port: int) -> bool:
    import httpx

    try:
        answer = httpx.get(f"{_url(port)}/health", timeout=ANSWER_SECONDS, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == OK


def _failed() -> RunFailed:
    log = str(home() / "mlflow" / "ui.log")
    return RunFailed("MLflow's UI did not come up", action=f"look at {log}", code="ui-failed", log=log)
