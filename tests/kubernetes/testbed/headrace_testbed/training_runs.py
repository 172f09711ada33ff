"""What tests of the TrainingRun operator share: the operator as a process, runs to make, and a stand-in for MLflow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import httpx

from headrace_operators.rbac import NAME
from headrace_testbed.api import ApiError, Object
from headrace_testbed.control_plane import START_SECONDS, ControlPlane
from headrace_testbed.ours import install_rbac
from headrace_testbed.processes import Daemon, free_port
from headrace_testbed.stand_in import Reply, StandIn, json_reply
from headrace_testbed.waiting import eventually

_NAMESPACE = "headrace-system"
_READS = ("get", "list", "watch")
_PROGRAM = """
import sys
from importlib import import_module
from pathlib import Path
from headrace_operators.process import ProcessOptions, run
from headrace_operators.settings import OperatorSettings
module, kubeconfig, metrics, health = sys.argv[1:]
settings = OperatorSettings("registry.example/headrace:1", 1.0)
options = ProcessOptions(
    metrics_address=metrics, health_address=health, lease_name=None, kubeconfig=kubeconfig,
    service_account=Path("/nowhere"), settings=settings, log_format="text",
)
sys.exit(run(options, lambda _: [import_module("headrace_operators." + module).reconciler(settings)]))
"""


class OperatorProcess:
    """One of our operators as a process of its own, with a ServiceAccount of its own that has the rights which the
    chart ships; MLflow is asked every second.

    Args:
        plane: where it works.
        module: which of our operators.
        prefix: what is put before the command, as `Apart.prefix`.
    """

    def __init__(self, plane: ControlPlane, module: str, prefix: Sequence[str] = ()) -> None:
        self._plane = plane
        self.prefix = prefix
        self.account = f"test-{module.replace('_', '-')}"
        self.user = f"system:serviceaccount:{_NAMESPACE}:{self.account}"
        self.metrics_address, self.health_address = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self._module = module
        self.daemon: Daemon | None = None

    def __enter__(self) -> OperatorProcess:
        for path, manifest in self._objects():
            try:
                self._plane.api.post(path, manifest)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
        install_rbac(self._plane, _NAMESPACE)
        kubeconfig = self._plane.kubeconfig_for_service_account(_NAMESPACE, self.account)
        addresses = [self.metrics_address, self.health_address]
        command = [*self.prefix, sys.executable, "-c", _PROGRAM, self._module, kubeconfig, *addresses]
        self.daemon = Daemon("headrace-operator", command, self._plane.folder / f"{self.account}.log")
        self.daemon.start()
        self.daemon.wait_for(self._ready, START_SECONDS)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.daemon:
            self.daemon.stop()

    def writes(self, namespace: str) -> list[Object]:
        """What it asked to be changed in NAMESPACE so far."""
        return [
            event
            for event in self._plane.audited(self.user)
            if event["stage"] == "ResponseComplete"
            and event["verb"] not in _READS
            and event["objectRef"].get("namespace") == namespace
        ]

    def rests_for(self, namespace: str, seconds: float) -> None:
        """Wait until it has written nothing in NAMESPACE for so long: what it does there late is no fault, that it
        never comes to rest is one."""

        def rests() -> bool:
            assert self.daemon is not None
            if not self.daemon.running:
                raise RuntimeError(f"the operator has ended, which is no rest; its log is {self.daemon.log}")
            newest = max((event["requestReceivedTimestamp"] for event in self.writes(namespace)), default="")
            assert newest, "it has written nothing yet"
            ago = (datetime.now(UTC) - datetime.fromisoformat(newest)).total_seconds()
            assert ago >= seconds, f"its newest write is of {newest}"
            return True

        eventually(rests, 2 * seconds + 60, pause_seconds=1)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"http://{self.health_address}/readyz", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _objects(self) -> Iterator[tuple[str, Object]]:
        yield "/api/v1/namespaces", {"metadata": {"name": _NAMESPACE}}
        yield f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts", {"metadata": {"name": self.account}}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME}
        subject = {"kind": "ServiceAccount", "name": self.account, "namespace": _NAMESPACE}
        binding = {"metadata": {"name": self.account}, "roleRef": role, "subjects": [subject]}
        yield "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding


class MLflowStandIn(StandIn):
    """Answers as MLflow's REST API does where the operator asks; it is not MLflow."""

    def __init__(self) -> None:
        super().__init__()
        self._runs: dict[str, dict[str, str]] = {}

    def reply(self, path: str, asked: Object) -> Reply:
        """See `StandIn.reply`."""
        return json_reply(self.answer(path.rsplit("mlflow/", 1)[-1], asked))

    def report(self, run_id: str, **tags: str) -> None:
        """Set tags of the run of RUN_ID: `headrace.<name>`."""
        self._runs.setdefault(run_id, {}).update({f"headrace.{name}": value for name, value in tags.items()})

    def answer(self, path: str, asked: Object) -> Object:
        """What MLflow would answer."""
        if path.startswith("experiments/search"):
            return {"experiments": [{"experiment_id": "1"}]}
        if path.startswith("runs/get"):
            run_id = path.rpartition("run_id=m-")[2]
            return {"run": self._run(run_id)}
        run_id = asked["filter"].split("'")[1]
        return {"runs": [self._run(run_id)]} if run_id in self._runs else {}

    def _run(self, run_id: str) -> Object:
        tags = [{"key": key, "value": value} for key, value in self._runs.get(run_id, {}).items()]
        info = {"run_id": f"m-{run_id}", "experiment_id": "1", "lifecycle_stage": "active"}
        return {"info": info, "data": {"tags": tags, "metrics": []}}


