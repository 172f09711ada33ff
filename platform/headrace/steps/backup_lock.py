"""The right to write to a place of backups: one writer at a time, on any filesystem.

It is taken on a condition, renewed while the writer works, and taken over from a writer that died: one of this machine
is known to be dead at once, another by its silence.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from contextlib import suppress

import fsspec

from headrace.base.errors import RunFailed, Unavailable
from headrace.base.processes import ProcessRef
from headrace.store import conditional
from headrace.store.filesystems import reached

STALE_SECONDS = 900.0  # without a sign of life, after which a writer counts as dead
BEAT_SECONDS = 60.0


class Lock:
    """The right to write to an archive. `beat` keeps it."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, path: str, archive: str, holder: str) -> None:
        self._filesystem, self._path = filesystem, path
        self._archive, self._holder = archive, holder
        self._draw = secrets.token_hex(8)
        self._found: conditional.Found = None
        self._beaten = 0.0

    def take(self) -> None:
        """Take it, from a dead writer too."""
        with reached(self._archive, self._filesystem):
            found = conditional.read(self._filesystem, self._path)
            if found is not None and (other := _living(found[0])) is not None:
                raise RunFailed(
                    f"{other} is writing to {self._archive}",
                    action=f"wait until it has ended; if it was killed, its lock ends {STALE_SECONDS / 60:.0f} minutes "
                    "after its last sign of life",
                    code="backup-locked",
                )
            if not conditional.replace(self._filesystem, self._path, self._record(), found):
                raise self._lost()
            self._found = conditional.read(self._filesystem, self._path)
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """Say that the writer lives, once a minute at most. Raises RunFailed where another took over."""
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


def _living(data: bytes) -> str | None:
    """Who holds the lock that says DATA, if its writer may still live; of this machine's own it is known at once."""
    try:
        record = json.loads(data)
        process = ProcessRef.from_record(record.get("process")) if record.get("host") == socket.gethostname() else None
        dead = process is not None and not process.alive()
        return str(record["holder"]) if not dead and time.time() - float(record["time"]) < STALE_SECONDS else None
    except (ValueError, KeyError, TypeError):
        return None
