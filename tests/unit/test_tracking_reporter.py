"""The reporter: nothing is lost, doubled or waited for."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from headrace.base.errors import Superseded, Unavailable
from headrace.tracking import reporter as module
from headrace.tracking.reporter import Reporter


class Mlflow:
    """Stands in for `calls.call`: collects points, and fails while `down` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.points: list[tuple[str, int, float]] = []
        self.down = 0
        monkeypatch.setattr(module, "call", self.call)
        monkeypatch.setattr(module, "RETRY_SECONDS", (0.001,))

    def call(self, name: str, uri: str, *, mlflow_run_id: str, points: list[tuple[str, int, float, int]]) -> int:
        if points and self.down:
            self.down -= 1
            raise Unavailable("down", action="wait")
        self.points += [(key, step, value) for key, step, value, _ in points]
        return len(points)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Mlflow:
    return Mlflow(monkeypatch)


def test_epochs_are_written_once_and_in_full(mlflow: Mlflow) -> None:
    reporter = Reporter("sqlite:///x", "run")
    for epoch in (0, 1, 1, 2):
        reporter.log_epoch(epoch, {"train.loss": 1.0 / (epoch + 1), "validation.accuracy": None})
    reporter.close()
    assert sorted(mlflow.points) == [("train.loss", 0, 1.0), ("train.loss", 1, 0.5), ("train.loss", 2, 1 / 3)]


def test_of_two_reports_of_one_epoch_the_first_counts(mlflow: Mlflow) -> None:
    reporter = Reporter("sqlite:///x", "run")
    reporter.log_epoch(3, {"a": 1.0})
    reporter.log_epoch(3, {"a": 2.0})
    reporter.close()
    assert mlflow.points == [("a", 3, 1.0)]


def test_metrics_wait_while_mlflow_is_down(mlflow: Mlflow) -> None:
    mlflow.down = 3
    reporter = Reporter("sqlite:///x", "run")
    reporter.log_epoch(0, {"a": 1.0})
    reporter.close(10)
    assert mlflow.points == [("a", 0, 1.0)]


def test_what_cannot_be_delivered_in_time_is_told(mlflow: Mlflow) -> None:
    mlflow.down = 10**9
    reporter = Reporter("sqlite:///x", "run")
    reporter.log_epoch(0, {"a": 1.0})
    with pytest.raises(Unavailable):
        reporter.close(0.05)


def test_a_superseded_attempt_writes_nothing_more(mlflow: Mlflow) -> None:
    def check() -> None:
        raise Superseded("attempt 1.1 was superseded by 2.1", action="nothing")

    reporter = Reporter("sqlite:///x", "run", check=check)
    reporter.log_epoch(0, {"a": 1.0})
    with pytest.raises(Superseded):
        reporter.flush(10)
    reporter.log_epoch(1, {"a": 1.0})
    with pytest.raises(Superseded):
        reporter.close(10)
    assert mlflow.points == []


def test_log_epoch_does_not_wait_for_mlflow(mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def slow(*arguments: Any, **named: Any) -> int:
        gate.wait(30)
        return mlflow.call(*arguments, **named)

    monkeypatch.setattr(module, "call", slow)
    reporter = Reporter("sqlite:///x", "run")
    reporter.log_epoch(0, {"a": 1.0})
    assert mlflow.points == []
    gate.set()
    reporter.close(10)
    assert mlflow.points == [("a", 0, 1.0)]


def test_flush_with_nothing_to_write_returns(mlflow: Mlflow) -> None:
    reporter = Reporter("sqlite:///x", "run")
    reporter.flush(5)
    reporter.close(5)
