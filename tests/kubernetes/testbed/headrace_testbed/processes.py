"""Daemons of the test bed: each in a session of its own, with a log, and none outlives whoever started it.

The kernel kills a daemon when its starter dies (`setpriv --pdeathsig`), so a killed pytest leaves nothing behind. The
kernel watches the starting *thread*; that is why one thread, which ends only with this process, starts them all.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="testbed-starter")
_LAST_LINES = 40
_PORTS = [*range(7000, 8000), *range(8500, 10_000), *range(32_000, 32_768)]
_MARKS: list[socket.socket] = []  # of the ports given out here


def _unless_orphaned() -> list[str]:
    """What runs a command unless its starter has died before the kernel was asked to watch it."""
    return ["sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]


def free_port() -> int:
    """A loopback port nobody listens on, outside the ranges from which the kernel gives ports to clients and Headrace
    to its Ray heads. A name that the kernel forgets with this process keeps it from other processes of tests."""
    for port in random.sample(_PORTS, 500):
        mark = socket.socket(socket.AF_UNIX)
        with contextlib.closing(socket.socket()) as probe:
            try:
                mark.bind(f"\0headrace-testbed-port-{port}")
                probe.bind(("127.0.0.1", port))
            except OSError:
                mark.close()
                continue
        _MARKS.append(mark)
        return port
    raise RuntimeError(f"500 of the {len(_PORTS)} ports that tests may use were tried and none is free")


def _lives(group: int) -> bool:
    """Whether a process of GROUP runs; one that has ended and that nobody has asked about yet does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if its_group == str(group) and state not in "ZX":
                return True
    return False


class Daemon:
    """One process with its log. `start` may be called again after `kill` or `stop`: the log goes on."""

    def __init__(self, name: str, command: list[str | Path], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self.log = log
        self._env = {"PATH": os.environ.get("PATH", ""), "HOME": str(log.parent), **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def start(self) -> None:
        """Start it, in a session of its own."""
        command = ["setpriv", "--pdeathsig", "KILL", "--", *_unless_orphaned(), *self.command]
        with open(self.log, "ab") as log:
            self._process = _STARTER.submit(
                subprocess.Popen,
                command,
                env=self._env,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ).result()

    def kill(self) -> None:
        """End it as a crash would: SIGKILL, to its whole session."""
        self._end(signal.SIGKILL, 60)

    def stop(self, seconds: float = 5, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, by the signal NUMBER, and after SECONDS make it."""
        try:
            self._end(number, seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def _end(self, number: int, seconds: float) -> None:
        if self._process is not None and self._process.poll() is None:
            deadline = time.monotonic() + seconds
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
                self._process.wait(seconds)
                while _lives(self._process.pid):  # it may have been the messenger of one in a node
                    if time.monotonic() > deadline:
                        os.killpg(self._process.pid, signal.SIGKILL)
                        break
                    time.sleep(0.01)

    def log_end(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-_LAST_LINES:])

    def wait_for(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until READY; fail with the end of its log if it ends before, or SECONDS pass."""
        deadline = time.monotonic() + seconds
        while not ready():
            ended = not self.running
            if ended or time.monotonic() > deadline:
                what = f"ended with {self._process.poll() if self._process else None}" if ended else "is not ready"
                raise RuntimeError(
                    f"{self.name} {what} within {seconds:.0f} s. {self.log} ends with:\n{self.log_end()}"
                )
            time.sleep(0.05)
