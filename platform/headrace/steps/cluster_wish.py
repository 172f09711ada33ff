"""What a deploy step wishes of a ModelDeployment, and what would change one into another. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from headrace.api.model_deployment import ModelDeploymentSpec
from headrace.api.pods import PodSettings
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
            "pods": _fitting(site.pods, part["resources"]),
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


def _fitting(pods: PodSettings, resources: Mapping[str, Any]) -> PodSettings:
    """PODS whose workers have room for one replica of RESOURCES at least, and no GPU that none asks for."""
    cpus, gpus = float(resources.get("cpus") or 1.0), float(resources.get("gpus") or 0.0)
    text = pods.worker.cpu
    there = float(text[:-1]) / 1000 if text.endswith("m") else float(text)
    cpu = text if there >= cpus else str(math.ceil(cpus))
    return pods.model_copy(update={"worker": pods.worker.model_copy(update={"cpu": cpu, "gpu": math.ceil(gpus)})})