def training_run(name: str, mlflow: str, *, workers: int = 1, run_id: str = "", **spec: Any) -> Object:
    """A TrainingRun of small pods."""
    small = {"cpu": "1", "memory": "1Gi"}
    whole: Object = {
        "tasks": [{"name": "image-classification", "args": {}}],
        "model": {"name": "mlp", "args": {}},
        "train": {"workers": {"min": workers, "max": workers}},
        "manifestURI": "s3://bucket/splits/abc",
        "store": {"uri": "s3://bucket/prefix"},
        "mlflow": {"trackingURI": mlflow},
        "pods": {"head": small, "worker": small, "sharedMemory": "256Mi"},
        **({"runID": run_id} if run_id else {}),
        **spec,
    }
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": name},
        "spec": whole,
    }


def condition(obj: Object, type_: str) -> tuple[str, str]:
    """Status and reason of a condition."""
    for entry in (obj.get("status") or {}).get("conditions") or ():
        if entry["type"] == type_:
            return entry["status"], entry["reason"]
    return "", ""


def is_so_at_once(make: Callable[[int], Callable[[], bool]], seconds: float = 1.0) -> None:
    """What MAKE(number) says comes true within SECONDS of its return, at least at one of the tries: a machine that is
    busy may be late at some, an operator that waits for something is so at each."""
    taken = []
    for number in range(20):
        holds = make(number)
        started = time.monotonic()
        eventually(holds, pause_seconds=0.02)
        taken.append(time.monotonic() - started)
        if taken[-1] < seconds:
            return
    raise AssertionError(f"it was never so within {seconds:g} s, but within {taken}")


def ray_jobs(plane: ControlPlane, namespace: str) -> list[Object]:
    """All RayJobs of NAMESPACE."""
    return plane.api.list(f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs")


def pods_of(plane: ControlPlane, namespace: str, run: str) -> list[Object]:
    """The pods of a TrainingRun."""
    return plane.api.list(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"headrace.dev/training-run={run}")


def events(plane: ControlPlane, namespace: str, run: str) -> set[str]:
    """The reasons of all Events of a TrainingRun."""
    found = plane.api.list(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.name={run}")
    return {event["reason"] for event in found if event["involvedObject"]["kind"] == "TrainingRun"}


def say_pods_run(plane: ControlPlane, namespace: str, run: str) -> None:
    """Say what a kubelet would: the run's pods are bound, run and are ready."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for number, pod in enumerate(pods_of(plane, namespace, run)):
        ready = [{"type": type_, "status": "True", "lastTransitionTime": now} for type_ in ("PodScheduled", "Ready")]
        status = {"phase": "Running", "podIP": f"10.1.1.{number + 1}", "conditions": ready, "startTime": now}
        plane.api.patch(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status", {"status": status})


def finish(plane: ControlPlane, namespace: str, job: str) -> None:
    """Say what KubeRay would of a RayJob whose driver ended well. It takes such an end as final."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "endTime": now}
    plane.api.patch(f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs/{job}/status", {"status": ended})
