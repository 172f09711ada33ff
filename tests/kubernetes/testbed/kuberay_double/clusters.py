"""RayClusters and their pods: KubeRay's RayCluster controller and a kubelet, as far as an operator sees them.

`ObjectClusters` makes real RayCluster, Pod and Service objects. `UnseenClusters` makes none, for scale: thirty thousand
jobs with pods would measure the API server.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kuberay_double import conditions, shapes
from kuberay_double.cache import Cache
from kuberay_double.queue import Controller
from kuberay_double.ray import Ray
from kuberay_double.script import Behaviour
from kuberay_double.wire import MANAGER, POD, RAY_CLUSTER, SECRET, SERVICE, Key, Object, Refused, Resource, Wire, key_of


@dataclass(frozen=True)
class View:
    """A RayCluster as its RayJob or RayService sees it: `head_uid` is that of a head that is ready."""

    name: str
    status: Mapping[str, Any]
    ready: bool
    head_uid: str | None
    spec_hash: str = ""
    changes_at: float | None = None  # when an unseen one changes, in seconds since the epoch


class Clusters(Protocol):
    """What the controllers of jobs and services ask of clusters."""

    def get(self, key: Key) -> View | None:
        """The cluster, if it is there."""

    async def create(self, manifest: Object, behaviour: Behaviour) -> None:
        """Make the cluster of MANIFEST, whose pods behave so."""

    async def delete(self, key: Key) -> None:
        """Delete the cluster and its pods. One that is gone is fine."""

    async def lose_head(self, key: Key) -> None:
        """End the head's pod, as a node that dies does; another one follows."""


async def ensure(wire: Wire, resource: Resource, manifest: Object) -> Object:
    """Create MANIFEST, or get the object that is there."""
    metadata = manifest["metadata"]
    try:
        return await wire.request("POST", resource.path(metadata["namespace"]), manifest, fieldManager=MANAGER)
    except Refused as refusal:
        if refusal.status != 409:
            raise
        return await wire.request("GET", resource.path(metadata["namespace"], metadata["name"]))


async def discard(wire: Wire, resource: Resource, key: Key) -> None:
    """Delete the object; one that is gone is fine."""
    try:
        await wire.request("DELETE", resource.path(*key))
    except Refused as refusal:
        if refusal.status != 404:
            raise


@dataclass
class _Unseen:
    ready_at: float
    behaviour: Behaviour
    head_uid: str


class UnseenClusters:
    """Clusters that nobody sees: no object is made for them."""

    def __init__(self, ray: Ray) -> None:
        self._ray = ray
        self._clusters: dict[Key, _Unseen] = {}

    def get(self, key: Key) -> View | None:
        """The cluster, if it is there."""
        found = self._clusters.get(key)
        if found is None:
            return None
        ready = time.time() >= found.ready_at and found.behaviour.ending != "never-ready"
        status = {"state": "ready"} if ready else {}
        changes_at = None if ready or found.behaviour.ending == "never-ready" else found.ready_at
        return View(key.name, status, ready, found.head_uid if ready else None, changes_at=changes_at)

    async def create(self, manifest: Object, behaviour: Behaviour) -> None:
        """Make the cluster of MANIFEST, whose pods behave so."""
        made = _Unseen(time.time() + behaviour.pods_seconds, behaviour, secrets.token_hex(8))
        self._clusters[key_of(manifest)] = made

    async def delete(self, key: Key) -> None:
        """Forget the cluster."""
        self._clusters.pop(key, None)

    async def lose_head(self, key: Key) -> None:
        """Another head takes the place of this one."""
        found = self._clusters[key]
        self._ray.lose(found.head_uid)
        found.head_uid, found.ready_at = secrets.token_hex(8), time.time() + found.behaviour.pods_seconds


