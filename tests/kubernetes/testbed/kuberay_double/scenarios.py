"""The table that holds KubeRay's double to the real KubeRay: what happens, in which order, and how it ends.

Every line is played with the double (tests/kubernetes/test_kuberay_double.py). Lines that need no kubelet are played
with the real KubeRay 1.6 in the same tier; the others, marked `needs="pods"`, on real pods in the node tier, where the
entrypoints do what the double's scripts say. What KUBERAY.md measured on a real node stands beside the lines.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kuberay_double.script import Behaviour, Script
from kuberay_double.wire import Object
from kuberay_double.world import DELETED, Check, Edit, Scenario, World

_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _template(image: str, labels: Mapping[str, str]) -> Object:
    container = {"name": "ray", "image": image, "imagePullPolicy": "Never", "securityContext": _SECURITY}
    container["resources"] = {"requests": {"cpu": "50m"}, "limits": {"memory": "2Gi"}}
    return {"metadata": {"labels": dict(labels)}, "spec": {"containers": [container]}}


def cluster_spec(image: str = "headrace-ray", workers: int = 0) -> Object:
    """A RayCluster's spec with all that KubeRay would add if it were left out."""
    labels = {"headrace.dev/scenario": "yes"}
    spec: Object = {
        "rayVersion": "2.60.0",
        "headGroupSpec": {"rayStartParams": {"dashboard-host": "0.0.0.0"}, "template": _template(image, labels)},
    }
    if workers:
        group = {"groupName": "workers", "replicas": workers, "minReplicas": workers, "maxReplicas": workers}
        group |= {"rayStartParams": {}, "scaleStrategy": {}, "template": _template(image, labels)}
        spec["workerGroupSpecs"] = [group]
    return spec


def ray_job(entrypoint: str = "python -c pass", workers: int = 0, **spec: Any) -> Object:
    """A RayJob as our operator makes them: HTTPMode, no retries of KubeRay's own, the cluster gone in the end."""
    ours = {
        "entrypoint": entrypoint,
        "submissionMode": "HTTPMode",
        "backoffLimit": 0,
        "shutdownAfterJobFinishes": True,
        "rayClusterSpec": cluster_spec(workers=workers),
    }
    kept = {name: value for name, value in (ours | spec).items() if value is not None}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {}, "spec": kept}


SERVE_CONFIG = """\
applications:
- name: app
  route_prefix: /app
  import_path: scenario:application
  deployments:
  - name: main
    num_replicas: 1
    user_config: {version: "1"}
"""


def ray_service(serve_config: str = SERVE_CONFIG, **spec: Any) -> Object:
    """A RayService with one application."""
    body = {
        "serveConfigV2": serve_config,
        "rayClusterConfig": cluster_spec(),
        "rayClusterDeletionDelaySeconds": 1,
    } | spec
    return {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {}, "spec": body}


_NO_KUBELET = Script(Behaviour(pods_seconds=1e6))


def as_played(scenario: Scenario) -> Scenario:
    """SCENARIO with the double's script in its manifest, where the double looks for it."""
    manifest = copy.deepcopy(scenario.manifest)
    spec = manifest["spec"].get("rayClusterSpec") or manifest["spec"]["rayClusterConfig"]
    script = scenario.script if scenario.needs == "pods" else _NO_KUBELET
    spec["headGroupSpec"]["template"]["spec"]["containers"][0]["env"] = [script.to_variable()]
    return replace(scenario, manifest=manifest)


def _without(manifest: Object, *path: str | int) -> Object:
    manifest = copy.deepcopy(manifest)
    at: Any = manifest
    for step in path[:-1]:
        at = at[step]
    del at[path[-1]]
    return manifest


def _annotated(manifest: Object, name: str, value: str) -> Object:
    return {**manifest, "metadata": {"annotations": {name: value}}}


_HEAD = ("spec", "rayClusterSpec", "headGroupSpec", "template")

# -- what holds in the end ---------------------------------------------------------------------------------------------


