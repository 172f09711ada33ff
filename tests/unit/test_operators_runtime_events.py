"""Events: told once, counted when they repeat, and cut off when they storm."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace_operators.runtime.actions import Tell
from headrace_operators.runtime.errors import Forbidden, NotFound
from headrace_operators.runtime.events import Events
from headrace_operators.runtime.kinds import Key, Kind
from headrace_operators.runtime.logs import Log

RUN = {
    "apiVersion": "headrace.dev/v1alpha1",
    "kind": "TrainingRun",
    "metadata": {"name": "run", "namespace": "n", "uid": "u1", "resourceVersion": "5"},
}


class Api:
    def __init__(self) -> None:
        self.events: dict[Key, dict[str, Any]] = {}
        self.writes = 0
        self.refuse = False

    async def create(self, kind: Kind, manifest: Any) -> None:
        self.writes += 1
        if self.refuse:
            raise Forbidden(403, "Forbidden", "events is forbidden")
        self.events[Key(manifest["metadata"]["namespace"], manifest["metadata"]["name"])] = dict(manifest)

    async def merge(self, kind: Kind, key: Key, change: Any) -> None:
        self.writes += 1
        if key not in self.events:
            raise NotFound(404, "NotFound", "its hour is over")
        self.events[key].update(change)


class Bed:
    def __init__(self) -> None:
        self.api, self.now = Api(), 0.0
        client: Any = self.api
        self._events = Events(client, Log(), lambda: self.now)

    def tell(self, reason: str = "Started", message: str = "it started", about: Any = RUN) -> None:
        asyncio.run(self._events.tell(about, Tell(reason, message)))

    @property
    def told(self) -> list[tuple[str, str, int]]:
        return [(event["reason"], event["message"], event["count"]) for event in self.api.events.values()]


@pytest.fixture
def bed() -> Bed:
    return Bed()


def test_an_event_names_its_object_as_kubectl_describe_looks_for_it(bed: Bed) -> None:
    bed.tell()
    (event,) = bed.api.events.values()
    assert event["involvedObject"] == {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingRun",
        "namespace": "n",
        "name": "run",
        "uid": "u1",
        "resourceVersion": "5",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "Started", "it started")
    assert event["source"]["component"] == "headrace-operator"


def test_equal_events_are_one_with_a_count_and_others_stand_beside_it(bed: Bed) -> None:
    for _ in range(3):
        bed.tell()
    bed.tell(message="it started again")
    assert bed.told == [("Started", "it started", 3), ("Started", "it started again", 1)]


def test_an_equal_event_after_ten_minutes_is_a_new_one(bed: Bed) -> None:
    bed.tell()
    bed.now += 601
    bed.tell()
    assert bed.told == [("Started", "it started", 1)] * 2


def test_an_event_that_the_api_server_has_forgotten_is_told_anew(bed: Bed) -> None:
    bed.tell()
    bed.api.events.clear()
    bed.tell()
    assert bed.told == [("Started", "it started", 1)]


def test_a_storm_about_one_object_is_cut_off_and_others_are_still_told_of(bed: Bed) -> None:
    for number in range(1000):
        bed.tell(message=f"number {number}")
    assert bed.api.writes == 25
    other = {**RUN, "metadata": {**RUN["metadata"], "name": "other", "uid": "u2"}}  # type: ignore[dict-item]
    bed.tell(about=other)
    assert bed.api.writes == 26
    bed.now += 301
    bed.tell(message="later")
    bed.tell(message="and again")
    assert bed.api.writes == 27


def test_an_event_that_is_refused_is_logged_and_lost(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    bed.api.refuse = True
    bed.tell()
    assert "cannot write the event Started" in caplog.text
    bed.api.refuse = False
    bed.tell()
    assert bed.told == [("Started", "it started", 1)]
