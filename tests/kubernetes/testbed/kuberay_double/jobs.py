"""RayJobs: KubeRay 1.6's RayJob controller in HTTPMode, followed step by step (rayjob_controller.go, Reconcile)."""

from __future__ import annotations

import copy
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from kuberay_double import shapes
from kuberay_double.cache import Cache
from kuberay_double.clusters import Clusters, View
from kuberay_double.conditions import now_text, seconds_of, without_times
from kuberay_double.events import warn
from kuberay_double.queue import Controller
from kuberay_double.ray import Job, Ray
from kuberay_double.script import Behaviour, attempt_of, script_of
from kuberay_double.wire import MANAGER, RAY_JOB, Key, Object, Wire

_LOG = logging.getLogger("kuberay-double")
FINALIZER = "ray.io/rayjob-finalizer"
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 47
_WITHOUT_SHUTDOWN = "a RayJob with shutdownAfterJobFinishes set to false"
_FINAL = ("Complete", "Failed")
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_CLEARED = (
    "rayClusterStatus",
    "rayClusterName",
    "dashboardURL",
    "jobId",
    "message",
    "reason",
    "rayJobInfo",
    "jobStatus",
)


def invalid(job: Mapping[str, Any]) -> str:
    """Why KubeRay does not take JOB, or nothing."""
    name, spec = job["metadata"]["name"], job["spec"]
    if len(name) > _LONGEST_NAME:
        return f"The RayJob metadata is invalid: RayJob name should be no more than {_LONGEST_NAME} characters"
    if not _DNS_1035.fullmatch(name):
        return "The RayJob metadata is invalid: RayJob name should be a valid DNS1035 label"
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        return f"The RayJob spec is invalid: {_WITHOUT_SHUTDOWN} is not allowed to be suspended"
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        return f"The RayJob spec is invalid: {_WITHOUT_SHUTDOWN} cannot have TTLSecondsAfterFinished"
    if spec.get("backoffLimit", 0) < 0:
        return "The RayJob spec is invalid: BackoffLimit must be a positive integer"
    return ""


def _limit(job: Mapping[str, Any], status: Mapping[str, Any], name: str) -> float | None:
    """When the job has passed the limit NAME of its spec, in seconds since the epoch."""
    seconds = job["spec"].get(name)
    return None if seconds is None else seconds_of(status["startTime"]) + seconds