def _status(**expected: Any) -> Check:
    words = ", ".join(f"{name} is {value!r}" for name, value in expected.items())
    return words, lambda world: all(world.status.get(name) == value for name, value in expected.items())


def _left(clusters: int, pods: int) -> Check:
    return (
        f"{clusters} RayClusters and {pods} pods are left",
        lambda world: (len(world.clusters), len(world.pods)) == (clusters, pods),
    )


def _generation(number: int) -> Check:
    return f"the generation is {number}", lambda world: world.object["metadata"]["generation"] == number


def _event(reason: str) -> Check:
    return f"there is an event {reason}", lambda world: reason in [each["reason"] for each in world.events]


def _uid(obj: Object) -> str:
    return str(obj["metadata"]["uid"])


def _suffixed(world: World, *names: str) -> bool:
    """Whether NAMES of the status are the object's name and five letters."""
    name = world.object["metadata"]["name"] if world.object else ""
    return all(re.fullmatch(f"{name}-[a-z0-9]{{5}}", world.status[each]) for each in names)


def _owned_by_kuberay(world: World) -> set[str]:
    """The fields, outside status, that KubeRay owns."""
    assert world.object is not None
    owned: set[str] = set()
    for entry in world.object["metadata"]["managedFields"]:
        if entry["manager"] not in ("scenario", "scenario-edit") and not entry.get("subresource"):
            owned |= {f"{top}.{below}" for top, fields in entry["fieldsV1"].items() for below in fields}
    return owned


def _condition(type_: str, status: str, reason: str) -> Check:
    return f"{type_} is {status}, {reason}", lambda world: world.condition(type_) == (status, reason)


_GONE: Check = ("the object is gone", lambda world: world.object is None)
_NO_FINALIZER: Check = ("it has no finalizer", lambda world: "finalizers" not in world.object["metadata"])  # type: ignore[index]
_FINALIZER: Check = (
    "it has KubeRay's finalizer",
    lambda world: world.object["metadata"]["finalizers"] == ["ray.io/rayjob-finalizer"],  # type: ignore[index]
)
_NAMES: Check = (
    "the RayCluster and the job id are its name and five letters",
    lambda world: _suffixed(world, "rayClusterName", "jobId"),
)
_ONLY_FINALIZERS: Check = (
    "KubeRay owns the finalizers and nothing else of it",
    lambda world: _owned_by_kuberay(world) == {"f:metadata.f:finalizers"},
)
_HEAD_SERVICE: Check = (
    "the cluster has its head Service",
    lambda world: f"{world.status['rayClusterName']}-head-svc" in [each["metadata"]["name"] for each in world.services],
)
_POD_LABELS: Check = (
    "pods bear the template's labels and KubeRay's",
    lambda world: all(
        pod["metadata"]["labels"]["headrace.dev/scenario"] == "yes"
        and pod["metadata"]["labels"]["ray.io/cluster"] == world.status["rayClusterName"]
        for pod in world.pods
    ),
)
_ANOTHER_CLUSTER: Check = (
    "the second try has another RayCluster and another job id",
    lambda world: len({each["status"]["jobId"] for each in world.seen["Initializing"]}) == 2,
)


def _refused(name: str, manifest: Object, event: str, suffix: str = "") -> Scenario:
    holds = (_status(startTime=None, reason="ValidationFailed"), _NO_FINALIZER, _left(0, 0), _event(event))
    return Scenario(name, manifest, ("", "ValidationFailed//ValidationFailed"), holds, name_suffix=suffix)


_SUSPENDED = ("", "Initializing", "Suspending?", "Suspended")
_SUSPEND, _RESUME = {"spec": {"suspend": True}}, {"spec": {"suspend": False}}
_TOO_LATE = "Failed//PreRunningDeadlineExceeded"

