"""RayServices: KubeRay 1.6's RayService controller, followed step by step (rayservice_controller.go, Reconcile).

Its trap is kept: in one pass the applications' statuses are read before the new configuration is put, so right after
`observedGeneration` has caught up they are those of the old one.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kuberay_double import shapes
from kuberay_double.cache import Cache
from kuberay_double.clusters import ObjectClusters, View, ensure
from kuberay_double.conditions import now_text, service_conditions, set_observed, without_times
from kuberay_double.events import warn
from kuberay_double.front import FrontDouble
from kuberay_double.queue import Controller
from kuberay_double.ray import Ray
from kuberay_double.script import Behaviour, script_of
from kuberay_double.wire import ENDPOINT_SLICE, MANAGER, POD, RAY_SERVICE, SERVICE, Key, Object, Wire

_LOG = logging.getLogger("kuberay-double")
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 47
_ACTIVE, _PENDING = "activeServiceStatus", "pendingServiceStatus"


def invalid(service: Mapping[str, Any]) -> str:
    """Why KubeRay does not take SERVICE, or nothing."""
    name = service["metadata"]["name"]
    if len(name) > _LONGEST_NAME:
        return f"The RayService metadata is invalid: RayService name should be no more than {_LONGEST_NAME} characters"
    if not _DNS_1035.fullmatch(name):
        return "The RayService metadata is invalid: RayService name should be a valid DNS1035 label"
    return ""


@dataclass(frozen=True)
class _Seen:
    """What one pass found: the clusters, the one whose Serve it looked at, that one's applications, and the one behind
    the Services when it began: its pods are counted, as endpoints follow later."""

    active: View | None
    pending: View | None
    serving: View | None
    statuses: Object
    behind: str | None


class Services:
    """The RayService controller of one NAMESPACE or of all; it polls every POLL_SECONDS. FRONT answers for what is
    served, if there is one: it is told each configuration, and each Service NAME-serve-svc leads to it."""

    def __init__(
        self,
        wire: Wire,
        ray: Ray,
        clusters: ObjectClusters,
        default: Behaviour,
        poll_seconds: float,
        namespace: str,
        front: FrontDouble | None,
    ) -> None:
        self._wire, self._ray, self._clusters, self._default = wire, ray, clusters, default
        self._poll, self._front = poll_seconds, front
        self.controller = Controller("rayservice", self._reconcile)
        self.services = Cache(wire, RAY_SERVICE, lambda key, _: self.controller.add(key), namespace)
        self._put: dict[tuple[Key, str], str] = {}  # what was put to each cluster's Serve: in memory, as KubeRay has it
        self._services_of: dict[Key, str] = {}  # the cluster that each RayService's Services point at
        self._answers: dict[Key, bool] = {}  # whether each RayService's front is to be asked
        self.retiring = Controller("retired clusters", self._end_cluster)

    async def _reconcile(self, key: Key) -> float | None:
        service = self.services.get(key)
        if service is None or "deletionTimestamp" in service["metadata"]:
            self._forget(key)
            return None
        before = service.get("status") or {}
        status = copy.deepcopy(before)
        if trouble := invalid(service):
            set_observed(status, "Ready", "False", "ValidationFailed", trouble)
            await self._write(key, service, before, status)
            return None
        try:
            await self._pass(key, service, status)
        except ValueError as trouble:  # the status is not written: observedGeneration stays behind
            await warn(self._wire, service, "FailedToUpdateServeApplications", str(trouble))
            return self._poll
        await self._write(key, service, before, status)
        return self._poll

    def _forget(self, key: Key) -> None:
        self._services_of.pop(key, None)
        self._answers.pop(key, None)
        for put in [each for each in self._put if each[0] == key]:
            del self._put[put]

    async def _pass(self, key: Key, service: Object, status: Object) -> None:
        active, pending = self._view(key, status, _ACTIVE), self._view(key, status, _PENDING)
        if pending is None and status.get(_PENDING, {}).get("rayClusterName"):
            await self._make_cluster(key, service, status[_PENDING]["rayClusterName"])
            return
        for view in (active, pending):
            await self._label_head(key, view)
        serving = pending or (active if not self._needs_cluster(service, active, None) else None)
        ready, statuses = await self._serve(key, service, serving)
        behind = self._services_of.get(key)
        if ready and serving is not None:
            await self._point_services(key, service, serving.name)
        self._tell(key, service, status, _Seen(active, pending, serving, statuses, behind))
        await self._point_slice(key, bool(status["numServeEndpoints"]))

    def _view(self, key: Key, status: Mapping[str, Any], part: str) -> View | None:
        name = status.get(part, {}).get("rayClusterName")
        return self._clusters.get(Key(key.namespace, name)) if name else None

    async def _make_cluster(self, key: Key, service: Object, name: str) -> None:
        spec = shapes.as_go_writes(service["spec"]["rayClusterConfig"])
        await self._clusters.create(shapes.cluster(name, service, RAY_SERVICE, spec), self._behaviour(service))

    def _behaviour(self, service: Object) -> Behaviour:
        return script_of(service["spec"]["rayClusterConfig"], self._default).behaviour(1)

    def _needs_cluster(self, service: Object, active: View | None, pending: View | None) -> bool:
        current = pending or active
        spec = shapes.as_go_writes(service["spec"]["rayClusterConfig"])
        return current is None or current.spec_hash != shapes.spec_hash(spec)

    async def _label_head(self, key: Key, view: View | None) -> None:
        """Put the head among those that serve once its proxy answers: where applications were put."""
        if view is None or view.head_uid is None:
            return
        head = next(pod for pod in self._clusters.pods if pod["metadata"]["uid"] == view.head_uid)
        wanted = str(bool(self._ray.applications.get(view.head_uid))).lower()
        if head["metadata"]["labels"].get(shapes.SERVE_LABEL, "false") != wanted:
            body = {"metadata": {"labels": {shapes.SERVE_LABEL: wanted}}}
            path = POD.path(key.namespace, head["metadata"]["name"])
            self._clusters.pods.put(await self._wire.request("PATCH", path, body, fieldManager=MANAGER))

    async def _serve(self, key: Key, service: Object, view: View | None) -> tuple[bool, Object]:
        """Whether every application runs, and their statuses; then put the configuration, if it is another one."""
        if view is None or view.head_uid is None:
            return False, {}
        statuses = self._ray.statuses(view.head_uid)
        wanted = service["spec"].get("serveConfigV2", "")
        if self._put.get((key, view.name)) != wanted or not statuses:
            config = self._ray.serve(view.head_uid, wanted, self._behaviour(service))
            self._put[key, view.name] = wanted
            if self._front is not None:
                self._front.serve(config, view.head_uid)
        return bool(statuses) and all(each["status"] == "RUNNING" for each in statuses.values()), statuses

    async def _point_services(self, key: Key, service: Object, name: str) -> None:
        if self._services_of.get(key) == name:
            return
        spec = service["spec"]["rayClusterConfig"]
        head = shapes.head_service(f"{key.name}-head-svc", service, RAY_SERVICE, name, spec)
        for manifest in (head, shapes.serve_service(service, RAY_SERVICE, name, spec)):
            there = await ensure(self._wire, SERVICE, manifest)
            if there["spec"]["selector"] != manifest["spec"]["selector"]:
                body = {**there, "spec": {**there["spec"], "selector": manifest["spec"]["selector"]}}
                path = SERVICE.path(key.namespace, manifest["metadata"]["name"])
                await self._wire.request("PUT", path, body, fieldManager=MANAGER)
        self._services_of[key] = name

    async def _point_slice(self, key: Key, ready: bool) -> None:
        """Lead the Service NAME-serve-svc to the front's double, as kube-proxy would to pods that serve."""
        if self._front is None or key not in self._services_of or self._answers.get(key) == ready:
            return
        service = await self._wire.request("GET", SERVICE.path(key.namespace, f"{key.name}-serve-svc"))
        wanted = shapes.endpoint_slice(service, self._front.port, ready)
        there = await ensure(self._wire, ENDPOINT_SLICE, wanted)
        if there["endpoints"] != wanted["endpoints"]:
            path = ENDPOINT_SLICE.path(key.namespace, wanted["metadata"]["name"])
            await self._wire.request("PUT", path, {**there, "endpoints": wanted["endpoints"]}, fieldManager=MANAGER)
        self._answers[key] = ready

    # -- the status --------------------------------------------------------------------------------------------------

    def _tell(self, key: Key, service: Object, status: Object, seen: _Seen) -> None:
        status["observedGeneration"] = service["metadata"]["generation"]
        for part, view in ((_ACTIVE, seen.active), (_PENDING, seen.pending)):
            told = status.setdefault(part, {})
            told["rayClusterStatus"] = dict(view.status) if view else {}
            told["applicationStatuses"] = seen.statuses if view is not None and view is seen.serving else {}
        self._choose_clusters(key, service, status, seen.active, seen.pending)
        status["numServeEndpoints"] = self._endpoints(key, seen.behind)
        service_conditions(status)
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status["conditions"])
        status["serviceStatus"] = "Running" if ready else ""

    def _choose_clusters(
        self, key: Key, service: Object, status: Object, active: View | None, pending: View | None
    ) -> None:
        """Make the pending cluster the active one once the Services point at it; name a new one where the spec asks."""
        if self._services_of.get(key) == status[_PENDING].get("rayClusterName", ""):
            status[_ACTIVE], status[_PENDING] = status[_PENDING], {}
            if active is not None:
                self._retire(key, service, active.name)
        elif self._needs_cluster(service, active, pending):
            if pending is not None:
                self._retire(key, service, pending.name)
            status[_PENDING] = {"rayClusterName": f"{key.name}-{shapes.suffix()}"}

    def _retire(self, key: Key, service: Object, name: str) -> None:
        """Delete a cluster that is neither active nor pending any more, after the delay that the service asks for."""
        self._put.pop((key, name), None)
        self.retiring.add(Key(key.namespace, name), service["spec"].get("rayClusterDeletionDelaySeconds", 60))

    async def _end_cluster(self, key: Key) -> None:
        await self._clusters.delete(key)

    def _endpoints(self, key: Key, cluster: str | None) -> int:
        """Pods behind NAME-serve-svc: the head if it is labelled so, workers that are ready."""
        pods = [pod for pod in self._clusters.pods_of(Key(key.namespace, cluster or "")) if shapes.is_ready(pod)]
        return len([pod for pod in pods if pod["metadata"]["labels"].get(shapes.SERVE_LABEL) == "true"])

    async def _write(self, key: Key, service: Object, before: Mapping[str, Any], status: Object) -> None:
        if _compared(before) == _compared(status):
            return
        body = {**service, "status": {**status, "lastUpdateTime": now_text()}}
        path = RAY_SERVICE.path(*key, "status")
        self.services.put(await self._wire.request("PUT", path, body, fieldManager=MANAGER))


def _compared(status: Mapping[str, Any]) -> Object:
    """What KubeRay compares before it writes: no times, no statuses of clusters, no observedGeneration.

    The conditions' observedGeneration counts, and they are set anew once something serves. So the status' own one lags
    as long as the service initializes.
    """
    compared = without_times(status)
    compared.pop("observedGeneration", None)
    for part in (_ACTIVE, _PENDING):
        compared[part] = {
            name: value for name, value in status.get(part, {}).items() if name != "rayClusterStatus" and value
        }
    compared["serviceStatus"] = status.get("serviceStatus", "")
    return compared