class Jobs:
    """The RayJob controller of one NAMESPACE or of all. It polls every POLL_SECONDS, as KubeRay does every three, but
    only at the polls where something can have changed."""

    def __init__(
        self,
        wire: Wire,
        ray: Ray,
        clusters: Clusters,
        default: Behaviour,
        poll_seconds: float,
        namespace: str,
        later: Callable[[Key, float], None],
    ) -> None:
        self._wire, self._ray, self.clusters, self._default = wire, ray, clusters, default
        self._poll, self._later = poll_seconds, later
        self.controller = Controller("rayjob", self._reconcile, workers=16)
        self.jobs = Cache(wire, RAY_JOB, lambda key, _: self.controller.add(key), namespace)

    async def _reconcile(self, key: Key) -> float | None:
        job = self.jobs.get(key)
        if job is None:
            return None
        if "deletionTimestamp" in job["metadata"]:
            return await self._let_go(job)
        if job["spec"].get("submissionMode", "K8sJobMode") != "HTTPMode":
            _LOG.error("%s is not played: the double knows HTTPMode only", key)
            return None
        before = job.get("status") or {}
        if trouble := invalid(job):
            await self._refuse(job, trouble)
            return None
        if not before.get("jobDeploymentStatus"):
            job = await self._take(job)
        status = copy.deepcopy(before)
        again = await self._step(key, job, status)
        _count(job, status)
        await self._write(job, before, status)
        return again

    async def _let_go(self, job: Object) -> float | None:
        """Stop what runs, then let the object go, whatever came of that."""
        status, metadata = job.get("status") or {}, job["metadata"]
        if FINALIZER not in metadata.get("finalizers", ()):
            return None
        key = Key(metadata["namespace"], metadata["name"])
        if name := status.get("rayClusterName"):
            await self.clusters.delete(Key(key.namespace, name))
        rest = [each for each in metadata["finalizers"] if each != FINALIZER]
        body = {**job, "metadata": {**metadata, "finalizers": rest}}
        await self._wire.request("PUT", RAY_JOB.path(*key), body, fieldManager=MANAGER)
        return None

    async def _refuse(self, job: Object, trouble: str) -> None:
        before = job.get("status") or {}
        status = {**before, "jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed", "message": trouble}
        if before.get("jobDeploymentStatus") != "ValidationFailed":
            kind = "InvalidRayJobMetadata" if "metadata" in trouble else "InvalidRayJobSpec"
            await warn(self._wire, job, kind, trouble)
        await self._write(job, before, status)

    async def _take(self, job: Object) -> Object:
        """Put the finalizer on, by a write of the whole object."""
        if FINALIZER in job["metadata"].get("finalizers", ()):
            return job
        finalizers = [*job["metadata"].get("finalizers", ()), FINALIZER]
        spec = {**job["spec"], "rayClusterSpec": shapes.as_go_writes(job["spec"]["rayClusterSpec"])}
        body = {**job, "metadata": {**job["metadata"], "finalizers": finalizers}, "spec": spec}
        key = Key(job["metadata"]["namespace"], job["metadata"]["name"])
        return self.jobs.put(await self._wire.request("PUT", RAY_JOB.path(*key), body, fieldManager=MANAGER))

    # -- the states --------------------------------------------------------------------------------------------------

    async def _step(self, key: Key, job: Object, status: Object) -> float | None:
        match status.get("jobDeploymentStatus", ""):
            case "":
                self._initialize(key, status)
            case "Initializing":
                return await self._initializing(key, job, status)
            case "Running":
                return await self._running(key, job, status)
            case "Suspending" | "Retrying":
                await self._clear(key, status)
            case "Suspended":
                if not job["spec"].get("suspend"):
                    status |= {"jobDeploymentStatus": "", "jobStatus": ""}
            case "Complete" | "Failed":
                return await self._finished(key, job, status)
        return None

    def _initialize(self, key: Key, status: Object) -> None:
        status.setdefault("jobId", f"{key.name}-{shapes.suffix()}")
        status.setdefault("rayClusterName", f"{key.name}-{shapes.suffix()}")
        status |= {"jobStatus": "", "jobDeploymentStatus": "Initializing", "startTime": now_text()}

    def _ends_early(self, job: Object, status: Object, *limits: tuple[str, str]) -> bool:
        """Whether it is to be suspended, or has passed one of LIMITS (a field of the spec, a reason)."""
        if job["spec"].get("suspend"):
            status["jobDeploymentStatus"] = "Suspending"
            return True
        for limit, reason in limits:
            ends = _limit(job, status, limit)
            if ends is not None and time.time() >= ends:
                words = f"The RayJob has passed the {limit}. StartTime: {status['startTime']}."
                status |= {"jobDeploymentStatus": "Failed", "reason": reason, "message": words}
                return True
        return False

    async def _initializing(self, key: Key, job: Object, status: Object) -> float | None:
        before_running = ("preRunningDeadlineSeconds", "PreRunningDeadlineExceeded")
        if self._ends_early(job, status, ("activeDeadlineSeconds", "DeadlineExceeded"), before_running):
            return None
        view = await self._cluster(key, job, status)
        if view is None or not view.ready:
            status["rayClusterStatus"] = dict(view.status) if view else {}
            limits = (_limit(job, status, name) for name in ("preRunningDeadlineSeconds", "activeDeadlineSeconds"))
            return self._wake(view.changes_at if view else None, *limits)
        status |= {
            "jobDeploymentStatus": "Running",
            "dashboardURL": f"{view.name}-head-svc.{key.namespace}.svc.cluster.local:8265",
        }
        return None

    async def _cluster(self, key: Key, job: Object, status: Mapping[str, Any]) -> View | None:
        """The job's cluster, made if it is not there: after somebody deleted it, too."""
        at = Key(key.namespace, status["rayClusterName"])
        if self.clusters.get(at) is None:
            spec = job["spec"]["rayClusterSpec"]
            await self.clusters.create(shapes.cluster(at.name, job, RAY_JOB, spec), self._behaviour(job))
        return self.clusters.get(at)

    def _behaviour(self, job: Object) -> Behaviour:
        return script_of(job["spec"]["rayClusterSpec"], self._default).behaviour(attempt_of(job))

    async def _running(self, key: Key, job: Object, status: Object) -> float | None:
        if self._ends_early(job, status, ("activeDeadlineSeconds", "DeadlineExceeded")):
            return None
        view = await self._cluster(key, job, status)
        if view is None or view.head_uid is None:  # the dashboard does not answer
            return self._wake(view.changes_at if view else None)
        found = self._ray.jobs.get((view.head_uid, status["jobId"]))
        if found is None:
            behaviour = self._behaviour(job)
            found = self._ray.submit(view.head_uid, status["jobId"], behaviour)
            if behaviour.ending == "loses-head" and found.ended is None:
                lost_at = found.started + behaviour.run_seconds / 2
                self._later(Key(key.namespace, view.name), lost_at - time.time())
            return self._poll
        now = time.time()  # one moment for both: what changes between two would never be told
        _tell_of(found, view, status, now)
        return self._wake(found.next_change(now), _limit(job, status, "activeDeadlineSeconds"))

    def _wake(self, *moments: float | None) -> float | None:
        """Seconds until the first poll after the first of these MOMENTS; None if nothing will happen by itself."""
        known = [moment - time.time() for moment in moments if moment is not None]
        return max(1, math.ceil(min(known) / self._poll)) * self._poll if known else None

    async def _clear(self, key: Key, status: Object) -> None:
        """Delete the cluster, without waiting for its pods, and forget the run."""
        if name := status.get("rayClusterName"):
            await self.clusters.delete(Key(key.namespace, name))
        suspending = status["jobDeploymentStatus"] == "Suspending"
        for field in _CLEARED:
            status.pop(field, None)
        status["jobDeploymentStatus"] = "Suspended" if suspending else ""

    async def _finished(self, key: Key, job: Object, status: Object) -> float | None:
        name = status.get("rayClusterName")
        if not (job["spec"].get("shutdownAfterJobFinishes") and name):
            return None
        left: float = seconds_of(status["endTime"]) + job["spec"].get("ttlSecondsAfterFinished", 0) - time.time()
        if left > 0:
            return left
        if self.clusters.get(Key(key.namespace, name)) is not None:
            await self.clusters.delete(Key(key.namespace, name))
        return None

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _write(self, job: Object, before: Mapping[str, Any], status: Object) -> None:
        """Write the status as KubeRay does: if the job's, the deployment's or the cluster's has changed."""
        if _compared(before) == _compared(status):
            return
        if status["jobDeploymentStatus"] in _FINAL:
            status["endTime"] = now_text()
        path = RAY_JOB.path(job["metadata"]["namespace"], job["metadata"]["name"], "status")
        self.jobs.put(await self._wire.request("PUT", path, {**job, "status": status}, fieldManager=MANAGER))


