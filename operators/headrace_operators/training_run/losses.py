"""How an attempt under way is found to be over though its RayJob does not say so: deleted, evicted, its head lost.

KubeRay counts none of these: it would run the entrypoint again, or wait for ever.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from headrace_operators.runtime.conditions import parse_time
from headrace_operators.training_run.observe import Job, Observed
from headrace_operators.training_run.outcome import Over

# A head that is gone is also how a run ends or is suspended, and its RayJob's own event may come a little later.
HEAD_GONE_SECONDS = 5.0
PRE_RUNNING_SLACK_SECONDS = 60.0  # after KubeRay's own deadline, before we give up on the attempt ourselves
# Who takes a pod away for reasons that are not the run's: a run with a higher priority, a person who drains the node.
_TAKEN_AWAY = {"PreemptionByScheduler", "EvictionByEvictionAPI"}
_EVICTED_GENERATION = 3  # of a RayJob: made (1), admitted by the queue (2), evicted (3)


def deleted(seen: Observed, job: Job | None) -> bool:
    """The attempt's RayJob was there, and somebody deleted it."""
    uid = seen.status.ray_job_uid
    return (uid is not None and (job is None or job.uid != uid)) or (job is not None and job.owned and job.terminating)


def evicted(seen: Observed, job: Job) -> Over | None:
    """Kueue took the attempt's place away. Its driver's claim is for one head, so what comes back is another attempt;
    an attempt that has not got as far as a driver waits on in the queue."""
    if seen.status.head_pod_uid is None or not job.suspended:
        return None
    words = seen.place.evicted if seen.place is not None and seen.place.evicted else "suspended"
    return Over("Evicted", f"the queue took RayJob {job.name} back: {words}", "interrupted")


def head_lost(seen: Observed, job: Job, now: datetime) -> Over | float | None:
    """The driver's head is lost; or seconds until that is certain."""
    status, head = seen.status, seen.head
    if job.suspended:
        return None  # its pods go because the queue took it back
    if status.head_pod_uid is None and seen.head_gone is None:
        return _head_failed(seen, job)
    if head is not None and head.alive and head.uid != status.head_pod_uid:
        if job.generation >= _EVICTED_GENERATION:
            return Over("Evicted", f"the queue took RayJob {job.name} back and let it go again", "interrupted")
        return Over("HeadLost", f"the head of RayJob {job.name} was lost; another one is there")
    if _driver_began_again(seen, job):
        return Over("HeadLost", f"the driver of RayJob {job.name} began again: its head was lost in between")
    if seen.head_gone is None:
        return None
    left = HEAD_GONE_SECONDS - (now - seen.head_gone.since).total_seconds()
    return left if left > 0 else _gone(seen, job)


def too_late(seen: Observed, job: Job, now: datetime) -> Over | None:
    """KubeRay should have given up, and has not."""
    left = backstop(seen, job, now)
    if left is None or left > 0:
        return None
    message = f"RayJob {job.name}: its pods and image were not ready within preRunningDeadlineSeconds"
    return Over("PreRunningDeadlineExceeded", message)


def backstop(seen: Observed, job: Job, now: datetime | None = None) -> float | None:
    """Seconds until we give up on an attempt that does not run (from NOW, or from KubeRay's start of it)."""
    if job.deployment not in ("Initializing", "Waiting") or job.suspended or job.start_time is None:
        return None
    allowed = timedelta(seconds=seen.spec.pre_running_deadline_seconds + PRE_RUNNING_SLACK_SECONDS)
    return (job.start_time + allowed - (now or job.start_time)).total_seconds()


def _head_failed(seen: Observed, job: Job) -> Over | None:
    head = seen.head
    if job.deployment != "Initializing" or head is None or head.terminating or head.phase != "Failed":
        return None
    if head.disruption in _TAKEN_AWAY:
        return _taken_away(job, head.disruption)
    words = head.disruption or head.ended or "it failed"
    return Over("HeadFailed", f"the head of RayJob {job.name} ended before the driver ran: {words}")


def _driver_began_again(seen: Observed, job: Job) -> bool:
    before, now = seen.status.job_start_time, job.driver_start_time
    return before is not None and now is not None and parse_time(now) != parse_time(before)


def _gone(seen: Observed, job: Job) -> Over:
    gone = seen.head_gone
    assert gone is not None
    if gone.disruption in _TAKEN_AWAY:
        return _taken_away(job, gone.disruption)
    words = gone.disruption or gone.words
    return Over("HeadLost", f"the head of RayJob {job.name} was lost" + (f": {words}" if words else ""))


def _taken_away(job: Job, by: str) -> Over:
    return Over("HeadTakenAway", f"the head of RayJob {job.name} was taken away: {by}", "interrupted")
