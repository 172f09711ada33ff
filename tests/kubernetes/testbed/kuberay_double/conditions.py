"""Statuses with conditions, as KubeRay 1.6 works them out for RayClusters and RayServices. Values in, values out."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kuberay_double import shapes
from kuberay_double.wire import Object

_INITIALIZING = "RayService is initializing"


def now_text(seconds: float | None = None) -> str:
    """A time as Kubernetes writes it, of now or of SECONDS since the epoch: whole seconds."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> float:
    """The inverse of `now_text`: seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


def set_condition(status: Object, type_: str, truth: str, reason: str, message: str = "") -> None:
    """Set one condition; its time is the old one's where the truth is the same."""
    _put_condition(status, {"type": type_, "status": truth, "reason": reason, "message": message})


def set_observed(status: Object, type_: str, truth: str, reason: str, message: str = "") -> None:
    """The same for a RayService, whose conditions say which generation they are of."""
    entry = {"type": type_, "status": truth, "reason": reason, "message": message}
    _put_condition(status, entry | {"observedGeneration": status.get("observedGeneration", 0)})


def _put_condition(status: Object, entry: Object) -> None:
    conditions = status.setdefault("conditions", [])
    type_, truth = entry["type"], entry["status"]
    for position, before in enumerate(conditions):
        if before["type"] == type_:
            same = before["status"] == truth
            conditions[position] = entry | {"lastTransitionTime": before["lastTransitionTime"] if same else now_text()}
            return
    conditions.append(entry | {"lastTransitionTime": now_text()})


def is_true(status: Mapping[str, Any], type_: str) -> bool:
    """Whether the condition is there and True."""
    return any(each["type"] == type_ and each["status"] == "True" for each in status.get("conditions") or ())


def has(status: Mapping[str, Any], type_: str, reason: str) -> bool:
    """Whether the condition is there with this reason."""
    return any(each["type"] == type_ and each["reason"] == reason for each in status.get("conditions") or ())


def without_times(status: Mapping[str, Any]) -> Object:
    """STATUS without the times that change by themselves: what KubeRay compares before it writes."""
    return {name: value for name, value in status.items() if name not in ("lastUpdateTime", "stateTransitionTimes")}


def _head_ready(status: Object, head: Mapping[str, Any] | None) -> None:
    if head is None:
        set_condition(status, "HeadPodReady", "False", "HeadPodNotFound", "Head Pod not found")
        return
    ready = next((c for c in (head.get("status") or {}).get("conditions") or () if c["type"] == "Ready"), None)
    if ready is None:
        set_condition(status, "HeadPodReady", "False", "Unknown")
        return
    reason, message = ready.get("reason", ""), ready.get("message", "")
    for container in head["status"].get("containerStatuses") or ():
        if waiting := container["state"].get("waiting"):
            reason, message = waiting["reason"], f"{message}; {container['name']}: {waiting.get('message', '')}"
            break
    set_condition(status, "HeadPodReady", ready["status"], reason or "HeadPodRunningAndReady", message)


def cluster_status(
    cluster: Mapping[str, Any], head: Mapping[str, Any] | None, workers: Sequence[Mapping[str, Any]], trouble: str
) -> Object:
    """A RayCluster's status from its pods; TROUBLE is why the API server refused one."""
    status = copy.deepcopy(dict(cluster.get("status") or {}))
    wanted = sum(number for _, number in shapes.groups_of(cluster["spec"]))
    ready = [pod for pod in workers if shapes.is_ready(pod)]
    all_ready = head is not None and shapes.is_ready(head) and len(ready) == len(workers) == wanted
    status["observedGeneration"] = cluster["metadata"]["generation"]
    counts = {"readyWorkerReplicas": len(ready), "availableWorkerReplicas": len(ready), "desiredWorkerReplicas": wanted}
    status |= {name: number for name, number in counts.items() if number or name in status}
    _head_ready(status, head)
    if trouble:
        set_condition(
            status,
            "ReplicaFailure",
            "True",
            "FailedCreateHeadPod" if head is None else "FailedCreateWorkerPod",
            trouble,
        )
    elif status.get("conditions"):
        status["conditions"] = [each for each in status["conditions"] if each["type"] != "ReplicaFailure"]
    if not is_true(status, "RayClusterProvisioned"):
        truth, reason = (
            ("True", "AllPodRunningAndReadyFirstTime") if all_ready else ("False", "RayClusterPodsProvisioning")
        )
        words = (
            "All Ray Pods are ready for the first time"
            if all_ready
            else "RayCluster Pods are being provisioned for first time"
        )
        set_condition(status, "RayClusterProvisioned", truth, reason, words)
    if head is not None:
        status["head"] = {"podName": head["metadata"]["name"], "serviceName": f"{cluster['metadata']['name']}-head-svc"}
    if all_ready and status.get("state") != "ready":
        status |= {"state": "ready", "stateTransitionTimes": {"ready": now_text()}}
    status["lastUpdateTime"] = now_text()
    return status


def service_conditions(status: Object) -> None:
    """Set a RayService's conditions from the rest of its status."""
    if not status.get("conditions"):
        set_observed(status, "Ready", "False", "Initializing", _INITIALIZING)
        set_observed(status, "UpgradeInProgress", "False", "Initializing", _INITIALIZING)
    if status.get("numServeEndpoints"):
        set_observed(status, "Ready", "True", "NonZeroServeEndpoints", "Number of serve endpoints is greater than 0")
    elif is_true(status, "Ready"):
        set_observed(status, "Ready", "False", "ZeroServeEndpoints", "Number of serve endpoints dropped to 0")
    active, pending = (
        status.get(part, {}).get("rayClusterName") for part in ("activeServiceStatus", "pendingServiceStatus")
    )
    if active and pending:
        words = "Both active and pending Ray clusters exist"
        set_observed(status, "UpgradeInProgress", "True", "BothActivePendingClustersExist", words)
    elif active:
        words = "Active Ray cluster exists and no pending Ray cluster"
        set_observed(status, "UpgradeInProgress", "False", "NoPendingCluster", words)
    elif not has(status, "UpgradeInProgress", "Initializing"):
        set_observed(status, "UpgradeInProgress", "Unknown", "NoActiveCluster", "No active Ray cluster exists")
