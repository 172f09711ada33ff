"""Events as KubeRay tells of what it refuses."""

from __future__ import annotations

from kuberay_double.conditions import now_text
from kuberay_double.wire import EVENT, MANAGER, Object, Wire


async def warn(wire: Wire, about: Object, reason: str, message: str) -> None:
    """A Warning event of the object ABOUT."""
    metadata = about["metadata"]
    reference = {"apiVersion": about["apiVersion"], "kind": about["kind"], "uid": metadata["uid"]}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
        "involvedObject": reference | {"name": metadata["name"], "namespace": metadata["namespace"]},
        "type": "Warning",
        "reason": reason,
        "message": message[:1024],
        "source": {"component": f"{about['kind'].lower()}-controller"},
        "firstTimestamp": now_text(),
        "lastTimestamp": now_text(),
        "count": 1,
    }
    await wire.request("POST", EVENT.path(metadata["namespace"]), event, fieldManager=MANAGER)
