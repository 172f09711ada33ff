"""Processes that are recognised again: a pid alone may be somebody else's by now.

A process is its pid and its start time (clock ticks since boot, from /proc) together with the boot it belongs to; only
a match of all three is signalled. Linux only, as the rest of the local side is.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any


@cache
def boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


@dataclass(frozen=True)
class ProcessRef:
    """One process of one boot."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessRef | None:
        """The process that has PID now, or None."""
        fields = _stat(pid)
        return None if fields is None or fields[0] == "Z" else cls(pid, int(fields[19]), boot_id())

    @classmethod
    def current(cls) -> ProcessRef:
        """This process."""
        reference = cls.of(os.getpid())
        assert reference is not None
        return reference

    @classmethod
    def from_record(cls, record: dict[str, Any] | None) -> ProcessRef | None:
        """The inverse of `to_record`; None for None or a record of another shape."""
        try:
            return None if record is None else cls(int(record["pid"]), int(record["started"]), str(record["boot"]))
        except (KeyError, TypeError, ValueError):
            return None

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return ProcessRef.of(self.pid) == self

    def send(self, number: int) -> bool:
        """Send a signal if this very process still runs; whether it was sent."""
        if not self.alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until it is gone; whether it is."""
        deadline = time.monotonic() + timeout_seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


def session_members(session: int) -> Iterator[ProcessRef]:
    """Every live process whose session leader is (or was) the process SESSION."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields is not None and fields[0] != "Z" and int(fields[3]) == session:
                yield ProcessRef(int(entry), int(fields[19]), boot_id())


def end_session(session: ProcessRef, *, grace_seconds: float = 5.0) -> None:
    """End what the session led by SESSION still has: TERM to all, and KILL what is left after the grace.

    Safe after the leader died: a pid is not given out again while it names a session, so members still carrying it are
    the leader's own; members older than the leader (a recycled number) are left alone.
    """

    def members() -> list[ProcessRef]:
        return [m for m in session_members(session.pid) if m.started >= session.started and m.pid != os.getpid()]

    if session.boot != boot_id():
        return
    for member in members():
        member.send(signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while (left := members()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for member in left:
        member.send(signal.SIGKILL)
    for member in left:
        member.wait(5.0)
