"""The resident process that calls MLflow for every run of this machine: `python -m headrace.tracking.service`.

See `headrace.tracking.calls` for why it is there. It holds a lock for as long as it lives, so there is one; it listens
on a socket in its folder, imports MLflow while the first callers wait, and leaves when nobody has called for a while,
when its folder was taken away, or when a caller runs other code.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socketserver
import sys
import threading
import time
import traceback
from typing import Any

from headrace.base.errors import HeadraceError
from headrace.base.home import folder
from headrace.base.jsonfile import write_json
from headrace.base.locks import LockHeld, file_lock
from headrace.base.processes import ProcessRef
from headrace.tracking import calls
from headrace.tracking.connection import client, own_folder, own_uri

IDLE_SECONDS = 900.0  # without a call, after which the process leaves


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        line = self.rfile.readline()
        if line.endswith(b"\n"):
            self.wfile.write(json.dumps(self.server.answer(line)).encode() + b"\n")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        self.running = 0
        self.called = time.monotonic()
        self.stale = False
        self.wake = threading.Event()
        self._count = threading.Lock()
        super().__init__(calls.SOCKET, _Handler)

    def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to one request."""
        request = json.loads(line)
        if request.get("build") != calls.build():
            self.stale = True
            self.wake.set()
            return {calls.STALE: True}
        with self._count:
            self.running += 1
        try:
            return {"value": calls.call_here(request["name"], request["uri"], request["arguments"])}
        except HeadraceError as error:
            return {"error": error.to_record()}
        except Exception as error:
            traceback.print_exc()
            return {
                "error": HeadraceError(
                    f"MLflow: {type(error).__name__}: {error}",
                    action="see the log",
                    code="mlflow",
                    log=str(own_folder() / "service.log"),
                ).to_record()
            }
        finally:
            self.called = time.monotonic()
            with self._count:
                self.running -= 1

    def may_leave(self) -> bool:
        """Whether the process should end now."""
        if self.running:
            return False
        from headrace.tracking.system_metrics import sampling

        idle = time.monotonic() - self.called > IDLE_SECONDS and not sampling()
        return self.stale or idle or calls.service_process() != ProcessRef.current()


def _warm() -> None:
    """Import what the first calls need."""
    try:
        client(own_uri()).search_experiments(max_results=1)
        import mlflow.pyfunc
        import mlflow.system_metrics.system_metrics_monitor  # noqa: F401

        client(own_uri()).search_registered_models(max_results=1)
    except Exception:  # met again, and told, by whoever calls
        traceback.print_exc()


def _watch(server: _Server) -> None:
    from headrace.tracking.system_metrics import end_orphans

    while not server.may_leave():
        end_orphans()
        server.wake.wait(0.1 if server.stale else 1.0)
    server.shutdown()


def serve() -> None:
    """Serve until it is time to leave. Returns at once if another process serves already."""
    place = folder("mlflow")
    os.chdir(place)
    os.umask(0o077)
    try:
        with file_lock(place / "service.lock", holder=f"process {os.getpid()}", timeout_seconds=0):
            (place / calls.SOCKET).unlink(missing_ok=True)
            write_json(place / calls.RECORD, ProcessRef.current().to_record())
            with _Server() as server:
                signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
                threading.Thread(target=_warm, daemon=True).start()
                threading.Thread(target=_watch, args=(server,), daemon=True).start()
                server.serve_forever(poll_interval=0.1)
                if calls.service_process() == ProcessRef.current():
                    (place / calls.SOCKET).unlink(missing_ok=True)
    except LockHeld:
        return


def stop() -> bool:
    """End the service of this home, if it runs; whether it did."""
    process = calls.service_process()
    if process is None or not process.send(signal.SIGTERM):
        return False
    if not process.wait(10.0):
        process.send(signal.SIGKILL)
        process.wait(5.0)
    return True


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    serve()
    sys.stdout.flush()
    os._exit(0)  # MLflow's threads have nothing left to say
