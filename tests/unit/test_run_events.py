"""Events of a run in the store: whole, compact, followed across processes, and never in the way of what they tell."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from headrace.base import events
from headrace.store import Store, run_events
from headrace.store.run_events import EventReader, compact, events_uri, told_in_store

RUN = "digits-aaaaaaaa"


@pytest.fixture(params=["folder", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv(events.VARIABLE, raising=False)
    return Store(str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


def line(time: float, kind: str, **fields: Any) -> str:
    return json.dumps({"time": time, "type": kind, **fields})


def put(store: Store, step: str, attempt: str, *lines: str) -> None:
    store.write_bytes(events_uri(store, RUN, step, attempt), "".join(f"{each}\n" for each in lines).encode())


def test_what_is_told_in_the_block_is_in_the_store_after_it_and_in_the_log(
    store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    with told_in_store(store, RUN, "train", "2"):
        events.emit("message", step="train", text="hello")
    assert [event["text"] for event in EventReader(store, RUN).new()] == ["hello"]
    assert '"hello"' in capfd.readouterr().err
    assert events.VARIABLE not in os.environ


def test_a_laptop_s_events_stay_in_its_file(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(events.VARIABLE, str(tmp_path / "events.jsonl"))
    with told_in_store(store, RUN, "train", "2.1"):
        events.emit("message", step="train", text="hello")
    assert EventReader(store, RUN).new() == []
    assert "hello" in (tmp_path / "events.jsonl").read_text()


def test_a_second_pod_of_the_attempt_keeps_what_the_first_one_told(store: Store) -> None:
    for word in ("first", "second"):
        with told_in_store(store, RUN, "train", "2"):
            events.emit("message", step="train", text=word)
    assert [event["text"] for event in EventReader(store, RUN).new()] == ["first", "second"]


def test_what_an_earlier_pod_told_is_not_written_over_while_it_cannot_be_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "train", "2", line(1.0, "message", text="first"))
    failures, real = [OSError("away"), OSError("away")], store.read_bytes

    def read(uri: str) -> bytes | None:
        if failures:
            raise failures.pop()
        return real(uri)

    monkeypatch.setattr(store, "read_bytes", read)
    monkeypatch.setattr(run_events, "WRITE_SECONDS", 0.01)
    with told_in_store(store, RUN, "train", "2"):
        events.emit("message", step="train", text="second")
        while failures:
            time.sleep(0.01)
    assert [event["text"] for event in EventReader(store, RUN).new()] == ["first", "second"]


def test_a_store_that_fails_is_told_once_and_nothing_else_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(store, "write_bytes", refuse)
    with told_in_store(store, RUN, "train", "2"):
        events.emit("message", step="train", text="hello")
    assert capfd.readouterr().err.count("cannot be written to the store: no space") == 1


def test_a_reader_gives_each_event_once_in_the_order_of_time(store: Store) -> None:
    reader = EventReader(store, RUN)
    assert reader.new() == []
    put(store, "train", "1", line(1, "message", text="a"), line(3, "message", text="c"))
    put(store, "train", "1.1", line(2, "metrics", epoch=1))
    assert [event["time"] for event in reader.new()] == [1, 2, 3]
    assert reader.new() == []
    put(store, "train", "1.1", line(2, "metrics", epoch=1), line(4, "metrics", epoch=2))
    assert [event["time"] for event in reader.new()] == [4]


def test_a_reader_of_one_attempt_leaves_the_others_out(store: Store) -> None:
    for number, attempt in enumerate(("1", "2", "2.1", "22", "2.1-worker")):
        put(store, "train", attempt, line(number, "message", text=attempt))
    assert [event["text"] for event in EventReader(store, RUN, "2").new()] == ["2", "2.1", "2.1-worker"]


def test_what_a_try_of_the_training_says_of_the_step_is_not_the_steps_own_word(store: Store) -> None:
    put(store, "train", "2", line(1, "step", step="train", state="running"))
    put(store, "train", "2.1", line(2, "metrics", epoch=1), line(3, "step", step="train", state="failed"))
    assert [event["time"] for event in EventReader(store, RUN, "2").new()] == [1, 2]
    assert [event["time"] for event in EventReader(store, RUN, "2.1").new()] == [2, 3]
    assert [event["time"] for event in EventReader(store, RUN).new()] == [1, 2, 3]


def test_progress_that_later_progress_made_old_is_left_out() -> None:
    old, metrics, new = line(1, "progress", step="train"), line(2, "metrics"), line(3, "progress", step="train")
    other = line(0, "progress", step="split")
    assert compact([other, old, metrics, new, "half"]) == [other, metrics, new, "half"]