WITHOUT_PODS = (
    _refused("a name of 48 letters is refused", ray_job(), "InvalidRayJobMetadata", "-" + "x" * 47),
    _refused("a name with a dot is refused", ray_job(), "InvalidRayJobMetadata", ".dot"),
    _refused(
        "a time to live without a shutdown is refused",
        ray_job(shutdownAfterJobFinishes=None, ttlSecondsAfterFinished=5),
        "InvalidRayJobSpec",
    ),
    _refused(
        "a suspension without a shutdown is refused",
        ray_job(shutdownAfterJobFinishes=None, suspend=True),
        "InvalidRayJobSpec",
    ),
    Scenario(
        "a refused job stays refused when its spec is mended",
        ray_job(shutdownAfterJobFinishes=None, suspend=True),
        ("", "ValidationFailed//ValidationFailed"),
        (_generation(2), _status(reason="ValidationFailed"), _left(0, 0)),
        (Edit("ValidationFailed//ValidationFailed", {"spec": {"shutdownAfterJobFinishes": True}}),),
    ),
    Scenario(
        "a new job gets a finalizer, a cluster and its pods, and stays ours",
        ray_job(workers=1),
        ("", "Initializing"),
        (_FINALIZER, _NAMES, _generation(1), _ONLY_FINALIZERS, _left(1, 2), _HEAD_SERVICE, _POD_LABELS),
    ),
    Scenario(
        "a template without metadata gets it: a new generation, and KubeRay owns it",
        _without(ray_job(), *_HEAD, "metadata"),
        ("", "Initializing"),
        (_generation(2), _FINALIZER, _left(1, 1)),
    ),
    Scenario(
        "a container without resources gets them: a new generation",
        _without(ray_job(), *_HEAD, "spec", "containers", 0, "resources"),
        ("", "Initializing"),
        (_generation(2), _FINALIZER, _left(1, 1)),
    ),
    Scenario(
        "a job that is made suspended has no cluster",
        ray_job(suspend=True),
        _SUSPENDED,
        (_left(0, 0), _status(rayClusterName=None, jobId=None)),
    ),
    Scenario(
        "a resumed job begins with another cluster",
        ray_job(suspend=True),
        (*_SUSPENDED, "", "Initializing"),
        (_NAMES, _left(1, 1)),
        (Edit("Suspended", _RESUME),),
    ),
    Scenario(
        "a job that is suspended while it waits loses its cluster",
        ray_job(),
        _SUSPENDED,
        (_left(0, 0),),
        (Edit("Initializing", _SUSPEND),),
    ),
    Scenario(
        "a change of the entrypoint is ignored without a word",
        ray_job(),
        ("", "Initializing"),
        (_generation(2), _left(1, 1)),
        (Edit("Initializing", {"spec": {"entrypoint": "python -c 1"}}),),
    ),
    Scenario(
        "a cluster that somebody deletes is made again under its name",
        ray_job(),
        ("", "Initializing"),
        (
            _left(1, 1),
            ("it is another object", lambda w: _uid(w.clusters[0]) != _uid(w.seen[DELETED][0])),
            ("it has the same name", lambda w: w.clusters[0]["metadata"]["name"] == w.status["rayClusterName"]),
        ),
        (Edit("Initializing", delete="cluster"),),
    ),
    Scenario(
        "a job that waits for its pods too long has failed",
        ray_job(preRunningDeadlineSeconds=2),
        ("", "Initializing", _TOO_LATE),
        (_status(failed=1, succeeded=0), _left(0, 0)),
    ),
    Scenario(
        "a job that waits too long is tried again within its backoffLimit",
        ray_job(preRunningDeadlineSeconds=2, backoffLimit=1),
        ("", "Initializing", "Retrying//PreRunningDeadlineExceeded?", "?", "Initializing", _TOO_LATE),
        (_status(failed=2), _left(0, 0), _ANOTHER_CLUSTER),
    ),
    Scenario(
        "a job that is past its deadline has failed, and is not tried again",
        ray_job(activeDeadlineSeconds=2, backoffLimit=3),
        ("", "Initializing", "Failed//DeadlineExceeded"),
        (_status(failed=1), _left(0, 0)),
    ),
    Scenario(
        "a deleted job takes its cluster and pods along",
        ray_job(workers=1),
        ("", "Initializing"),
        (_GONE, _left(0, 0)),
        (Edit("Initializing", delete="object"),),
    ),
    Scenario(
        "a new service has a pending cluster and no Services of its own",
        ray_service(),
        ("", "Initializing/Initializing"),
        (
            _condition("Ready", "False", "Initializing"),
            _generation(1),
            _left(1, 1),
            ("it tells of its generation", lambda w: w.status["observedGeneration"] == 1),
            (
                "the pending cluster is its name and five letters",
                lambda w: w.clusters[0]["metadata"]["name"] == w.status["pendingServiceStatus"]["rayClusterName"],
            ),
            (
                "only the cluster's head Service is there",
                lambda w: (
                    [each["metadata"]["name"] for each in w.services]
                    == [f"{w.clusters[0]['metadata']['name']}-head-svc"]
                ),
            ),
        ),
    ),
    Scenario(
        "a new serveConfigV2 needs no new cluster, and observedGeneration lags until something serves",
        ray_service(),
        ("", "Initializing/Initializing"),
        (_generation(2), ("it lags", lambda w: w.status["observedGeneration"] == 1), _left(1, 1)),
        (Edit("Initializing/Initializing", {"spec": {"serveConfigV2": SERVE_CONFIG.replace('"1"', '"2"')}}),),
    ),
    Scenario(
        "a service with a name of 48 letters is refused",
        ray_service(),
        ("", "ValidationFailed"),
        (_condition("Ready", "False", "ValidationFailed"), _left(0, 0)),
        name_suffix="-" + "x" * 47,
    ),
    Scenario(
        "a deleted service takes its cluster along",
        ray_service(),
        ("", "Initializing/Initializing?"),
        (_GONE, _left(0, 0)),
        (Edit("Initializing/Initializing", delete="object"),),
    ),
)

