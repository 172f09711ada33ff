"""The objects that KubeRay makes, as KubeRay 1.6 names, labels and owns them. Values in, values out.

Left out is what no operator of ours looks at: the start command, probes and volumes that KubeRay puts into containers.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

from kuberay_double.wire import Object, Resource

SCHEDULER = "kuberay-double"  # no scheduler has this name, so none calls the pods unschedulable
HASH = "ray.io/hash-without-replicas-and-workers-to-delete"
SERVE_LABEL = "ray.io/serve"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # k8s.io/apimachinery's rand.String: no vowels, no accidents
_PORTS = {"gcs-server": 6379, "client": 10001, "dashboard": 8265, "metrics": 8080, "serve": 8000}


def suffix() -> str:
    """Five letters as KubeRay puts after a dash."""
    return "".join(random.choices(_LETTERS, k=5))


def owner(obj: Mapping[str, Any], resource: Resource) -> Object:
    """The reference by which OBJ, of RESOURCE, controls what KubeRay makes for it."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def as_go_writes(spec: Object) -> Object:
    """SPEC of a RayCluster after a round through KubeRay's Go types: structs without omitempty appear.

    This is what bumps the generation, and takes ownership, of an object that leaves them out (KUBERAY.md, section 6).
    """
    spec = copy.deepcopy(spec)
    workers = spec.get("workerGroupSpecs") or []
    for group in workers:
        group.setdefault("scaleStrategy", {})
    for group in (spec["headGroupSpec"], *workers):
        template = group["template"]
        template.setdefault("metadata", {})
        for container in (*template["spec"]["containers"], *(template["spec"].get("initContainers") or ())):
            container.setdefault("resources", {})
    return spec


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Equal for specs that KubeRay runs in the same cluster."""
    muted = copy.deepcopy(dict(spec))
    for group in muted.get("workerGroupSpecs") or ():
        for name in ("replicas", "minReplicas", "maxReplicas"):
            group.pop(name, None)
    for group in (muted["headGroupSpec"], *(muted.get("workerGroupSpecs") or ())):
        group["template"]["spec"].pop("tolerations", None)
    return hashlib.sha1(json.dumps(muted, sort_keys=True).encode()).hexdigest()


def cluster(name: str, parent: Mapping[str, Any], resource: Resource, spec: Object) -> Object:
    """The RayCluster NAME of a RayJob or RayService."""
    metadata = parent["metadata"]
    labels = dict(metadata.get("labels") or {})
    labels |= {"ray.io/originated-from-cr-name": metadata["name"], "ray.io/originated-from-crd": resource.kind}
    if resource.kind == "RayJob":
        labels["ray.io/job-submission-mode"] = parent["spec"].get("submissionMode", "K8sJobMode")
    annotations = dict(metadata.get("annotations") or {}) | {HASH: spec_hash(spec), "ray.io/kuberay-version": "1.6.0"}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner(parent, resource)],
        },
        "spec": spec,
    }


def pod(of: Mapping[str, Any], resource: Resource, group: str, type_: str, template: Mapping[str, Any]) -> Object:
    """A pod of the RayCluster OF: TYPE_ is head or worker, GROUP the worker group's name."""
    name, told = of["metadata"]["name"], template.get("metadata") or {}
    own = {
        "ray.io/is-ray-node": "yes",
        "ray.io/cluster": name,
        "ray.io/node-type": type_,
        "ray.io/group": group,
        "ray.io/identifier": f"{name}-{type_}"[:63],
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
    }
    fixed = {key: own[key] for key in ("ray.io/cluster", "ray.io/node-type", "ray.io/group")}
    if type_ == "worker" and of["metadata"]["labels"].get("ray.io/originated-from-crd") == "RayService":
        own[SERVE_LABEL] = "true"  # workers answer as soon as they are ready; the head when its proxy does
    prefix = f"{name[:50]}-head-" if type_ == "head" else f"{f'{name}-{group}'[:50]}-worker-"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": prefix + suffix(),
            "namespace": of["metadata"]["namespace"],
            "labels": own | dict(told.get("labels") or {}) | fixed,
            "annotations": dict(told.get("annotations") or {}),
            "ownerReferences": [owner(of, resource)],
        },
        "spec": {**copy.deepcopy(template["spec"]), "schedulerName": SCHEDULER},
    }


