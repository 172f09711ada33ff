"""What steps wish of the pods of a site and of a ModelDeployment, and what would change one into another. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from headrace.api.model_deployment import ModelDeploymentSpec
from headrace.api.pods import PodSettings
from headrace.api.quantities import number
from headrace.api.site import Site


def wish(part: Mapping[str, Any], registration: Mapping[str, Any], site: Site) -> ModelDeploymentSpec:
    """The spec of the endpoint that PART asks for, with the version that REGISTRATION names, at SITE."""
    model = registration["model"]
    return ModelDeploymentSpec.model_validate(
        {
            "model": {"name": model["name"], "version": model["version"]},
            "replicas": part["replicas"],
            "resources": {key: value for key, value in part["resources"].items() if value is not None},
            "store": site.store,
            "mlflow": site.mlflow,
            "pods": fitting(
                site.pods,
                cpus=part["resources"].get("cpus") or 1.0,
                gpus=part["resources"].get("gpus") or 0.0,
                memory_bytes=part["resources"].get("memory_bytes") or 0,
            ),
            "authentication": site.authentication,
        }
    )


def changes_to(now: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be merged into NOW (RFC 7386) to make it WANTED."""
    changes: dict[str, Any] = {key: None for key in now if key not in wanted}
    for key, value in wanted.items():
        before = now.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := changes_to(before, value):
                changes[key] = inner
        elif before != value:
            changes[key] = value
    return changes


def fitting(pods: PodSettings, *, cpus: float, gpus: float, memory_bytes: int = 0) -> PodSettings:
    """PODS whose workers have room for so much at least, and no GPU that is not asked for.

    A pod's memory counts what it shares, which is not for whoever asks for MEMORY_BYTES.
    """
    worker: dict[str, Any] = {"gpu": math.ceil(gpus)}
    if number(pods.worker.cpu) < cpus:
        worker["cpu"] = str(math.ceil(cpus))
    needed = memory_bytes + number(pods.shared_memory)
    if memory_bytes and number(pods.worker.memory) < needed:
        worker["memory"] = f"{math.ceil(needed / 2**20)}Mi"
    return pods.model_copy(update={"worker": pods.worker.model_copy(update=worker)})
