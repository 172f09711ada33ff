"""How one object is followed: what a watch brings, what ends it, and that nobody waits for a watch that is no more.

The server is a stand-in; test_cluster.py follows objects on a real one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.base.errors import HeadraceError, InvalidInput
from headrace.cluster import TRAINING_RUN, watching
from headrace.cluster.errors import ApiError
from headrace.cluster.watching import Watcher

SOON = 60.0  # seconds; what is awaited comes at once where the machine has time for it


def run(version: str, phase: str = "Running") -> dict[str, Any]:
    return {"metadata": {"name": "digits", "resourceVersion": version}, "status": {"phase": phase}}


def event(kind: str, **obj: Any) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def trouble(code: int, message: str) -> bytes:
    return event("ERROR", code=code, reason="InternalError", message=message)


class Server:
    """Its watches bring the LISTS of events in turn, later ones nothing for long; what it lists is `there`."""

    def __init__(self, *watches: list[bytes] | Exception) -> None:
        self.watches = list(watches)
        self.there = run("7", "Listed")
        self.opened: list[str] = []
        self.moments: list[float] = []

    def patiently(self, do: Callable[[], Any]) -> Any:
        return do()

    def open_stream(self, path: str, query: dict[str, str], read_seconds: float) -> Any:
        self.moments.append(time.monotonic())
        self.opened.append(query["resourceVersion"])
        if not self.watches:
            return SimpleNamespace(stream=self._quiet, close=lambda: None)
        watch = self.watches.pop(0)
        if isinstance(watch, Exception):
            raise watch
        return SimpleNamespace(stream=lambda _: iter(watch), close=lambda: None)

    def _quiet(self, _: int) -> Iterator[bytes]:
        time.sleep(5)
        return iter(())

    def request(self, *_: Any, **__: Any) -> Any:
        return {"metadata": {"resourceVersion": "7"}, "items": [self.there]}


def opened(server: Server, count: int) -> None:
    """Wait until so many watches have been opened."""
    deadline = time.monotonic() + SOON
    while len(server.opened) < count:
        assert time.monotonic() < deadline, server.opened
        time.sleep(0.01)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds between two watches, instead of the half a second that a server has a right to."""
    assert watching._PAUSE_SECONDS >= 0.5
    monkeypatch.setattr(watching, "_PAUSE_SECONDS", 0.1)
    return 0.1


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize(
    ("code", "message"), [(500, "etcdserver: no leader"), (429, "busy"), (504, "late"), (410, "old")]
)
def test_trouble_that_a_watch_tells_of_is_looked_past(code: int, message: str) -> None:
    server = Server([trouble(code, message)])
    with Watcher(server, TRAINING_RUN, "runs", "digits", run("1")) as watcher:  # type: ignore[arg-type]
        found = watcher.next(SOON)
        assert found is not None
        assert found["status"]["phase"] == "Listed"
        opened(server, 2)
    assert server.opened[:2] == ["1", "7"]


def test_a_refusal_that_a_watch_tells_of_is_raised_and_stays() -> None:
    server = Server([trouble(422, "no such field")])
    with Watcher(server, TRAINING_RUN, "runs", "digits", run("1")) as watcher:  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(InvalidInput, match="no such field"):
                watcher.next(SOON)


@pytest.mark.parametrize(
    ("broken", "kind"), [(AttributeError("a bug"), AttributeError), (ApiError(403, "Forbidden", "no"), HeadraceError)]
)
def test_whatever_ends_the_watching_is_raised_where_somebody_waits(broken: Exception, kind: type[Exception]) -> None:
    with (
        Watcher(Server(broken), TRAINING_RUN, "runs", "digits", run("1")) as watcher,  # type: ignore[arg-type]
        pytest.raises(kind),
    ):
        watcher.next(SOON)


def test_an_event_without_an_object_ends_no_thread_in_silence() -> None:
    odd = json.dumps({"type": "MODIFIED", "object": {"metadata": {}}}).encode() + b"\n"
    with (
        Watcher(Server([odd]), TRAINING_RUN, "runs", "digits", run("1")) as watcher,  # type: ignore[arg-type]
        pytest.raises(KeyError),
    ):
        watcher.next(SOON)


def test_watches_that_bring_nothing_are_not_reopened_in_a_rush(short_pauses: float) -> None:
    server = Server(*([] for _ in range(1000)))
    with Watcher(server, TRAINING_RUN, "runs", "digits", run("1")):  # type: ignore[arg-type]
        opened(server, 4)
    assert min(later - before for before, later in pairwise(server.moments)) > 0.9 * short_pauses


def test_a_watch_that_ends_is_resumed_where_it_was() -> None:
    server = Server([event("MODIFIED", **run("2", "Running"))], [event("MODIFIED", **run("3", "Succeeded"))])
    with Watcher(server, TRAINING_RUN, "runs", "digits", run("1")) as watcher:  # type: ignore[arg-type]
        found = None
        while found is None or found["status"]["phase"] != "Succeeded":
            found = watcher.next(SOON)
    assert server.opened[:2] == ["1", "2"]
