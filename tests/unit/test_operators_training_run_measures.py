"""What is counted of training runs: what was stored, once."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.api.training_run import TrainingRunStatus
from headrace_operators.runtime import metrics
from headrace_operators.runtime.kinds import Key
from headrace_operators.training_run.measures import Measures, result, summary

KEY = Key("team", "digits")
UNDER_WAY = {"phase": "Running", "attempt": 1, "rayJobName": "digits-1"}
STARTED = {"attemptStartTime": "2026-11-26T12:00:00Z", "jobStartTime": "2026-11-26T12:00:45Z"}


def status(**fields: Any) -> TrainingRunStatus:
    return TrainingRunStatus.model_validate({**UNDER_WAY, **fields})


def value(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def measures() -> Measures:
    return Measures()


@pytest.mark.parametrize(
    ("how", "after"),
    [
        ("succeeded", {"phase": "Succeeded", "completionTime": "2026-11-26T13:00:00Z"}),
        ("failed", {"phase": "Retrying", "rayJobName": None, "failures": 1}),
        ("failed", {"phase": "Failed", "completionTime": "2026-11-26T13:00:00Z"}),
        ("suspended", {"phase": "Suspended", "rayJobName": None}),
        ("interrupted", {"phase": "Retrying", "rayJobName": None}),
        (None, {"phase": "Running", "gpuSeconds": 5}),
    ],
)
def test_how_an_attempt_ended(how: str | None, after: dict[str, Any]) -> None:
    assert result(summary(status()), summary(status(**after))) == how


def test_an_end_is_counted_once_however_often_it_is_seen(measures: Measures) -> None:
    before = value("headrace_training_attempts_total", result="failed")
    failed = status(phase="Retrying", rayJobName=None, failures=1)
    for each in (status(), failed, failed, failed):
        measures.see(KEY, each)
    assert value("headrace_training_attempts_total", result="failed") == before + 1


def test_what_happened_before_the_operator_started_is_not_counted(measures: Measures) -> None:
    before = value("headrace_training_gpu_seconds_total")
    measures.see(KEY, status(gpuSeconds=1000))
    measures.see(KEY, status(gpuSeconds=1060))
    assert value("headrace_training_gpu_seconds_total") == before + 60


def test_the_wait_for_the_driver_is_measured_once_an_attempt(measures: Measures) -> None:
    before = value("headrace_training_queue_wait_seconds_sum")
    for each in (status(phase="Waiting"), status(**STARTED), status(**STARTED, cpuSeconds=4)):
        measures.see(KEY, each)
    assert value("headrace_training_queue_wait_seconds_sum") == before + 45


def test_runs_are_shown_by_phase_and_those_that_are_gone_are_not(measures: Measures) -> None:
    measures.see(KEY, status())
    measures.see(Key("team", "gone"), status())
    measures.show([KEY])
    assert value("headrace_training_runs", phase="Running") == 1
    assert value("headrace_training_runs", phase="Failed") == 0
    measures.show([])
    assert value("headrace_training_runs", phase="Running") == 0