class ObjectClusters:
    """Clusters as real objects. CHANGED is told each RayCluster that changed."""

    def __init__(
        self, wire: Wire, ray: Ray, default: Behaviour, namespace: str, changed: Callable[[Object], None]
    ) -> None:
        self._wire, self._ray, self._default, self._changed = wire, ray, default, changed
        self.controller = Controller("raycluster", self._reconcile)
        self.kubelet = Controller("kubelet", self._run_pod)
        self.clusters = Cache(wire, RAY_CLUSTER, self._hear_cluster, namespace)
        self.pods = Cache(wire, POD, self._hear_pod, namespace, "ray.io/cluster")
        self._pods_of: dict[Key, dict[Key, Object]] = {}
        self._behaviours: dict[Key, Behaviour] = {}

    def _hear_cluster(self, key: Key, obj: Object) -> None:
        self.controller.add(key)
        self._changed(obj)

    def _hear_pod(self, key: Key, obj: Object) -> None:
        cluster = Key(key.namespace, obj["metadata"]["labels"]["ray.io/cluster"])
        pods = self._pods_of.setdefault(cluster, {})
        if self.pods.get(key) is None:
            pods.pop(key, None)
        else:
            pods[key] = obj
            if obj["spec"].get("schedulerName") == shapes.SCHEDULER and not _was_run(obj):
                self.kubelet.add(key, self._behaviour(cluster).pods_seconds)
        self.controller.add(cluster)

    def _behaviour(self, key: Key) -> Behaviour:
        return self._behaviours.get(key, self._default)

    # -- what jobs and services ask ----------------------------------------------------------------------------------

    def get(self, key: Key) -> View | None:
        """The cluster, if it is there."""
        cluster = self.clusters.get(key)
        if cluster is None or "deletionTimestamp" in cluster["metadata"]:
            return None
        status = cluster.get("status") or {}
        head = self._head(key)
        head_uid = head["metadata"]["uid"] if head is not None and shapes.is_ready(head) else None
        told = (cluster["metadata"].get("annotations") or {}).get(shapes.HASH, "")
        return View(key.name, status, status.get("state") == "ready", head_uid, told)

    async def create(self, manifest: Object, behaviour: Behaviour) -> None:
        """Make the cluster of MANIFEST."""
        self._behaviours[key_of(manifest)] = behaviour
        self.clusters.put(await ensure(self._wire, RAY_CLUSTER, manifest))

    async def delete(self, key: Key) -> None:
        """Delete the cluster; the garbage collector takes its pods."""
        await discard(self._wire, RAY_CLUSTER, key)

    async def lose_head(self, key: Key) -> None:
        """Delete the head's pod at once."""
        head = self._head(key)
        assert head is not None, f"{key} has no head"
        self._ray.lose(head["metadata"]["uid"])
        await discard(self._wire, POD, key_of(head))

    def pods_of(self, key: Key) -> list[Object]:
        """The cluster's pods."""
        return list(self._pods_of.get(key, {}).values())

    def _head(self, key: Key) -> Object | None:
        heads = (pod for pod in self.pods_of(key) if pod["metadata"]["labels"]["ray.io/node-type"] == "head")
        return next((pod for pod in heads if "deletionTimestamp" not in pod["metadata"]), None)

    # -- what KubeRay's RayCluster controller does -------------------------------------------------------------------

    async def _reconcile(self, key: Key) -> float | None:
        cluster = self.clusters.get(key)
        if cluster is None or "deletionTimestamp" in cluster["metadata"]:
            return None
        trouble = ""
        try:
            await self._make_parts(key, cluster)
        except Refused as refusal:  # Pod Security, a quota: the cluster says so
            if refusal.status not in (403, 422):
                raise
            trouble = refusal.message
        await self._write_status(key, cluster, trouble)
        return None

    async def _make_parts(self, key: Key, cluster: Object) -> None:
        if not cluster.get("status"):
            service = shapes.head_service(f"{key.name}-head-svc", cluster, RAY_CLUSTER, key.name, cluster["spec"])
            await ensure(self._wire, SERVICE, service)
            await self._make_token(key, cluster)
        if self._head(key) is None and not _stays_without_head(cluster):
            template = cluster["spec"]["headGroupSpec"]["template"]
            await self._make_pod(shapes.pod(cluster, RAY_CLUSTER, "headgroup", "head", template))
        for group, wanted in shapes.groups_of(cluster["spec"]):
            pods = [
                pod for pod in self._workers(key) if pod["metadata"]["labels"]["ray.io/group"] == group["groupName"]
            ]
            for _ in range(wanted - len(pods)):
                await self._make_pod(shapes.pod(cluster, RAY_CLUSTER, group["groupName"], "worker", group["template"]))
            for pod in pods[wanted:]:
                await discard(self._wire, POD, key_of(pod))

    async def _make_token(self, key: Key, cluster: Object) -> None:
        options = cluster["spec"].get("authOptions") or {}
        if options.get("mode") != "token" or options.get("secretName"):
            return
        metadata = {
            "name": key.name,
            "namespace": key.namespace,
            "ownerReferences": [shapes.owner(cluster, RAY_CLUSTER)],
        }
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "stringData": {"auth_token": secrets.token_hex(16)},
        }
        await ensure(self._wire, SECRET, secret)

    async def _make_pod(self, manifest: Object) -> None:
        self.pods.put(await ensure(self._wire, POD, manifest))

    def _workers(self, key: Key) -> list[Object]:
        return [pod for pod in self.pods_of(key) if pod["metadata"]["labels"]["ray.io/node-type"] == "worker"]

    async def _write_status(self, key: Key, cluster: Object, trouble: str) -> None:
        before = cluster.get("status") or {}
        workers = self._workers(key)
        status = conditions.cluster_status(cluster, self._head(key), workers, trouble)
        if conditions.without_times(status) != conditions.without_times(before):
            body = {**cluster, "status": status}
            path = RAY_CLUSTER.path(*key, "status")
            self.clusters.put(await self._wire.request("PUT", path, body, fieldManager=MANAGER))

    # -- what a kubelet does -----------------------------------------------------------------------------------------

    async def _run_pod(self, key: Key) -> float | None:
        pod = self.pods.get(key)
        if pod is None or _was_run(pod):
            return None
        behaviour = self._behaviour(Key(key.namespace, pod["metadata"]["labels"]["ray.io/cluster"]))
        status = shapes.image_missing(pod) if behaviour.ending == "never-ready" else shapes.pod_status()
        path = POD.path(*key, "status")
        self.pods.put(await self._wire.request("PATCH", path, {"status": status}, fieldManager="kubelet"))
        return None


def _stays_without_head(cluster: Object) -> bool:
    """A RayJob may ask that the head of a cluster that was whole once is not made again."""
    annotations = cluster["metadata"].get("annotations") or {}
    provisioned = conditions.is_true(cluster.get("status") or {}, "RayClusterProvisioned")
    return provisioned and annotations.get("ray.io/disable-provisioned-head-restart") == "true"


def _was_run(pod: Object) -> bool:
    """Whether the kubelet has said all it has to say of the pod."""
    return any(each["type"] == "Ready" for each in pod["status"].get("conditions") or ())
