"""What of the cluster's objects stays in memory for plans of ModelDeployments, and so what wakes them."""

from __future__ import annotations

from typing import Any

from headrace_operators.runtime.conditions import find
from headrace_operators.runtime.kinds import Object

_METADATA = ("name", "namespace", "uid", "generation", "labels", "annotations", "ownerReferences", "deletionTimestamp")


def keep_service(obj: Object) -> Object:
    """A RayService: all of its spec, to see whether somebody changed it, and what of its status is read."""
    status = obj.get("status") or {}
    ready = find(status.get("conditions") or (), "Ready")
    kept: dict[str, Any] = {name: status[name] for name in ("observedGeneration",) if name in status}
    for name in ("activeServiceStatus", "pendingServiceStatus"):
        applications = (status.get(name) or {}).get("applicationStatuses") or {}
        kept[name] = {
            "applicationStatuses": {
                application: {key: told.get(key, "") for key in ("status", "message")}
                for application, told in applications.items()
            }
        }
    if ready is not None:
        kept["conditions"] = [{name: ready.get(name, "") for name in ("type", "status", "reason", "message")}]
    return {"metadata": _metadata(obj), "spec": obj.get("spec") or {}, "status": kept}


def keep_cluster(obj: Object) -> Object:
    """A RayCluster: whether its pods are refused."""
    failure = find((obj.get("status") or {}).get("conditions") or (), "ReplicaFailure")
    conditions = [{name: failure.get(name, "") for name in ("type", "status", "reason", "message")}] if failure else []
    return {"metadata": _metadata(obj), "status": {"conditions": conditions}}


def keep_slice(obj: Object) -> Object:
    """An EndpointSlice: the addresses, whether they are ready, and the ports."""
    endpoints = [
        {
            "addresses": endpoint.get("addresses") or [],
            "conditions": {"ready": (endpoint.get("conditions") or {}).get("ready")},
        }
        for endpoint in obj.get("endpoints") or ()
    ]
    ports = [{"name": port.get("name"), "port": port.get("port")} for port in obj.get("ports") or ()]
    return {"metadata": _metadata(obj), "endpoints": endpoints, "ports": ports}


def _metadata(obj: Object) -> dict[str, Any]:
    return {name: obj["metadata"][name] for name in _METADATA if name in obj["metadata"]}