_RUNS = ("", "Initializing", "Running", "Running/PENDING?", "Running/RUNNING?")
_ENDS_RUNNING = ("", "Initializing", "Running", "Running/PENDING?", "Running/RUNNING")
# The third is left out where the application answers before KubeRay has moved its cluster from pending to active.
_SERVES = ("", "Initializing/Initializing", "Initializing/NoPendingCluster?", "NonZeroServeEndpoints/NoPendingCluster")
_LONG = Script(Behaviour(run_seconds=600))
_RUNS_UNTIL_IT_IS_LOST = Script(Behaviour(run_seconds=600, rerun="succeeds"))


def _ended(world: World) -> str:
    return str(world.status["rayJobInfo"]["endTime"])


def _says_headless(cluster: Object) -> bool:
    return any(each["reason"] == "HeadPodNotFound" for each in cluster["status"]["conditions"])


def _start_times(world: World) -> set[str]:
    objects = [each for state in world.seen.values() for each in state]
    return {each["status"]["rayJobInfo"]["startTime"] for each in objects if each.get("status", {}).get("rayJobInfo")}


WITH_PODS = (
    Scenario(  # 16.8 s
        "a job that succeeds is Complete in one write, and its cluster goes",
        ray_job("python -c 'import time; time.sleep(5)'", workers=1),
        (*_RUNS, "Complete/SUCCEEDED"),
        (
            _status(succeeded=1, failed=0, reason=None),
            _left(0, 0),
            ("it ended", lambda w: bool(_ended(w))),
        ),
        needs="pods",
        script=Script(Behaviour(run_seconds=0.5)),
    ),
    Scenario(
        "a job whose entrypoint fails tells the end of its log",
        ray_job("python -c 'raise SystemExit(\"no such column\")'"),
        (*_RUNS, "Failed/FAILED/AppFailed"),
        (_status(failed=1), ("the log's end is told", lambda w: "no such column" in w.status["message"]), _left(0, 0)),
        needs="pods",
        script=Script(Behaviour("fails", message="no such column")),
    ),
    Scenario(
        "a job past its deadline is Failed and its jobStatus stays RUNNING",
        ray_job("python -c 'import time; time.sleep(600)'", activeDeadlineSeconds=15),
        (*_ENDS_RUNNING, "Failed/RUNNING/DeadlineExceeded"),
        (_status(failed=1, jobStatus="RUNNING"), _left(0, 0)),
        needs="pods",
        script=_LONG,
        on_node={"activeDeadlineSeconds": 60},
    ),
    Scenario(
        "a job whose image is missing waits without a reason of its own",
        ray_job(preRunningDeadlineSeconds=10),
        ("", "Initializing", _TOO_LATE),
        (
            _status(failed=1),
            (
                "the cluster's condition was the only sign",
                lambda w: any(
                    condition["type"] == "HeadPodReady" and condition["reason"].startswith("ErrImage")
                    for each in w.seen["Initializing"]
                    for condition in (each["status"].get("rayClusterStatus") or {}).get("conditions") or ()
                ),
            ),
        ),
        needs="pods",
        script=Script(Behaviour("never-ready")),
        on_node={"preRunningDeadlineSeconds": 60},
    ),
    Scenario(
        "a running job that is suspended and resumed begins anew",
        ray_job("python -c 'import time; time.sleep(600)'"),
        (*_ENDS_RUNNING, "Suspending/RUNNING?", "Suspended", "", "Initializing", *_ENDS_RUNNING[2:]),
        (
            ("it is another job", lambda w: len({o["status"]["jobId"] for o in w.seen["Running/RUNNING"]}) == 2),
            _status(failed=0),
            _left(1, 1),
        ),
        (Edit("Running/RUNNING", _SUSPEND), Edit("Suspended", _RESUME)),
        needs="pods",
        script=_LONG,
    ),
    Scenario(  # the trap: only rayJobInfo.startTime and the head pod's uid tell
        "a lost head makes KubeRay run the job silently again, under the same job id",
        ray_job("python -c 'import time; time.sleep(20)'"),
        (*_ENDS_RUNNING, "Running/PENDING?", "Running/RUNNING?", "Complete/SUCCEEDED"),
        (
            _status(failed=0, succeeded=1),
            ("the start time jumps", lambda w: len(_start_times(w)) == 2),
            ("the job id is the same", lambda w: len({o["status"]["jobId"] for o in w.seen["Running/RUNNING"]}) == 1),
        ),
        (Edit("Running/RUNNING", delete="head"),),
        needs="pods",
        script=_RUNS_UNTIL_IT_IS_LOST,
    ),
    Scenario(  # so our operator asks for it: no second driver starts
        "a lost head that is not to be made again leaves the job RUNNING for ever",
        _annotated(
            ray_job("python -c 'import time; time.sleep(20)'"), "ray.io/disable-provisioned-head-restart", "true"
        ),
        _ENDS_RUNNING,
        (
            _status(jobStatus="RUNNING", failed=0),
            ("it started once", lambda w: len(_start_times(w)) == 1),
            ("there is no head, and the cluster says so", lambda w: not w.heads() and _says_headless(w.clusters[0])),
        ),
        (Edit("Running/RUNNING", delete="head"),),
        needs="pods",
        script=_LONG,
    ),
    Scenario(
        "a lost worker is made again and the job goes on",
        ray_job("python -c 'import time; time.sleep(20)'", workers=1),
        (*_ENDS_RUNNING, "Complete/SUCCEEDED"),
        (_status(failed=0, succeeded=1), ("it ran once", lambda w: len(_start_times(w)) == 1)),
        (Edit("Running/RUNNING", delete="worker"),),
        needs="pods",
        script=Script(Behaviour(run_seconds=8)),  # it must be lost before that is over
    ),
    Scenario(
        "a running job whose cluster somebody deletes runs again in another of the same name",
        ray_job("python -c 'import time; time.sleep(20)'"),
        (*_ENDS_RUNNING, "Running/PENDING?", "Running/RUNNING?", "Complete/SUCCEEDED"),
        (_status(failed=0, succeeded=1), ("the start time jumps", lambda w: len(_start_times(w)) == 2)),
        (Edit("Running/RUNNING", delete="cluster"),),
        needs="pods",
        script=_RUNS_UNTIL_IT_IS_LOST,
    ),
    Scenario(
        "a running job that is deleted is gone at once",
        ray_job("python -c 'import time; time.sleep(600)'", workers=1),
        _ENDS_RUNNING,
        (_GONE, _left(0, 0)),
        (Edit("Running/RUNNING", delete="object"),),
        needs="pods",
        script=_LONG,
    ),
    Scenario(  # 23 s
        "a service becomes Ready with Services of its own name",
        ray_service(),
        _SERVES,
        (
            _condition("Ready", "True", "NonZeroServeEndpoints"),
            _status(serviceStatus="Running", numServeEndpoints=1),
            (
                "its Services are there",
                lambda w: (
                    {f"{w.object['metadata']['name']}-{part}-svc" for part in ("head", "serve")}  # type: ignore[index]
                    <= {each["metadata"]["name"] for each in w.services}
                ),
            ),
            (
                "the application runs",
                lambda w: w.status["activeServiceStatus"]["applicationStatuses"]["app"]["status"] == "RUNNING",
            ),
        ),
        needs="pods",
    ),
    Scenario(  # 0.3 s
        "a new user_config moves nothing but observedGeneration",
        ray_service(),
        _SERVES,
        (
            ("it tells of its generation", lambda w: w.status["observedGeneration"] == 2),
            (
                "the application never left RUNNING",
                lambda w: (
                    {
                        o["status"]["activeServiceStatus"]["applicationStatuses"]["app"]["status"]
                        for o in w.seen["NonZeroServeEndpoints/NoPendingCluster"]
                    }
                    == {"RUNNING"}
                ),
            ),
            _left(1, 1),
        ),
        (
            Edit(
                "NonZeroServeEndpoints/NoPendingCluster",
                {"spec": {"serveConfigV2": SERVE_CONFIG.replace('"1"', '"2"')}},
            ),
        ),
        needs="pods",
    ),
    Scenario(
        "a serveConfigV2 that nobody can read leaves observedGeneration behind",
        ray_service(),
        _SERVES,
        (
            _generation(2),
            ("it lags", lambda w: w.status["observedGeneration"] == 1),
            _condition("Ready", "True", "NonZeroServeEndpoints"),
        ),
        (Edit("NonZeroServeEndpoints/NoPendingCluster", {"spec": {"serveConfigV2": "applications: no list"}}),),
        needs="pods",
    ),
    Scenario(  # 24.4 s to the new answer
        "another cluster spec is served by another cluster, and the old one goes later",
        ray_service(),
        (*_SERVES, "NonZeroServeEndpoints/BothActivePendingClustersExist", "NonZeroServeEndpoints/NoPendingCluster"),
        (_left(1, 1), ("it tells of its generation", lambda w: w.status["observedGeneration"] == 2)),
        (
            Edit(
                "NonZeroServeEndpoints/NoPendingCluster",
                {"spec": {"rayClusterConfig": {"rayVersion": "2.60.1"}}},
            ),
        ),
        needs="pods",
    ),
    Scenario(  # 37 s
        "a service that lost its head is not Ready until another answers",
        ray_service(),
        (*_SERVES, "ZeroServeEndpoints/NoPendingCluster", "NonZeroServeEndpoints/NoPendingCluster"),
        (_left(1, 1), _status(numServeEndpoints=1)),
        (Edit("NonZeroServeEndpoints/NoPendingCluster", delete="head"),),
        needs="pods",
    ),
)

SCENARIOS = (*WITHOUT_PODS, *WITH_PODS)
