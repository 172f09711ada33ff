"""The RayService of a ModelDeployment: a Ray cluster whose only application is the front.

The version stands in `serveConfigV2` and nowhere else: another version is an in-place change, without a new cluster.
What is in force is told by the configuration's id, which the replicas answer; so it names all that makes a wish: the
version with its package, the candidates, the cluster's shape, and the try. Pure: a spec to JSON values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from headrace.api.model_deployment import ModelDeploymentSpec
from headrace.api.parts import GROUP
from headrace.base.jsonfile import sha256_of
from headrace.serving.autoscaling import ReplicaRange
from headrace.serving.client import application_record, serve_record
from headrace.serving.contract import Candidate, FrontConfig, Shadow, StableVersion
from headrace.serving.ingress import TUNING
from headrace_operators.kinds import MODEL_DEPLOYMENT_LABEL, RAY_SERVICE
from headrace_operators.model_deployment.sizing import worker_count
from headrace_operators.ray_pods import SERVE_PORT, Pods, cluster_spec, ray_cpus, worker_group
from headrace_operators.runtime.kinds import Key, Object, owner_reference

# On the ModelDeployment: another value is another wish for the same version, so a failed one is tried again at once.
RETRY_ANNOTATION = f"{GROUP}/retry"
# On the RayService: what the registry was asked for, and the hash of what was applied.
MODEL_ANNOTATION = f"{GROUP}/model"
APPLIED_ANNOTATION = f"{GROUP}/applied"
WORKERS = "workers"

_WORKER_PROBE = {
    # KubeRay's own asks with wget, which an image need not have; this one says whether the ingress passes requests on.
    "httpGet": {"path": "/-/healthz", "port": SERVE_PORT},
    "periodSeconds": 5,
    "timeoutSeconds": 2,
    "failureThreshold": 3,
}


@dataclass(frozen=True)
class Traffic:
    """Versions besides the stable one. A rollout sets them; none are set without one."""

    candidates: tuple[Candidate, ...] = ()
    shadow: Shadow | None = None
    applications: tuple[Mapping[str, Any], ...] = ()  # the candidates' own, as they stand in Serve's configuration


@dataclass(frozen=True)
class Live:
    """What of a RayService's configuration concerns its front."""

    config: FrontConfig
    model: str  # the reference that the registry was asked for

    @property
    def attempt(self) -> int:
        """Which try of this wish it is, from 1."""
        return attempt_of(self.config.config_id)


def url(key: Key) -> str:
    """Base address of the endpoint inside the cluster."""
    return f"http://{serve_service(key.name)}.{key.namespace}.svc:{SERVE_PORT}/{key.name}"


def serve_service(name: str) -> str:
    """The Service that KubeRay makes over the pods whose ingress is well."""
    return f"{name}-serve-svc"


def front_config(
    name: str, stable: StableVersion, *, attempt: int, cluster: Mapping[str, Any], retry: str, traffic: Traffic
) -> FrontConfig:
    """The front's `user_config`. Equal wishes have equal ids, whoever asks and whenever."""
    config = FrontConfig("", name, stable, traffic.candidates, traffic.shadow)
    wish = sha256_of([config.to_record(), cluster, retry])[:10]
    return replace(config, config_id=f"{stable.version}-{wish}-{attempt}")


def attempt_of(config_id: str) -> int:
    """Which try of its wish a configuration is, from 1."""
    number = config_id.rpartition("-")[2]
    return int(number) if number.isdigit() else 1


def same_wish(one: str, other: str) -> bool:
    """Whether two configuration ids differ at most in the try."""
    return one.rpartition("-")[0] == other.rpartition("-")[0]


def live_of(ray_service: Object | None, name: str) -> Live | None:
    """The front's configuration in RAY_SERVICE; None where there is none, or one that is not ours."""
    if ray_service is None:
        return None
    try:
        serve = json.loads(ray_service["spec"]["serveConfigV2"])
        front = next(each for each in serve["applications"] if each["name"] == name)["deployments"][0]
        config = FrontConfig.from_record(front["user_config"])
    except (KeyError, TypeError, ValueError, StopIteration, IndexError):
        return None
    annotations = ray_service["metadata"].get("annotations") or {}
    return Live(config, str(annotations.get(MODEL_ANNOTATION, "")))


