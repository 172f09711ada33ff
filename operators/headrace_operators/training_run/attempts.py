"""How an attempt begins, goes on, and is found lost."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from headrace_operators.kinds import RAY_JOB
from headrace_operators.runtime.actions import Create, Tell
from headrace_operators.runtime.conditions import parse_time, rfc3339
from headrace_operators.training_run import endings
from headrace_operators.training_run.hold import rests
from headrace_operators.training_run.losses import backstop
from headrace_operators.training_run.observe import Job, Observed
from headrace_operators.training_run.rayjob import Attempt, job_name, ray_job
from headrace_operators.training_run.status import Step
from headrace_operators.training_run.waiting import why

KUBERAY_MISSING_SECONDS = 10.0  # until we look again whether somebody has installed it


def between(seen: Observed, now: datetime) -> Step:
    """No attempt is under way: why the next one is not opened, or that it is."""
    status = seen.status
    if resting := rests(seen, now):
        return Step("Suspended", resting, last_said(seen), suspended=True)
    if seen.errors:
        return Step("Pending", f"spec is refused: {seen.errors[0]}", ("SpecInvalid", "; ".join(seen.errors)))
    if not seen.kuberay:
        return _without_kuberay()
    if remaining := living(seen):
        return Step("Retrying", f"RayJob {remaining[0].name} of an earlier attempt goes", last_said(seen))
    if taken := _taken(seen, job_name(seen.name, status.attempt + 1)):
        return taken
    if status.next_attempt_time and (left := (parse_time(status.next_attempt_time) - now).total_seconds()) > 0:
        reason, message = last_said(seen)
        return Step("Retrying", f"{message}; next attempt at {status.next_attempt_time}", (reason, message), again=left)
    if (left := endings.report_pending(seen, now)) > 0:
        return Step("Retrying", "the newest checkpoint is asked of MLflow", last_said(seen), again=left)
    return _open(seen, now)


def go_on(seen: Observed, job: Job | None, again: float | None) -> Step:
    """The attempt under way goes on; AGAIN is when to look again, if it is known that something may have happened."""
    if job is None:
        return _create(seen)
    if taken := _taken(seen, job.name):
        return taken
    status = seen.status
    changes: dict[str, Any] = {"ray_job_uid": job.uid}
    if job.deployment == "Running":
        head = seen.head.uid if seen.head is not None and seen.head.alive else None
        changes["head_pod_uid"] = status.head_pod_uid or head
        changes["job_start_time"] = status.job_start_time or job.driver_start_time
    if again is None:
        again = backstop(seen, job)
    if job.deployment == "Running" and job.status not in ("", "NEW", "PENDING"):
        message = f"attempt {status.attempt} runs as RayJob {job.name}"
        return Step("Running", message, ("DriverRuns", message), changes, again=again)
    wait = why(seen, job)
    return Step("Waiting", wait.message, (wait.reason, wait.message), changes, again=again)


def living(seen: Observed) -> list[Job]:
    """RayJobs of attempts that are over, which are not over themselves."""
    status = seen.status
    current = status.ray_job_name if status.completion_time is None else None
    return [
        job
        for job in seen.jobs
        if job.owned and 0 < job.attempt <= status.attempt and job.name != current and not job.ended
    ]


def last_said(seen: Observed) -> tuple[str, str]:
    """Reason and message of the condition Running, as they stand."""
    found = next((entry for entry in seen.status.conditions if entry.type == "Running"), None)
    return ("NotStarted", "no attempt was made yet") if found is None else (found.reason, found.message)


def _open(seen: Observed, now: datetime) -> Step:
    """Store the next attempt's number and name; its RayJob is created by the plan after this one."""
    number = seen.status.attempt + 1
    name, moment = job_name(seen.name, number), rfc3339(now)
    changes = endings.NO_ATTEMPT | {
        "attempt": number,
        "ray_job_name": name,
        "start_time": seen.status.start_time or moment,
        "attempt_start_time": moment,
    }
    message = f"attempt {number} begins as RayJob {name}"
    resumed = any(entry.type == "Suspended" and entry.status == "True" for entry in seen.status.conditions)
    told = (Tell("Resumed", f"{message}, {_from(seen)}"),) if resumed else ()
    return Step("Pending", message, ("AttemptBegins", message), changes, told)


def _create(seen: Observed) -> Step:
    """Create the RayJob of the attempt that was opened, unless it cannot be now."""
    status = seen.status
    if not seen.kuberay:
        return _without_kuberay()
    if seen.errors:
        return Step("Pending", f"spec is refused: {seen.errors[0]}", ("SpecInvalid", "; ".join(seen.errors)))
    attempt = Attempt(
        status.attempt,
        seen.image,
        status.checkpoint.uri if status.checkpoint is not None else None,
        status.mlflow.run_id if status.mlflow is not None else None,
    )
    told = Tell("AttemptCreated", f"attempt {status.attempt} is RayJob {status.ray_job_name}, {_from(seen)}")
    message = f"attempt {status.attempt} begins as RayJob {status.ray_job_name}"
    actions = (Create(RAY_JOB, ray_job(seen.run, seen.spec, attempt)), told)
    return Step("Pending", message, ("AttemptBegins", message), actions=actions)


def _from(seen: Observed) -> str:
    checkpoint = seen.status.checkpoint
    return "from the beginning" if checkpoint is None else f"from epoch {checkpoint.epoch}"


def _without_kuberay() -> Step:
    message = "the cluster has no RayJobs: install KubeRay, 1.6 or newer"
    return Step("Pending", message, ("KubeRayMissing", message), again=KUBERAY_MISSING_SECONDS)


def _taken(seen: Observed, name: str) -> Step | None:
    job = next((job for job in seen.jobs if job.name == name), None)
    if job is None or job.owned:
        return None
    message = f"RayJob {name} is there and is not this run's: delete it, or give this run another name"
    return Step("Pending", message, ("NameTaken", message))
