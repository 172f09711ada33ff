"""API objects as what a plan is made from, and what of each stays in memory, of ten thousand runs at once.

What the `keep_*` functions drop, the others must not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from headrace_operators.kinds import ATTEMPT_LABEL
from headrace_operators.pods import kept_metadata
from headrace_operators.runtime.conditions import find, parse_time
from headrace_operators.runtime.kinds import Object, controller_of
from headrace_operators.training_run.observe import Job, Place

_IDENTITY = ("name", "namespace", "uid")
LOG_TAIL = 4000  # characters of a RayJob's message, whose end holds what the driver said last


def job_of(obj: Object, owner_uid: str) -> Job:
    """OBJ, a RayJob, as seen by the TrainingRun of OWNER_UID."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    owner = controller_of(obj)
    info = status.get("rayJobInfo") or {}
    number = (metadata.get("labels") or {}).get(ATTEMPT_LABEL, "")
    return Job(
        name=metadata["name"],
        uid=metadata["uid"],
        attempt=int(number) if number.isdecimal() else 0,
        owned=owner is not None and owner["uid"] == owner_uid,
        terminating="deletionTimestamp" in metadata,
        suspended=bool((obj.get("spec") or {}).get("suspend")),
        generation=int(metadata.get("generation", 1)),
        deployment=status.get("jobDeploymentStatus") or "",
        status=status.get("jobStatus") or "",
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        start_time=_moment(status.get("startTime")),
        driver_start_time=info.get("startTime"),
        end_time=_moment(status.get("endTime")),
    )


def place_of(workloads: Iterable[Object], job_name: str | None) -> Place | None:
    """The Workload of the RayJob JOB_NAME."""
    for obj in workloads:
        owner = controller_of(obj)
        if owner is not None and owner["name"] == job_name:
            conditions = (obj.get("status") or {}).get("conditions") or ()
            reserved, evicted = find(conditions, "QuotaReserved"), find(conditions, "Evicted")
            admitted = find(conditions, "Admitted")
            return Place(
                admitted=admitted is not None and admitted["status"] == "True",
                waits=str(reserved.get("message", "")) if reserved and reserved["status"] != "True" else "",
                evicted=f"{evicted.get('reason')}: {evicted.get('message')}"
                if evicted and evicted["status"] == "True"
                else "",
            )
    return None


def refusal_of(clusters: Iterable[Object], attempt: int) -> str:
    """Why KubeRay could not make pods of the attempt's RayCluster."""
    for obj in clusters:
        if (obj["metadata"].get("labels") or {}).get(ATTEMPT_LABEL) == str(attempt):
            failure = find((obj.get("status") or {}).get("conditions") or (), "ReplicaFailure")
            if failure is not None and failure["status"] == "True":
                return str(failure.get("message") or failure.get("reason"))
    return ""


def keep_job(obj: Object) -> Object:
    """What of a RayJob stays in memory."""
    status = obj.get("status") or {}
    kept = ("jobDeploymentStatus", "jobStatus", "reason", "startTime", "endTime", "rayJobInfo")
    said = {"message": status["message"][-LOG_TAIL:]} if status.get("message") else {}
    return {
        "metadata": kept_metadata(
            obj, ("name", "namespace", "uid", "generation", "deletionTimestamp", "ownerReferences")
        ),
        "spec": {"suspend": bool((obj.get("spec") or {}).get("suspend"))},
        "status": {name: status[name] for name in kept if status.get(name)} | said,
    }


def keep_cluster(obj: Object) -> Object:
    """What of a RayCluster stays in memory: whether its pods are refused."""
    failure = find((obj.get("status") or {}).get("conditions") or (), "ReplicaFailure")
    conditions = [{name: failure.get(name, "") for name in ("type", "status", "reason", "message")}] if failure else []
    return {"metadata": kept_metadata(obj, _IDENTITY), "status": {"conditions": conditions}}


def keep_workload(obj: Object) -> Object:
    """What of a Kueue Workload stays in memory."""
    kept = ("type", "status", "reason", "message")
    conditions = [
        {name: entry.get(name, "") for name in kept}
        for entry in (obj.get("status") or {}).get("conditions") or ()
        if entry["type"] in ("QuotaReserved", "Admitted", "Evicted")
    ]
    return {
        "metadata": kept_metadata(obj, (*_IDENTITY, "ownerReferences")),
        "status": {"conditions": conditions},
    }


def _moment(text: str | None) -> datetime | None:
    return parse_time(text) if text else None
