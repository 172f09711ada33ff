"""The right to write to a place of backups: one writer at a time, on any filesystem.

It is taken on a condition, renewed while the writer works, and taken over from a writer that died: one of this machine
is known to be dead at once, another by its silence, which the next writer waits for. So a Job's next pod goes on after
one that was killed.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import fsspec

from headrace.base.errors import RunFailed, Unavailable
from headrace.base.processes import ProcessRef
from headrace.store import conditional
from headrace.store.filesystems import reached

STALE_SECONDS = 300.0  # without a sign of life, after which a writer counts as dead
BEAT_SECONDS = 20.0
LOOK_SECONDS = 2.0  # between two looks at another's lock


class Lock:
    """The right to write to an archive. `beat` keeps it."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, path: str, archive: str, holder: str) -> None:
        self._filesystem, self._path = filesystem, path
        self._archive, self._holder = archive, holder
        self._draw = secrets.token_hex(8)
        self._found: conditional.Found = None
        self._beaten = 0.0

    def take(self, tell: Callable[[str], None]) -> None:
        """Take it, from a dead writer too. Raises RunFailed where another one lives."""
        with reached(self._archive, self._filesystem):
            found = self._awaited(tell)
            if not conditional.replace(self._filesystem, self._path, self._record(), found):
                raise self._lost()
            self._found = conditional.read(self._filesystem, self._path)
        self._beaten = time.monotonic()

    def _awaited(self, tell: Callable[[str], None]) -> conditional.Found:
        """What is there when no living writer holds it. One that has not been heard of may be dead: its next word, or
        the lack of it, is waited for."""
        first = found = conditional.read(self._filesystem, self._path)
        since = time.monotonic()
        while found is not None and first is not None and (other := _living(found[0])) is not None:
            if other.here or found[0] != first[0]:
                raise RunFailed(
                    f"{other.name} is writing to {self._archive}",
                    action="wait until it has ended, or name another place",
                    code="backup-locked",
                )
            if time.monotonic() - since > STALE_SECONDS:
                break
            if found is first:
                tell(f"{other.name} was writing to {self._archive}: waiting for up to {STALE_SECONDS:.0f} s to see")
            time.sleep(LOOK_SECONDS)
            found = conditional.read(self._filesystem, self._path)
        return found

    def beat(self) -> None:
        """Say that the writer lives, now and then. Raises RunFailed where another took over."""
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self.check()

    def check(self) -> None:
        """Renew it now. Raises RunFailed where another took over."""
        with reached(self._archive, self._filesystem):
            if not conditional.replace(self._filesystem, self._path, self._record(), self._found):
                raise self._lost()
            self._found = conditional.read(self._filesystem, self._path)
        self._beaten = time.monotonic()

    def give_back(self) -> None:
        """Remove it, if it is ours."""
        with suppress(OSError, Unavailable), reached(self._archive, self._filesystem):
            found = conditional.read(self._filesystem, self._path)
            if found is not None and json.loads(found[0]).get("draw") == self._draw:
                self._filesystem.rm_file(self._path)

    def _record(self) -> bytes:
        process = ProcessRef.current().to_record()
        told = {"holder": self._holder, "time": time.time(), "draw": self._draw}
        return json.dumps({**told, "host": socket.gethostname(), "process": process}).encode()

    def _lost(self) -> RunFailed:
        return RunFailed(
            f"another writer took over at {self._archive}",
            action="look at what it writes; this backup is not whole and does not count",
            code="backup-locked",
        )


@dataclass(frozen=True)
class _Holder:
    name: str
    here: bool  # a process of this machine, which is seen to live


def _living(data: bytes) -> _Holder | None:
    """Who holds the lock that says DATA, if its writer may still live; of this machine's own it is known at once."""
    try:
        record = json.loads(data)
        process = ProcessRef.from_record(record.get("process")) if record.get("host") == socket.gethostname() else None
        if process is not None and not process.alive():
            return None
        silent = time.time() - float(record["time"]) >= STALE_SECONDS
        return None if silent else _Holder(str(record["holder"]), here=process is not None)
    except (ValueError, KeyError, TypeError):
        return None