def manifest(
    owner: Object,
    spec: ModelDeploymentSpec,
    stable: StableVersion,
    *,
    image: str,
    model: str,
    attempt: int = 1,
    traffic: Traffic = Traffic(),
) -> dict[str, Any]:
    """The RayService as we apply it: our fields and no others.

    Args:
        owner: the ModelDeployment.
        spec: its spec.
        stable: the version that is to answer.
        image: the pods' image.
        model: the reference that STABLE is the registry's answer to.
        attempt: which try of this wish it is.
        traffic: versions besides the stable one.
    """
    name = str(owner["metadata"]["name"])
    retry = str((owner["metadata"].get("annotations") or {}).get(RETRY_ANNOTATION, ""))
    cluster = ray_cluster(name, spec, image)
    config = front_config(name, stable, attempt=attempt, cluster=cluster, retry=retry, traffic=traffic)
    desired: dict[str, Any] = {
        "apiVersion": RAY_SERVICE.api_version,
        "kind": RAY_SERVICE.kind,
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": {MODEL_DEPLOYMENT_LABEL: name},
            "annotations": {MODEL_ANNOTATION: model},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {"serveConfigV2": _serve_config(name, spec, config, traffic), "rayClusterConfig": cluster},
    }
    desired["metadata"]["annotations"][APPLIED_ANNOTATION] = sha256_of(desired)[:16]
    return desired


def differs(desired: Mapping[str, Any], live: Object | None) -> bool:
    """Whether an apply of DESIRED would change LIVE: it was applied from something else, or somebody changed it."""
    if live is None:
        return True
    applied = (live["metadata"].get("annotations") or {}).get(APPLIED_ANNOTATION)
    return applied != desired["metadata"]["annotations"][APPLIED_ANNOTATION] or not _within(desired, live)


def ray_cluster(name: str, spec: ModelDeploymentSpec, image: str) -> dict[str, Any]:
    """The Ray cluster that the front runs on; a change of it is a new cluster, before the old one goes."""
    pods = Pods(
        spec.pods,
        image,
        {MODEL_DEPLOYMENT_LABEL: name},
        environment=({"name": "HEADRACE_STORE", "value": spec.store.uri},),
        defaults=TUNING,
        secrets=(spec.store.secret_name,) if spec.store.secret_name else (),
    )
    count = worker_count(spec)
    workers = [worker_group(pods, WORKERS, count, readiness_probe=_WORKER_PROBE)] if count else []
    cluster = cluster_spec(pods, spec.authentication, head_cpus=ray_cpus(spec.pods.head), workers=workers)
    if (fault_tolerance := spec.gcs_fault_tolerance) is not None:
        options: dict[str, Any] = {"redisAddress": fault_tolerance.redis_address}
        if fault_tolerance.password_secret_name:
            key = {"name": fault_tolerance.password_secret_name, "key": "password"}
            options["redisPassword"] = {"valueFrom": {"secretKeyRef": key}}
        cluster["gcsFaultToleranceOptions"] = options
    return cluster


def _serve_config(name: str, spec: ModelDeploymentSpec, config: FrontConfig, traffic: Traffic) -> str:
    """JSON, which is YAML, with its keys in order: the same wish is the same text."""
    replicas: int | ReplicaRange = spec.replicas
    if (scaling := spec.autoscaling) is not None:
        replicas = ReplicaRange(scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests)
    resources = {
        "cpus": spec.resources.cpus,
        "gpus": spec.resources.gpus,
        "memory_bytes": spec.resources.memory_bytes,
    }
    front = application_record(name, config, replicas, resources)
    applications = [front, *traffic.applications]
    # Serve takes `ingresses` when it starts only; workers may come later.
    record = serve_record(applications, host="0.0.0.0", port=SERVE_PORT, ingresses="EveryNode")  # noqa: S104 in a pod
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def _within(part: Any, all_: Any) -> bool:
    """Whether all that PART says stands in ALL_; both are JSON values."""
    if isinstance(part, dict):
        return isinstance(all_, dict) and all(key in all_ and _within(value, all_[key]) for key, value in part.items())
    if isinstance(part, list):
        return isinstance(all_, list) and len(part) == len(all_) and all(map(_within, part, all_))
    return bool(part == all_)
