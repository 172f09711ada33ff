"""A process in a network of its own, with doors to chosen ports of this machine.

An EndpointSlice may not hold a loopback address, and a test may not listen on any other. So the process under test gets
a network namespace in which some other address exists, and behind it a door, a Unix socket, to a port of loopback
outside. Nothing is set up on the machine, and all of it goes with the process. Needs no root where user namespaces are
allowed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

Connect = Callable[[], socket.socket]


def possible() -> bool:
    """Whether this machine lets us have such a network."""
    command = ["unshare", "-Urn", "ip", "link", "set", "lo", "up"]
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except FileNotFoundError:
        return False


class Apart:
    """A network for one process.

    Args:
        folder: where the sockets are; a short path.
        doors: `ADDRESS:PORT` inside, and which port of 127.0.0.1 outside is behind it.
        windows: ports of 127.0.0.1 inside that are reached at the same port outside.
    """

    def __init__(self, folder: Path, doors: Mapping[str, int], windows: Sequence[int] = ()) -> None:
        self._doors = {inside: (str(folder / f"door{n}"), port) for n, (inside, port) in enumerate(doors.items())}
        self._windows = {port: str(folder / f"window{port}") for port in windows}
        self._listeners: list[socket.socket] = []

    def __enter__(self) -> Apart:
        for path, port in self._doors.values():
            self._listeners.append(_listen_at(path))
            pass_on(self._listeners[-1], _to_port(port))
        for port, path in self._windows.items():
            self._listeners.append(socket.create_server(("127.0.0.1", port)))
            pass_on(self._listeners[-1], _to_path(path))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for listener in self._listeners:
            listener.close()

    @property
    def prefix(self) -> list[str]:
        """What makes a command run in it."""
        plan = {
            "doors": {inside: path for inside, (path, _) in self._doors.items()},
            "windows": {str(port): path for port, path in self._windows.items()},
        }
        return ["unshare", "-Urn", sys.executable, __file__, json.dumps(plan)]


def pass_on(listener: socket.socket, connect: Connect) -> None:
    """Join every connection that LISTENER takes to a new one of CONNECT, in threads, until it is closed."""

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                try:
                    there = connect()
                except OSError:
                    here.close()  # as a port that nobody listens on
                    continue
                threading.Thread(target=_join, args=(here, there), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _join(here: socket.socket, there: socket.socket) -> None:
    with here, there:
        back = threading.Thread(target=_copy, args=(there, here), daemon=True)
        back.start()
        _copy(here, there)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            end.shutdown(how)


def _listen_at(path: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    return listener


def _to_path(path: str) -> Connect:
    def connect() -> socket.socket:
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(path)
        except OSError:
            end.close()
            raise
        return end

    return connect


def _to_port(port: int) -> Connect:
    return lambda: socket.create_connection(("127.0.0.1", port))


def _inside(plan: Mapping[str, Mapping[str, str]], command: Sequence[str]) -> int:
    """Set up the doors and windows from within, and run COMMAND."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in sorted({inside.rsplit(":", 1)[0] for inside in plan["doors"]} - {"127.0.0.1"}):
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    for inside, path in plan["doors"].items():
        address, port = inside.rsplit(":", 1)
        pass_on(socket.create_server((address, int(port))), _to_path(path))
    for port, path in plan["windows"].items():
        pass_on(_listen_at(path), _to_port(int(port)))
    return subprocess.run(["setpriv", "--pdeathsig", "KILL", "--", *command], check=False).returncode


if __name__ == "__main__":
    sys.exit(_inside(json.loads(sys.argv[1]), sys.argv[2:]))
