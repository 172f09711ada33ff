"""A run's events where no file is shared with whoever follows it: in the store, one object a process that tells.

    runs/<run id>/events/<step>-<attempt>.jsonl

Object stores know only whole writes, so the teller rewrites its object at most once a second, and less often when it
grows; a reader takes from each object the lines that it has not seen. What a later event of progress has made old is
left out, so an object does not grow with the number of batches.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.base import events
from headrace.base.errors import Unavailable
from headrace.store.filesystems import reached
from headrace.store.store import Store

WRITE_SECONDS = 1.0  # between two writes of one object
_BYTES_A_SECOND = 200_000  # a bigger object is written less often
Event = Mapping[str, Any]


def events_uri(store: Store, run_id: str, step: str, attempt: str) -> str:
    """Where the process that does ATTEMPT of STEP tells what it does."""
    return store.uri("runs", run_id, "events", f"{step}-{attempt}.jsonl")


def compact(lines: list[str]) -> list[str]:
    """LINES without the progress that later progress of the same step has made old."""
    seen: set[Any] = set()
    kept = []
    for line in reversed(lines):
        event = events.parse(line) or {}
        if event.get("type") == "progress":
            if event.get("step") in seen:
                continue
            seen.add(event.get("step"))
        kept.append(line)
    return kept[::-1]


class EventMirror:
    """Writes what is appended to the local file PATH to URI of the store, and prints it, for the pod's log.

    What stands at URI already, told by an earlier pod of the same attempt, stays in front. Never raises: telling must
    not fail what is told of.
    """

    def __init__(self, store: Store, uri: str, path: Path) -> None:
        self._store, self._uri, self._path = store, uri, path
        self._before: list[str] | None = None  # not read yet
        self._lines: list[str] = []
        self._position = 0
        self._troubled = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="headrace-events", daemon=True)

    def start(self) -> None:
        """Begin to follow the file."""
        self._thread.start()

    def stop(self) -> None:
        """Write the last word."""
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        last = False
        while not last:
            last = self._stop.wait(self._pause())
            if self._take() and not self._write() and last:
                self._write()

    def _pause(self) -> float:
        return max(WRITE_SECONDS, sum(map(len, self._lines)) / _BYTES_A_SECOND)

    def _take(self) -> bool:
        """Read what was appended since; whether anything is to be written."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._position)
                data = file.read()
        except OSError:
            return False
        whole = data[: data.rfind(b"\n") + 1]
        self._position += len(whole)
        new = whole.decode("utf-8", "replace").splitlines()
        for line in new:
            print(line, file=sys.stderr, flush=True)
        self._lines = compact([*self._lines, *new])
        return bool(new) or self._troubled

    def _write(self) -> bool:
        try:
            if self._before is None:  # nothing is written over that could not be read
                self._before = (self._store.read_bytes(self._uri) or b"").decode("utf-8", "replace").splitlines()
            lines = [*self._before, *self._lines]
            self._store.write_bytes(self._uri, "".join(f"{line}\n" for line in lines).encode())
        except Exception as error:
            if not self._troubled:
                print(f"events cannot be written to the store: {error}", file=sys.stderr, flush=True)
            self._troubled = True
            return False
        self._troubled = False
        return True


@contextmanager
def told_in_store(store: Store, run_id: str, step: str, attempt: str) -> Iterator[None]:
    """Put what is told during the block into the store, unless somebody follows a file of it already (a laptop)."""
    if os.environ.get(events.VARIABLE):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="headrace-events-") as folder:
        path = Path(folder) / "events.jsonl"
        mirror = EventMirror(store, events_uri(store, run_id, step, attempt), path)
        os.environ[events.VARIABLE] = str(path)
        mirror.start()
        try:
            yield
        finally:
            del os.environ[events.VARIABLE]
            mirror.stop()


class EventReader:
    """Follows what all processes of a run tell: `new` gives what was not given before, oldest first.

    Args:
        attempt: only that attempt of the run. "2" has the files of "2" and of the training's own "2.1", "2.2", but for
            what these say of a step as a whole: one that failed is followed by the next, and the step goes on.
    """

    def __init__(self, store: Store, run_id: str, attempt: str | None = None) -> None:
        self._store = store
        self._folder = store.uri("runs", run_id, "events")
        self._attempt = attempt
        self._stamps: dict[str, object] = {}
        self._seen: dict[str, set[str]] = {}

    def new(self) -> list[Event]:
        """The events that were not given before. Only objects that changed are read.

        Raises:
            Unavailable: the store cannot be reached, and nothing new was read; no event is lost by that.
        """
        found: list[Event] = []
        try:
            for path, stamp in self._objects():
                if self._stamps.get(path) != stamp:
                    found += self._unseen(path)
                    self._stamps[path] = stamp
        except Unavailable:
            if not found:
                raise
        return sorted(found, key=lambda event: float(event.get("time", 0.0)))

    def _objects(self) -> list[tuple[str, object]]:
        folder, filesystem = self._store.path(self._folder), self._store.filesystem
        try:
            with reached(self._folder, filesystem):
                listed = filesystem.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        return [(str(entry["name"]), _stamp(entry)) for entry in listed if self._wanted(str(entry["name"]))]

    def _wanted(self, path: str) -> bool:
        if not path.endswith(".jsonl"):
            return False
        attempt = _attempt_of(path)
        return self._attempt is None or attempt == self._attempt or attempt.startswith(f"{self._attempt}.")

    def _unseen(self, path: str) -> list[Event]:
        seen = self._seen.setdefault(path, set())
        lines = (self._store.read_bytes(path) or b"").decode("utf-8", "replace").splitlines()
        new = [line for line in lines if line not in seen]
        seen.update(new)
        found = [event for event in map(events.parse, new) if event is not None]
        of_the_step = self._attempt in (None, _attempt_of(path))
        return [event for event in found if of_the_step or event.get("type") != "step"]


def _attempt_of(path: str) -> str:
    """The attempt that the object at PATH is of."""
    return path.removesuffix(".jsonl").rsplit("/", 1)[-1].partition("-")[2].partition("-")[0]


def _stamp(entry: Mapping[str, Any]) -> object:
    """What changes when the object that ENTRY lists is written anew."""
    known = {key: entry.get(key) for key in ("size", "mtime", "ETag", "LastModified", "created", "ino")}
    return json.dumps(known, default=str)