def pod_status() -> Object:
    """Status of a pod that is ready. It has no address, so nobody waits for an answer from there."""
    return {
        "phase": "Running",
        "conditions": [
            {"type": name, "status": "True"} for name in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
    }


def image_missing(pod_object: Mapping[str, Any]) -> Object:
    """Status of a pod whose image cannot be had."""
    waiting = {
        "waiting": {
            "reason": "ErrImageNeverPull",
            "message": "Container image is not present with pull policy of Never",
        }
    }
    statuses = [
        {
            "name": each["name"],
            "image": each.get("image", ""),
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": waiting,
        }
        for each in pod_object["spec"]["containers"]
    ]
    not_ready = {"status": "False", "reason": "ContainersNotReady", "message": "containers with unready status"}
    return {
        "phase": "Pending",
        "containerStatuses": statuses,
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "ContainersReady", **not_ready},
            {"type": "Ready", **not_ready},
        ],
    }


def is_ready(pod_object: Mapping[str, Any]) -> bool:
    """Whether the pod runs and is ready."""
    status = pod_object.get("status") or {}
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or ())
    return status.get("phase") == "Running" and ready


def replicas_of(group: Mapping[str, Any]) -> int:
    """Pods of a worker group: `replicas` within its bounds."""
    least, most = group.get("minReplicas") or 0, group.get("maxReplicas", 2**31)
    return 0 if group.get("suspend") else min(max(group.get("replicas", least), least), most)


def groups_of(spec: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Each worker group with its number of pods."""
    for group in spec.get("workerGroupSpecs") or ():
        yield group, replicas_of(group) * group.get("numOfHosts", 1)


def _ports(spec: Mapping[str, Any]) -> list[Object]:
    container = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
    named = {
        each.get("name") or f"{each['containerPort']}-port": each["containerPort"]
        for each in container.get("ports") or ()
    }
    ports = named or dict(_PORTS)
    ports.setdefault("metrics", 8080)
    return [{"name": name, "port": port, "appProtocol": "tcp"} for name, port in sorted(ports.items())]


def head_service(name: str, parent: Mapping[str, Any], resource: Resource, of: str, spec: Mapping[str, Any]) -> Object:
    """The headless Service NAME of the head of the RayCluster OF."""
    labels = {"ray.io/cluster": of, "ray.io/node-type": "head", "ray.io/identifier": f"{of}-head"[:63]}
    labels |= {"app.kubernetes.io/name": "kuberay", "app.kubernetes.io/created-by": "kuberay-operator"}
    service_spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": labels, "ports": _ports(spec)}
    return _service(name, parent, resource, labels, service_spec)


def serve_service(parent: Mapping[str, Any], resource: Resource, of: str, spec: Mapping[str, Any]) -> Object:
    """The Service NAME-serve-svc of a RayService, at the pods of the RayCluster OF that answer."""
    name = parent["metadata"]["name"]
    labels = {
        "ray.io/originated-from-cr-name": name,
        "ray.io/originated-from-crd": "RayService",
        SERVE_LABEL: f"{name}-serve",
    }
    ports = [{"name": each["name"], "port": each["port"]} for each in _ports(spec) if each["name"].startswith("serve")]
    selector = {"ray.io/cluster": of, SERVE_LABEL: "true"}
    return _service(f"{name}-serve-svc", parent, resource, labels, {"selector": selector, "ports": ports})


def endpoint_slice(service: Mapping[str, Any], port: int, ready: bool) -> Object:
    """An EndpointSlice by which the Service NAME-serve-svc leads to PORT on this machine.

    Addresses of the machine's own loopback are refused there, unless one is written as a name.
    """
    metadata = service["metadata"]
    labels = {**metadata["labels"], "kubernetes.io/service-name": metadata["name"]}
    labels["endpointslice.kubernetes.io/managed-by"] = "kuberay-double"  # so that nobody else keeps it
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{metadata['name']}-double",
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Service", "name": metadata["name"], "uid": metadata["uid"]}
            ],
        },
        "addressType": "FQDN",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}],
        "ports": [{"name": "serve", "port": port}],
    }


def _service(name: str, parent: Mapping[str, Any], resource: Resource, labels: Object, spec: Object) -> Object:
    metadata = {"name": name, "namespace": parent["metadata"]["namespace"], "labels": labels}
    metadata["ownerReferences"] = [owner(parent, resource)]
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