def _compared(status: Mapping[str, Any]) -> tuple[Any, ...]:
    cluster = without_times(status.get("rayClusterStatus") or {})
    return status.get("jobStatus") or "", status.get("jobDeploymentStatus") or "", cluster


def _tell_of(found: Job, view: View, status: Object, now: float) -> None:
    """What the dashboard says of the job, taken over."""
    told = found.status(now)
    status |= {"jobStatus": told, "message": found.words(now), "rayClusterStatus": dict(view.status)}
    info = dict(status.get("rayJobInfo") or {})
    if told != "PENDING":
        info["startTime"] = now_text(found.started)
    if told in _ENDED:
        info["endTime"] = now_text(found.ended)
        status["jobDeploymentStatus"] = "Failed" if told == "FAILED" else "Complete"
        if told == "FAILED":
            status["reason"] = "AppFailed"
    if info:
        status["rayJobInfo"] = info


def _count(job: Mapping[str, Any], status: Object) -> None:
    """Count ends, and try again within KubeRay's own backoffLimit."""
    if (job.get("status") or {}).get("jobDeploymentStatus") in _FINAL:
        return
    ended = status.get("jobDeploymentStatus")
    failed = (status.get("failed") or 0) + (ended == "Failed")
    status |= {"failed": failed, "succeeded": (status.get("succeeded") or 0) + (ended == "Complete")}
    limit = job["spec"].get("backoffLimit")
    if ended == "Failed" and limit is not None and failed < limit + 1 and status.get("reason") != "DeadlineExceeded":
        status["jobDeploymentStatus"] = "Retrying"
