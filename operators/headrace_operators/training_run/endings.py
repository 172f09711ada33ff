"""How an attempt is closed, and how a run ends."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from headrace_operators.runtime.actions import Action, Tell
from headrace_operators.runtime.conditions import parse_time, rfc3339
from headrace_operators.training_run.observe import Job, Observed
from headrace_operators.training_run.outcome import Over
from headrace_operators.training_run.status import Step

REPORT_SECONDS = 15.0  # the longest that an end or a next attempt waits for MLflow's last word
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 10.0, 300.0
INTERRUPTED_SECONDS = 5.0  # before an attempt that was taken away comes again

NO_ATTEMPT: Final[dict[str, Any]] = {
    "ray_job_name": None,
    "ray_job_uid": None,
    "head_pod_uid": None,
    "job_start_time": None,
    "next_attempt_time": None,
}


def success(seen: Observed, job: Job, now: datetime) -> Step:
    """The run has succeeded, as soon as its last report is read."""
    said = f"attempt {seen.status.attempt} has trained to the end"
    if (left := report_pending(seen, now)) > 0:
        return Step("Running", f"{said}; its last report is read", ("DriverRuns", said), again=left)
    changes = {"completion_time": rfc3339(now), "ray_job_uid": job.uid}
    told = (Tell("Succeeded", said),)
    return Step("Succeeded", said, ("Ended", said), changes, told, succeeded=("True", "Trained", said))


def failure(seen: Observed, reason: str, message: str, now: datetime, told: tuple[Action, ...] = ()) -> Step:
    """The run has failed for good. What of its RayJob still lives is deleted by the plan after this one."""
    said = f"attempt {seen.status.attempt}: {message}"
    told = (*told, Tell("Failed", f"{reason}: {said}", "Warning"))
    changes = {"completion_time": rfc3339(now), "next_attempt_time": None}
    return Step("Failed", said, (reason, message), changes, told, succeeded=("False", reason, said))


def close(seen: Observed, job: Job | None, ended: Over, now: datetime) -> Step:
    """The attempt under way is over: count it if it counts, and say when the next one begins."""
    if ended.kind == "suspended":
        said = (Tell("Suspended", f"attempt {seen.status.attempt} ends: {ended.message}"),)
        return Step("Suspended", ended.message, _said(ended), NO_ATTEMPT, said, suspended=True)
    failures = seen.status.failures + (ended.kind != "interrupted")
    final = ended.kind == "permanent" or failures > seen.spec.max_retries
    if final and job is not None and job.ended and (left := report_pending(seen, now)) > 0:
        return Step("Running", f"{ended.message}; its last report is read", ("DriverRuns", ended.message), again=left)
    told = _told(seen, ended)
    if final:
        return _last(seen, ended, failures, now, told)
    moment = rfc3339(now + timedelta(seconds=_backoff(ended, failures)))
    changes = NO_ATTEMPT | {"failures": failures, "next_attempt_time": moment}
    message = f"attempt {seen.status.attempt}: {ended.message}; next attempt at {moment}"
    return Step("Retrying", message, (ended.reason, f"attempt {seen.status.attempt}: {ended.message}"), changes, told)


def report_awaited(seen: Observed) -> datetime | None:
    """When an attempt ended whose last report is still to be read; None if none is needed."""
    status, job = seen.status, seen.job
    if status.completion_time is not None or status.attempt == 0:
        return None
    if status.ray_job_name is not None:
        return job.end_time if job is not None and job.owned and job.ended else None
    running = next((entry for entry in status.conditions if entry.type == "Running"), None)
    return None if running is None else parse_time(running.last_transition_time)


def report_pending(seen: Observed, now: datetime) -> float:
    """Seconds that the last report may still be waited for; 0 if it is there, or was waited for long enough."""
    ended = report_awaited(seen)
    if ended is None or is_fresh(seen, ended):
        return 0.0
    return max(0.0, REPORT_SECONDS - (now - ended).total_seconds())


def is_fresh(seen: Observed, ended: datetime) -> bool:
    """MLflow was read, with success, after the second in which the attempt ended."""
    reading = seen.reading
    return reading is not None and not reading.error and reading.read_at >= ended + timedelta(seconds=1)


def _last(seen: Observed, ended: Over, failures: int, now: datetime, told: tuple[Action, ...]) -> Step:
    reason = ended.reason if ended.kind == "permanent" else "RetriesExhausted"
    tries = "" if ended.kind == "permanent" else f" ({failures} failed attempts, maxRetries is {seen.spec.max_retries})"
    step = failure(seen, reason, f"{ended.message}{tries}", now, told)
    return Step(
        step.phase,
        step.message,
        _said(ended),
        {**step.changes, "failures": failures},
        step.actions,
        succeeded=step.succeeded,
    )


def _said(ended: Over) -> tuple[str, str]:
    return ended.reason, ended.message


def _told(seen: Observed, ended: Over) -> tuple[Action, ...]:
    message = f"attempt {seen.status.attempt}: {ended.reason}: {ended.message}"
    if ended.kind == "interrupted":
        return (Tell("Interrupted", message),)
    lost = (Tell("HeadLost", ended.message, "Warning"),) if ended.reason == "HeadLost" else ()
    return (*lost, Tell("AttemptFailed", message, "Warning"))


def _backoff(ended: Over, failures: int) -> float:
    if ended.kind == "interrupted":
        return INTERRUPTED_SECONDS
    return float(min(FIRST_BACKOFF_SECONDS * 2 ** (failures - 1), LONGEST_BACKOFF_SECONDS))
