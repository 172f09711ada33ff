"""What is to be done about a TrainingRun: a pure function of what was seen and of the time.

Between attempts `rayJobName` is empty; while one is under way it names its RayJob. Whatever must survive a kill is a
step of its own, which writes the status and does nothing else: an attempt is opened (number and name are stored) before
its RayJob is created, and closed (its failure is counted) before that RayJob is deleted. So the same plan, made again
after a kill, never makes a second RayJob of an attempt and never counts a failure twice.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from headrace_operators.kinds import RAY_JOB, TRAINING_RUN
from headrace_operators.runtime.actions import Action, Delete, Plan, Tell
from headrace_operators.runtime.conditions import parse_time
from headrace_operators.runtime.kinds import key_of
from headrace_operators.training_run import attempts, endings, losses
from headrace_operators.training_run.hold import hold_ends, rests
from headrace_operators.training_run.observe import Job, Observed
from headrace_operators.training_run.outcome import Over, over, succeeded
from headrace_operators.training_run.status import Step, status_of
from headrace_operators.training_run.waiting import TOLD, TROUBLES


def plan(seen: Observed, now: datetime) -> Plan:
    """What to do about a TrainingRun."""
    if seen.status.completion_time is not None:
        return _finished(seen, now)
    step = _step(seen, now)
    deletions = _leftovers(seen)
    told = _events(seen, step)
    return Plan((*deletions, *step.actions, *told), status_of(seen, step, now), _again(seen, step, now))


def _step(seen: Observed, now: datetime) -> Step:
    job = seen.job
    under_way = seen.status.ray_job_name is not None
    if under_way and job is not None and job.owned and succeeded(job):
        return endings.success(seen, job, now)
    if (end := _deadline(seen)) is not None and now >= end:
        return endings.failure(seen, "DeadlineExceeded", "it did not end within deadlineSeconds", now)
    if not under_way:
        return attempts.between(seen, now)
    ended = _ended(seen, job, now)
    if isinstance(ended, Over):
        return endings.close(seen, job, ended, now)
    return attempts.go_on(seen, job, ended)


def _ended(seen: Observed, job: Job | None, now: datetime) -> Over | float | None:
    """How the attempt under way ended; seconds, if that is known only then; None if it goes on."""
    if job is not None and job.owned and (found := over(job)) is not None:
        return found
    if resting := rests(seen, now):
        return Over("Suspended", f"{resting}; the checkpoint stays", "suspended")
    if losses.deleted(seen, job):
        return Over("RayJobDeleted", f"somebody deleted RayJob {seen.status.ray_job_name}")
    if job is None or not job.owned:
        return None
    return losses.evicted(seen, job) or losses.head_lost(seen, job, now) or losses.too_late(seen, job, now)


def _finished(seen: Observed, now: datetime) -> Plan:
    """Nothing, but to clean up: a RayJob that still lives after a deadline, and the run itself after its time."""
    assert seen.status.completion_time is not None
    status = seen.run["status"] if seen.status.observed_generation == seen.generation else _look(seen)
    ttl = seen.spec.ttl_seconds_after_finished
    if ttl is None:
        return Plan(_leftovers(seen), status)
    left = (parse_time(seen.status.completion_time) + timedelta(seconds=ttl) - now).total_seconds()
    if left > 0:
        return Plan(_leftovers(seen), status, left)
    key = key_of(seen.run)
    return Plan((Delete(TRAINING_RUN, key.namespace, key.name, seen.run["metadata"]["uid"]),))


def _look(seen: Observed) -> dict[str, object]:
    """The status of a finished run whose spec was edited: seen, and without effect."""
    return {**seen.run["status"], "observedGeneration": seen.generation}


def _leftovers(seen: Observed) -> tuple[Action, ...]:
    """Deletions of RayJobs that live on after their attempt: it was lost, suspended, evicted or too late."""
    return tuple(
        Delete(RAY_JOB, key_of(seen.run).namespace, job.name, job.uid)
        for job in attempts.living(seen)
        if not job.terminating
    )


def _deadline(seen: Observed) -> datetime | None:
    seconds, start = seen.spec.deadline_seconds, seen.status.start_time
    return None if seconds is None or start is None else parse_time(start) + timedelta(seconds=seconds)


def _again(seen: Observed, step: Step, now: datetime) -> float | None:
    """When to look again: for the step's sake, or because the deadline comes."""
    if step.succeeded[0] != "Unknown":
        return seen.spec.ttl_seconds_after_finished
    end = _deadline(seen)
    left = None if end is None else max(0.0, (end - now).total_seconds())
    times = (step.again, left, hold_ends(seen, now))
    return min((seconds for seconds in times if seconds is not None), default=None)


def _events(seen: Observed, step: Step) -> list[Action]:
    """What a person follows who was not told by the step itself."""
    before = next((entry for entry in seen.status.conditions if entry.type == "Running"), None)
    reason, message = step.running
    same = before is not None and before.reason == reason
    if step.phase == "Running" and (before is None or before.status != "True"):
        return [Tell("Running", message)]
    if reason in TOLD and not same:
        return [Tell("Waiting", f"{reason}: {message}", "Warning" if reason in TROUBLES else "Normal")]
    return []
