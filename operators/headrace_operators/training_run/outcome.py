"""How an attempt ended: with success, with a failure that another attempt may mend, or with one that none can.

The driver says so itself: the last line of its log, which KubeRay leaves in the RayJob's `message`, is
`HEADRACE_FAILURE {"code": ..., "message": ..., "permanent": ...}`. Without that line (killed, out of memory) the
failure is temporary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from headrace.api.reports import FAILURE_LINE
from headrace_operators.training_run.observe import Job

_LONGEST = 1000  # characters of what the driver said
_KUBERAYS = {
    "PreRunningDeadlineExceeded": "its pods and image were not ready within preRunningDeadlineSeconds",
    "DeadlineExceeded": "it passed KubeRay's deadline",
    "SubmissionFailed": "the driver could not be started",
    "JobStatusCheckTimeoutExceeded": "KubeRay could no longer reach the head",
    "JobDeploymentStatusTransitionGracePeriodExceeded": "KubeRay did not see its end",
}


@dataclass(frozen=True)
class Over:
    """An attempt that is over without success.

    Args:
        reason: one word of CamelCase.
        message: a sentence.
        kind: "temporary": counts, and is tried again; "permanent": no attempt can mend it; "interrupted": taken away
            by others and "suspended": by the user, neither of which counts.
    """

    reason: str
    message: str
    kind: Literal["temporary", "permanent", "interrupted", "suspended"] = "temporary"


def over(job: Job) -> Over | None:
    """How JOB ended, or None if it goes on or has succeeded."""
    if job.deployment == "ValidationFailed":
        return Over("RayJobInvalid", f"KubeRay refuses RayJob {job.name}: {job.message}", "permanent")
    if job.deployment == "Complete" and job.status != "SUCCEEDED":
        return Over("Stopped", f"somebody stopped the driver of RayJob {job.name} ({job.status or 'no status'})")
    if job.deployment != "Failed":
        return None
    if job.reason in _KUBERAYS:
        return Over(job.reason, f"RayJob {job.name}: {_KUBERAYS[job.reason]}")
    return _driver_failure(job)


def succeeded(job: Job) -> bool:
    """The driver ended well."""
    return job.deployment == "Complete" and job.status == "SUCCEEDED"


def _driver_failure(job: Job) -> Over:
    lines = [line.strip() for line in job.message.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith(FAILURE_LINE):
            return _told(line.removeprefix(FAILURE_LINE))
    last = lines[-1] if lines else "it left no log"
    return Over("AppFailed", f"the driver of RayJob {job.name} failed: {last[:_LONGEST]}")


def _told(text: str) -> Over:
    try:
        record = json.loads(text)
        code, message, permanent = str(record["code"]), str(record["message"]), record.get("permanent") is True
    except (ValueError, TypeError, KeyError):
        return Over("AppFailed", f"the driver failed: {text[:_LONGEST]}")
    return Over(_camel(code), message[:_LONGEST], "permanent" if permanent else "temporary")


def _camel(code: str) -> str:
    words = "".join(part[:1].upper() + part[1:] for part in code.replace("_", "-").split("-"))
    return words if words.isalnum() and words[0].isalpha() else "AppFailed"
