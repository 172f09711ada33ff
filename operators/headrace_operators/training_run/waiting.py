"""Why an attempt does not run yet, in one word and one sentence that stay the same while nothing changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from headrace_operators.pods import Pod
from headrace_operators.runtime.conditions import rfc3339
from headrace_operators.training_run.observe import Job, Observed

TROUBLES = {"PodsRefused", "ImagePullFailed", "PodMisconfigured", "WorkerCrashes", "HeadCrashes", "Unschedulable"}
TOLD = TROUBLES | {"WaitsForQuota"}  # what becomes an Event; the rest is how every start goes
_LONGEST = 500


@dataclass(frozen=True)
class Wait:
    """What an attempt waits for."""

    reason: str
    message: str


def why(seen: Observed, job: Job) -> Wait:
    """Why JOB, the current attempt's RayJob, does not run yet."""
    if job.suspended:
        return _queue(seen, job)
    if not job.deployment:
        return Wait("NotTakenUp", f"KubeRay has not taken up RayJob {job.name} yet")
    if job.deployment == "Running":
        return Wait("DriverStarts", "the pods are ready; Ray starts the driver")
    found = _refused(seen) or _pods(seen)
    return Wait(found.reason, f"{found.message[:_LONGEST]}{_deadline(seen, job)}")


def _queue(seen: Observed, job: Job) -> Wait:
    queue = seen.spec.queue or "?"
    if seen.place is None:
        return Wait("NotQueued", f"queue {queue}: Kueue has not taken up RayJob {job.name} yet; is it there?")
    words = seen.place.evicted or seen.place.waits
    if not words:
        return Wait("Queued", f"queue {queue}: waits for its turn")
    return Wait("WaitsForQuota", f"queue {queue}: {words[:_LONGEST]}")


def _refused(seen: Observed) -> Wait | None:
    return Wait("PodsRefused", f"pods cannot be made: {seen.refused}") if seen.refused else None


def _pods(seen: Observed) -> Wait:
    pods = sorted((pod for pod in seen.pods if pod.alive), key=lambda pod: (pod.role != "head", pod.name))
    for trouble in ("image", "config", "crash", "unschedulable"):
        troubled = [pod for pod in pods if pod.trouble is not None and pod.trouble[0] == trouble]
        if troubled:
            return _trouble(trouble, troubled, len(pods))
    if not any(pod.ready for pod in pods if pod.role == "head"):
        return Wait("HeadNotReady", "the head's pod starts")
    workers = [pod for pod in pods if pod.role == "worker"]
    return Wait(
        "WorkersNotReady", f"{sum(pod.ready for pod in workers)} of {seen.spec.train.workers.max} workers ready"
    )


def _trouble(kind: str, troubled: list[Pod], pods: int) -> Wait:
    first = troubled[0]
    assert first.trouble is not None
    words = first.trouble[1]
    if kind == "image":
        return Wait("ImagePullFailed", f"the {first.role}'s image cannot be pulled: {words}")
    if kind == "config":
        return Wait("PodMisconfigured", f"the {first.role}'s container cannot be made: {words}")
    if kind == "crash":
        return Wait(f"{first.role.capitalize()}Crashes", f"the {first.role}'s container ends again and again: {words}")
    return Wait("Unschedulable", f"{len(troubled)} of {pods} pods fit on no node: {words}")


def _deadline(seen: Observed, job: Job) -> str:
    if job.start_time is None:
        return ""
    end = job.start_time + timedelta(seconds=seen.spec.pre_running_deadline_seconds)
    return f" (the attempt fails at {rfc3339(end)} unless it runs by then)"
