"""The Ray cluster inside a RayJob and a RayService: pods that restricted Pod Security takes and KubeRay leaves alone.

KubeRay fills in what a template lacks and then owns it, and our next apply would conflict. So every template has
labels, every container its resources, and quantities stand in canonical form. Pure: settings to JSON values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.api.parts import Authentication
from headrace.api.pods import RESERVED_VARIABLES, PodResources, PodSettings
from headrace.api.quantities import canonical, whole

RAY_VERSION = "2.60.0"
SERVE_PORT = 8000
DASHBOARD_PORT = 8265
METRICS_PORT = 8080

_PORTS = {
    "gcs-server": 6379,
    "client": 10001,
    "dashboard": DASHBOARD_PORT,
    "metrics": METRICS_PORT,
    "serve": SERVE_PORT,
}
# Nothing of the image can be written. What must be goes with the pod: Ray's sessions and logs, caches.
_WRITABLE = "/tmp"  # noqa: S108 the pod's own
_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "HOME": _WRITABLE,
    "USER": "headrace",  # the image's user id may have no name
}
_SMALLEST_OBJECT_STORE_BYTES = 80_000_000  # Ray refuses less than 75 MiB


@dataclass(frozen=True)
class Pods:
    """What all pods of one cluster have in common.

    Args:
        settings: what the custom resource says of them.
        image: the image, resolved.
        labels: ours; KubeRay adds its own.
        environment: entries of `env` that hold whatever the settings say.
        defaults: variables that the settings may replace.
        secrets: Secrets whose keys become environment variables.
        annotations: of the pods, if any.
    """

    settings: PodSettings
    image: str
    labels: Mapping[str, str]
    environment: tuple[Mapping[str, Any], ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)


def reserved_variables(settings: PodSettings) -> list[str]:
    """Environment variables in SETTINGS that nobody may set, as KubeRay does or none may."""
    return sorted({entry.name for entry in settings.environment} & set(RESERVED_VARIABLES))


def cluster_spec(
    pods: Pods, authentication: Authentication, *, head_cpus: int, workers: list[dict[str, Any]]
) -> dict[str, Any]:
    """A RayClusterSpec.

    Args:
        pods: what its pods have in common.
        authentication: who may use its ports.
        head_cpus: CPUs of the head that Ray may give to actors and tasks.
        workers: its worker groups, made by `worker_group`.
    """
    auth: dict[str, Any] = {"mode": "token" if authentication.mode == "token" else "disabled"}
    if authentication.mode == "token" and authentication.secret_name:
        auth["secretName"] = authentication.secret_name
    return {
        "rayVersion": RAY_VERSION,
        "authOptions": auth,
        "headGroupSpec": _head_group(pods, head_cpus),
        "workerGroupSpecs": workers,
    }


def worker_group(
    pods: Pods, name: str, replicas: int, *, readiness_probe: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A group of REPLICAS like workers, each of which gives Ray all of its CPUs."""
    resources = pods.settings.worker
    container = _container(pods, "ray-worker", resources, {"serve": SERVE_PORT, "metrics": METRICS_PORT})
    if readiness_probe is not None:
        container["readinessProbe"] = dict(readiness_probe)
    return {
        "groupName": name,
        "replicas": replicas,
        "minReplicas": replicas,
        "maxReplicas": replicas,
        "numOfHosts": 1,
        "scaleStrategy": {},
        "rayStartParams": _start_parameters(pods, resources, ray_cpus(resources)),
        "template": _template(pods, container),
    }


def ray_cpus(resources: PodResources) -> int:
    """CPUs that Ray gives to actors and tasks of a pod with RESOURCES: whole ones, at least one."""
    return max(1, whole(resources.cpu))


def _head_group(pods: Pods, cpus: int) -> dict[str, Any]:
    head = pods.settings.head
    return {
        "rayStartParams": _start_parameters(pods, head, cpus) | {"dashboard-host": "0.0.0.0"},  # noqa: S104 in a pod
        "template": _template(pods, _container(pods, "ray-head", head, _PORTS)),
    }


def _start_parameters(pods: Pods, resources: PodResources, cpus: int) -> dict[str, str]:
    """Options of `ray start`. Half of /dev/shm is the object store's, half the data loaders'; larger than /dev/shm, Ray
    would put it on the disk."""
    store = max(_SMALLEST_OBJECT_STORE_BYTES, whole(pods.settings.shared_memory) // 2)
    parameters = {
        "num-cpus": str(cpus),
        "object-store-memory": str(store),
        "metrics-export-port": str(METRICS_PORT),
    }
    return parameters | ({"num-gpus": str(resources.gpu)} if resources.gpu else {})


def _container(pods: Pods, name: str, resources: PodResources, ports: Mapping[str, int]) -> dict[str, Any]:
    asked = {"cpu": canonical(resources.cpu), "memory": canonical(resources.memory)}
    if resources.gpu:
        asked[pods.settings.gpu_resource] = str(resources.gpu)
    container: dict[str, Any] = {
        "name": name,
        "image": pods.image,
        "imagePullPolicy": pods.settings.image_pull_policy,
        "env": _environment(pods),
        "ports": [{"name": port, "containerPort": number, "protocol": "TCP"} for port, number in ports.items()],
        "resources": {"requests": asked, "limits": dict(asked)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 the pod's own
            {"name": "tmp", "mountPath": _WRITABLE},
        ],
    }
    if pods.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in pods.secrets]
    return container


def _environment(pods: Pods) -> list[dict[str, Any]]:
    """Each name once, sorted: the API server takes no duplicates, and an order that changes is a change."""
    entries: dict[str, dict[str, Any]] = {
        name: {"value": value} for name, value in {**_DEFAULTS, **pods.defaults}.items()
    }
    entries |= {e.name: {"value": e.value} if e.value else {} for e in pods.settings.environment}
    entries |= {e["name"]: {key: value for key, value in e.items() if key != "name"} for e in pods.environment}
    return [{"name": name, **entries[name]} for name in sorted(entries)]


def _template(pods: Pods, container: Mapping[str, Any]) -> dict[str, Any]:
    settings = pods.settings
    metadata: dict[str, Any] = {"labels": dict(pods.labels)}
    if pods.annotations:
        metadata["annotations"] = dict(pods.annotations)
    shared_memory = {"medium": "Memory", "sizeLimit": canonical(settings.shared_memory)}
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [dict(container)],
        "volumes": [{"name": "shared-memory", "emptyDir": shared_memory}, {"name": "tmp", "emptyDir": {}}],
    }
    if settings.service_account_name:
        spec["serviceAccountName"] = settings.service_account_name
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.node_selector:
        spec["nodeSelector"] = dict(settings.node_selector)
    if settings.tolerations:
        spec["tolerations"] = [toleration.to_record() for toleration in settings.tolerations]
    if settings.priority_class_name:
        spec["priorityClassName"] = settings.priority_class_name
    return {"metadata": metadata, "spec": spec}
