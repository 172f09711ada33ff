"""Pods of Ray clusters as plans see them: whether they live, and in words why they do not start.

The words stay the same while nothing changes: they end up in statuses, and a quiet minute must write none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace_operators.runtime.kinds import Object

_IMAGE_TROUBLES = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_CONFIG_TROUBLES = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


@dataclass(frozen=True)
class Pod:
    """A pod of a Ray cluster.

    Args:
        role: "head" or "worker".
        trouble: ("image" | "config" | "crash" | "unschedulable", in words), if it does not start.
        disruption: the reason of its DisruptionTarget condition: who takes it away.
        ended: how its container ended, in words.
    """

    name: str
    uid: str
    role: str
    phase: str = "Pending"
    ready: bool = False
    terminating: bool = False
    trouble: tuple[str, str] | None = None
    disruption: str = ""
    ended: str = ""

    @property
    def alive(self) -> bool:
        """It runs, or will."""
        return not self.terminating and self.phase not in ("Failed", "Succeeded")


def pod_of(obj: Object) -> Pod:
    """OBJ, a pod."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    conditions = {entry["type"]: entry for entry in status.get("conditions") or ()}
    disruption = conditions.get("DisruptionTarget", {})
    role = (metadata.get("labels") or {}).get("ray.io/node-type", "")
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        role=role,
        phase=status.get("phase") or "Pending",
        ready=conditions.get("Ready", {}).get("status") == "True",
        terminating="deletionTimestamp" in metadata,
        trouble=_trouble(status, conditions.get("PodScheduled", {})),
        disruption=disruption.get("reason", "") if disruption.get("status") == "True" else "",
        ended=_ended(status),
    )


def keep_pod(obj: Object) -> Object:
    """What of a pod stays in memory."""
    status = obj.get("status") or {}
    kept = ("type", "status", "reason", "message")
    conditions = [
        {name: entry[name] for name in kept if entry.get(name)}
        for entry in status.get("conditions") or ()
        if entry["type"] in ("DisruptionTarget", "PodScheduled", "Ready")
    ]
    containers = [
        {name: entry[name] for name in ("image", "state", "lastState") if entry.get(name)}
        for entry in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    ]
    return {
        "metadata": kept_metadata(obj, ("name", "namespace", "uid", "deletionTimestamp")),
        "status": {"phase": status.get("phase"), "conditions": conditions, "containerStatuses": containers},
    }


def kept_metadata(obj: Object, kept: Iterable[str]) -> dict[str, Any]:
    """What of an object's metadata stays in memory: the KEPT names, and the labels that plans read."""
    metadata = obj["metadata"]
    ours = {
        name: value
        for name, value in (metadata.get("labels") or {}).items()
        if name.startswith("headrace.dev/") or name == "ray.io/node-type"
    }
    return {name: metadata[name] for name in (*kept, "resourceVersion") if name in metadata} | {"labels": ours}


def _trouble(status: Mapping[str, Any], scheduled: Mapping[str, Any]) -> tuple[str, str] | None:
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return "unschedulable", str(scheduled.get("message", ""))
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in _IMAGE_TROUBLES:  # not the reason itself: it goes to and fro while the kubelet tries again
            return "image", str(container.get("image", ""))
        if reason in _CONFIG_TROUBLES:
            return "config", str(waiting.get("message") or reason)
        if reason == "CrashLoopBackOff":
            return "crash", _ended({"containerStatuses": [{"state": container.get("lastState") or {}}]})
    return None


def _ended(status: Mapping[str, Any]) -> str:
    for container in status.get("containerStatuses") or ():
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended and (ended.get("exitCode") or ended.get("reason") not in ("Completed", None)):
            return f"{ended.get('reason') or 'Error'}, exit code {ended.get('exitCode')}"
    return ""
