"""What is counted of training runs: what was stored, once."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.api.training_run import TrainingRunStatus
from headrace_operators.runtime import metrics
from headrace_operators.runtime.kinds import Key
from headrace_operators.training_run.measures import Measures, result, summary

KEY = Key("team", "digits")
CLOCK = [1000.0]
NOON = 1795694400.0  # 2026-11-26, UTC
UNDER_WAY = {"phase": "Running", "attempt": 1, "rayJobName": "digits-1"}
STARTED = {"attemptStartTime": "2026-11-26T12:00:00Z", "jobStartTime": "2026-11-26T12:00:45Z"}


def status(**fields: Any) -> TrainingRunStatus:
    return TrainingRunStatus.model_validate({**UNDER_WAY, **fields})


def value(name: str, /, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def running(truth: str, reason: str, **fields: Any) -> TrainingRunStatus:
    """A status whose condition Running has this status and reason since noon."""
    said = {"type": "Running", "status": truth, "reason": reason, "lastTransitionTime": "2026-11-26T12:00:00Z"}
    return status(**fields, conditions=[said])


def shown(name: str) -> int:
    """How many series of a metric are there."""
    return sum(len(family.samples) for family in metrics.REGISTRY.collect() if family.name == name)


@pytest.fixture
def measures() -> Measures:
    return Measures(lambda: CLOCK[0])


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
    before = value("headrace_training_attempts_total", namespace="team", result="failed")
    failed = status(phase="Retrying", rayJobName=None, failures=1)
    for each in (status(), failed, failed, failed):
        measures.see(KEY, each)
    assert value("headrace_training_attempts_total", namespace="team", result="failed") == before + 1


def test_what_happened_before_the_operator_started_is_not_counted(measures: Measures) -> None:
    before = value("headrace_training_gpu_seconds_total", namespace="team")
    measures.see(KEY, status(gpuSeconds=1000))
    measures.see(KEY, status(gpuSeconds=1060))
    assert value("headrace_training_gpu_seconds_total", namespace="team") == before + 60


def test_the_wait_for_the_driver_is_measured_once_an_attempt(measures: Measures) -> None:
    before = value("headrace_training_queue_wait_seconds_sum", namespace="team")
    for each in (status(phase="Waiting"), status(**STARTED), status(**STARTED, cpuSeconds=4)):
        measures.see(KEY, each)
    assert value("headrace_training_queue_wait_seconds_sum", namespace="team") == before + 45


def test_runs_are_shown_by_phase_and_those_that_are_gone_are_not(measures: Measures) -> None:
    measures.see(KEY, status())
    measures.see(Key("team", "gone"), status())
    measures.show([KEY])
    assert value("headrace_training_runs", namespace="team", phase="Running") == 1
    assert value("headrace_training_runs", namespace="team", phase="Failed") == 0
    measures.show([])
    assert value("headrace_training_runs", namespace="team", phase="Running") == 0


def test_counters_of_a_namespace_begin_at_nothing(measures: Measures) -> None:
    measures.see(Key("new-team", "digits"), status())
    assert metrics.REGISTRY.get_sample_value(
        "headrace_training_attempts_total", {"namespace": "new-team", "result": "failed"}
    ) == pytest.approx(0)


def test_since_when_and_why_a_run_waits_is_shown(measures: Measures) -> None:
    waits = running("False", "Unschedulable", phase="Waiting")
    measures.see(KEY, waits)
    measures.show([KEY])
    of = {"namespace": "team", "name": "digits", "reason": "Unschedulable"}
    assert value("headrace_training_run_waiting_since_timestamp_seconds", **of) == NOON
    measures.see(KEY, running("True", "DriverRuns"))
    measures.show([KEY])
    assert value("headrace_training_run_waiting_since_timestamp_seconds", **of) == 0


@pytest.mark.parametrize(
    "rests",
    [
        running("False", "Suspended", phase="Suspended"),
        running("False", "Failed", phase="Failed", completionTime="2026-11-26T13:00:00Z"),
    ],
)
def test_a_run_that_rests_or_is_over_waits_for_nothing(measures: Measures, rests: TrainingRunStatus) -> None:
    measures.see(KEY, rests)
    measures.show([KEY])
    assert shown("headrace_training_run_waiting_since_timestamp_seconds") == 0


def test_of_thousands_that_wait_the_fifty_that_wait_longest_are_shown(measures: Measures) -> None:
    keys = [Key("team", f"run-{number}") for number in range(200)]
    for key in keys:
        measures.see(key, running("False", "Unschedulable", phase="Waiting"))
    measures.show(keys)
    assert shown("headrace_training_run_waiting_since_timestamp_seconds") == 50


def test_a_long_queue_and_many_mistakes_hide_none_that_no_node_fits(measures: Measures) -> None:
    early = {"type": "Running", "status": "False", "lastTransitionTime": "2026-11-25T12:00:00Z"}
    keys = [Key("team", f"{reason}-{number}") for reason in ("Queued", "SpecInvalid") for number in range(60)]
    for key in keys:
        said = early | {"reason": key.name.partition("-")[0]}
        measures.see(key, status(phase="Waiting", conditions=[said]))
    measures.see(KEY, running("False", "Unschedulable", phase="Waiting"))
    measures.show([*keys, KEY])
    of = {"namespace": "team", "name": "digits", "reason": "Unschedulable"}
    assert value("headrace_training_run_waiting_since_timestamp_seconds", **of) == NOON
    assert shown("headrace_training_run_waiting_since_timestamp_seconds") == 50 + 50 + 1


def test_progress_is_when_a_run_last_reported_something_new(measures: Measures) -> None:
    def progress() -> float:
        measures.show([KEY])
        return value("headrace_training_run_progress_timestamp_seconds", namespace="team", name="digits")

    CLOCK[0] = 1000.0
    measures.see(KEY, status(metrics={"train.loss": 0.5}))
    CLOCK[0] = 2000.0
    measures.see(KEY, status(metrics={"train.loss": 0.5}))
    assert progress() == 1000
    measures.see(KEY, status(metrics={"train.loss": 0.4}))
    assert progress() == 2000
    measures.see(KEY, status(phase="Retrying"))
    assert progress() == 0


def test_while_mlflow_cannot_be_read_nobody_says_that_a_run_stands_still(measures: Measures) -> None:
    unread = {"type": "MLflowReachable", "status": "False", "reason": "Unreachable"}
    measures.see(KEY, status(conditions=[unread | {"lastTransitionTime": "2026-11-26T12:00:00Z"}]))
    measures.show([KEY])
    assert shown("headrace_training_run_progress_timestamp_seconds") == 0
