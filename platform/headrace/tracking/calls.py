"""How the rest of this package calls MLflow: by name, with plain JSON values.

Four processes of a run need MLflow for a few milliseconds each, and each would pay 4 s of a core to import it and open
the store. So on this machine's own store the calls go to one resident process, `headrace.tracking.service`, over a
socket in its folder: private (0700), JSON, no port. It is started by whoever needs it first and leaves by itself when
nobody has called for a quarter of an hour. Elsewhere (a server, another database), or if it cannot be started, the very
same functions run in the calling process.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headrace.base import events
from headrace.base.aws import aws_fingerprint
from headrace.base.errors import error_from_record
from headrace.base.home import folder
from headrace.base.jsonfile import read_json
from headrace.base.processes import ProcessRef
from headrace.tracking.connection import client, own_folder, own_uri, require_mlflow, tracking_uri, translated

Check = Callable[[], None]

# What may be called: name to the function that does it, as f(mlflow client, tracking URI, **plain values).
OPERATIONS = {
    name: f"headrace.tracking.{module}:{name}"
    for module, names in {
        "run_operations": (
            "ping",
            "open_run",
            "find_run",
            "set_tags",
            "log_params",
            "log_datasets",
            "log_points",
            "log_pictures",
            "log_text",
            "start_system_metrics",
            "stop_system_metrics",
            "finish_run",
        ),
        "model_operations": ("log_package",),
        "registry_operations": (
            "champion_record",
            "version_records",
            "model_records",
            "package_version",
            "register_version",
            "set_version_tags",
            "move_alias",
            "remove_alias",
        ),
    }.items()
    for name in names
}

SOCKET = "service.sock"
RECORD = "service.json"
START_SECONDS = 20.0  # until the service's socket is there; it imports MLflow after that
LEAVE_SECONDS = 10.0  # for a service that runs other code to finish its calls
CALL_SECONDS = 900.0  # the longest call: a large package copied to a slow disk
STALE = "stale"  # the answer of a service that runs other code than the caller


class ServiceDown(Exception):
    """The service cannot be reached or started; the call is to be made in this process."""


def no_check() -> None:
    """The fence of a caller that nobody can supersede."""


def call(name: str, uri: str, /, **arguments: Any) -> Any:
    """Call the operation NAME on the store at URI. Arguments and answer are plain JSON values.

    Every operation may be repeated, so a call whose service died under it is made again.

    Raises:
        MissingExtra: MLflow is not installed.
        Unavailable: the store cannot be reached.
    """
    require_mlflow()
    if uri == own_uri():
        for _ in range(3):
            try:
                return _remote({"name": name, "uri": uri, "arguments": arguments, "build": build()})
            except ServiceDown as error:
                logging.getLogger(__name__).debug("tracking service: %s", error)
    return call_here(name, uri, arguments)


def call_here(name: str, uri: str, arguments: dict[str, Any]) -> Any:
    """Make the call in this process."""
    module, _, attribute = OPERATIONS[name].partition(":")
    mlflow = client(uri)
    with translated(uri):
        return getattr(import_module(module), attribute)(mlflow, uri, **arguments)


@cache
def build() -> str:
    """What code this process runs and how it reaches S3: a service of another build must not answer it."""
    here = Path(__file__).parent
    newest = max(file.stat().st_mtime_ns for place in (here, here.parent / "base") for file in place.glob("*.py"))
    root = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", "")
    return f"{here}:{newest}:{version('mlflow')}:{aws_fingerprint()}:{root}"


def prepare(uri: str | None = None) -> None:
    """Get ready in the background what the first call would wait for; returns at once.

    On this machine's own store: start the service, which imports MLflow and opens the store. Elsewhere: nothing.
    """
    if (uri or tracking_uri()) == own_uri():
        try:
            _try_connect().close()
        except OSError:
            start_service()


def ensure_store(uri: str | None = None) -> str:
    """Wait until the store at URI (default: this machine's) can be written; returns URI.

    Raises:
        MissingExtra: MLflow is not installed.
        Unavailable: the store cannot be reached.
    """
    uri = uri or tracking_uri()
    call("ping", uri)
    return uri


def service_process() -> ProcessRef | None:
    """The process that serves this home, or served it last."""
    return ProcessRef.from_record(read_json(own_folder() / RECORD))


def start_service() -> None:
    """Start the service in the background unless it runs; returns at once."""
    require_mlflow()
    place = folder("mlflow")
    environment = {key: value for key, value in os.environ.items() if key != events.VARIABLE}
    # Not the caller's temporary folder: a run's goes with the run.
    environment |= {"HEADRACE_HOME": str(place.parent), "TMPDIR": str(folder("mlflow", "tmp"))}
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    os.posix_spawn(  # not Popen, which minds its child: this one outlives us
        sys.executable,
        [sys.executable, "-m", "headrace.tracking.service"],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(place / "service.log"), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _remote(request: dict[str, Any]) -> Any:
    connection = _connect()
    try:
        with connection, connection.makefile("rwb") as stream:
            stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
            line = stream.readline()
    except OSError as error:
        raise ServiceDown(str(error)) from error
    if not line.endswith(b"\n"):
        raise ServiceDown("it ended during the call")
    answer = json.loads(line)
    if answer.get(STALE):
        if (process := service_process()) is not None:
            process.wait(LEAVE_SECONDS)
        raise ServiceDown("it ran other code and left")
    if "error" in answer:
        raise error_from_record(answer["error"])
    return answer["value"]


def _connect() -> socket.socket:
    """A connection to the service, which is started if need be."""
    started: float | None = None
    while True:
        try:
            return _try_connect()
        except OSError as error:
            now = time.monotonic()
            if started is None:
                started = now
                start_service()
            elif now - started > START_SECONDS:
                raise ServiceDown(f"no socket after {START_SECONDS:.0f} s: {error}") from error
            time.sleep(0.05)


def _try_connect() -> socket.socket:
    """Connect by a path below /proc: a socket's path may have no more than 107 bytes, a home may be deeper."""
    directory = os.open(own_folder(), os.O_PATH | os.O_DIRECTORY)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(CALL_SECONDS)
        connection.connect(f"/proc/self/fd/{directory}/{SOCKET}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection
