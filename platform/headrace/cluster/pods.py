"""What pods say of themselves, in words: why they wait, how they ended.

Kubeflow's API tells neither why a step's pod does not start nor that it was killed for its memory; the pod does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headrace.api.kinds import POD, Object
from headrace.cluster.cluster import Cluster

_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable")
_CONFIGURATION = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_KILLED = 137  # by SIGKILL


@dataclass(frozen=True)
class Pod:
    """A pod.

    Args:
        phase: Pending, Running, Succeeded, Failed or Unknown.
        waits: why it does not run, "" where it runs or has ended, or nothing is known yet.
        failure: how it failed, "" where it did not.
        created: seconds since 1970.
    """

    name: str
    labels: Mapping[str, str]
    phase: str
    waits: str = ""
    failure: str = ""
    created: float | None = None


def pods(cluster: Cluster, labels: str) -> list[Pod]:
    """The pods that the label selector LABELS chooses, oldest first."""
    found = cluster.list(POD, labels=labels)
    return [pod_of(obj) for obj in sorted(found, key=lambda obj: str(obj["metadata"].get("creationTimestamp")))]


def pod_of(obj: Object) -> Pod:
    """OBJ, as it tells of itself."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    phase, created = str(status.get("phase") or "Unknown"), metadata.get("creationTimestamp")
    return Pod(
        name=str(metadata["name"]),
        labels=dict(metadata.get("labels") or {}),
        phase=phase,
        waits=next(_waits(obj), "") if phase in ("Pending", "Running") else "",
        failure=next(_failures(status), "") if phase == "Failed" else "",
        created=None if created is None else datetime.fromisoformat(str(created)).timestamp(),
    )


def _waits(obj: Object) -> Iterator[str]:
    """Why OBJ does not run, the most telling first."""
    status = obj.get("status") or {}
    images = {each["name"]: each.get("image", "") for each in (obj.get("spec") or {}).get("containers") or ()}
    for container in _containers(status):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        name = str(container.get("name"))
        if reason in _IMAGE:
            yield f"the image {container.get('image') or images.get(name)} cannot be pulled ({reason}): {message}"
        elif reason in _CONFIGURATION:
            yield f"container {name} cannot be started ({reason}): {message}"
        elif reason == "CrashLoopBackOff":
            yield f"container {name} crashes again and again{_last_end(container)}"
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"no node takes it ({condition.get('reason')}): {condition.get('message')}"


def _last_end(container: Mapping[str, Any]) -> str:
    ended = (container.get("lastState") or {}).get("terminated") or {}
    return f": {_end(ended)}" if ended else ""


def _failures(status: Mapping[str, Any]) -> Iterator[str]:
    """How the pod failed, the most telling first."""
    if status.get("reason"):  # of the whole pod: Evicted, Preempting, DeadlineExceeded, NodeLost
        yield f"the pod was ended ({status['reason']}): {status.get('message') or 'nothing more is said'}"
    for container in _containers(status):
        ended = (container.get("state") or {}).get("terminated") or {}
        if ended and ended.get("exitCode") != 0:
            yield f"container {container.get('name')} {_end(ended)}"
    yield "the pod failed without a word"


def _end(ended: Mapping[str, Any]) -> str:
    code, reason, message = ended.get("exitCode"), ended.get("reason"), str(ended.get("message") or "").strip()
    if reason == "OOMKilled":
        return "needed more memory than it may have, and was killed (OOMKilled): raise its memory"
    words = "was killed" if code == _KILLED else f"ended with exit code {code}"
    return f"{words}{f': {message}' if message else ''}"


def _containers(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
