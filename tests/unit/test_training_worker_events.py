"""Where a training worker tells what it does: a file beside the driver, or the store from another pod."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.base import events
from headrace.store import Store
from headrace.store.run_events import EventReader
from headrace.training.worker import _telling

RUN = "digits-aaaaaaaa"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(events.VARIABLE, "/dev/null")  # so that it is put back afterwards
    monkeypatch.delenv(events.VARIABLE)


def request(store: Store, path: Path | None) -> Any:
    return SimpleNamespace(
        events_path=None if path is None else str(path), store_url=store.url, run_id=RUN, attempt="1.2"
    )


def test_beside_the_driver_it_tells_in_the_run_s_file(store: Store, tmp_path: Path) -> None:
    with _telling(request(store, tmp_path / "events.jsonl")):
        events.emit("progress", step="train", epoch=1)
    assert "progress" in (tmp_path / "events.jsonl").read_text()
    assert EventReader(store, RUN).new() == []


def test_in_a_pod_of_its_own_it_tells_in_the_store(store: Store, tmp_path: Path) -> None:
    with _telling(request(store, tmp_path / "of-the-head" / "events.jsonl")):
        events.emit("progress", step="train", epoch=1)
    assert [event["epoch"] for event in EventReader(store, RUN, "1").new()] == [1]
    assert events.VARIABLE not in os.environ


def test_without_a_file_it_prints(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with _telling(request(store, None)):
        events.emit("progress", step="train", epoch=1)
    assert '"progress"' in capsys.readouterr().err
