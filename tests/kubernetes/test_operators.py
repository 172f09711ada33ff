"""The operators of others in the test bed: they do here what ours rests on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace_testbed.api import ApiError
from headrace_testbed.builds import program
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.operators import KubeRayOperator, Kueue
from headrace_testbed.prometheus import Prometheus
from headrace_testbed.waiting import eventually

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _ray_job(name: str, labels: dict[str, str] | None = None, **spec: object) -> dict:
    container = {
        "name": "ray-head",
        "image": "rayproject/ray:2.60.0",
        "securityContext": RESTRICTED,
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
    }
    template = {"metadata": {"labels": {"testbed": "head"}}, "spec": {"containers": [container]}}
    cluster = {"rayVersion": "2.60.0", "headGroupSpec": {"rayStartParams": {}, "template": template}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "entrypoint": "true",
            "submissionMode": "HTTPMode",
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": cluster,
            **spec,
        },
    }


def _items(plane: ControlPlane, namespace: str, kind: str) -> list[dict]:
    group = "/api/v1" if kind == "pods" else "/apis/ray.io/v1"
    return plane.api.list(f"{group}/namespaces/{namespace}/{kind}")


def test_kuberay_makes_a_cluster_and_a_head_pod_of_a_ray_job(
    control_plane: ControlPlane, kuberay: KubeRayOperator, namespace: str
):
    control_plane.api.apply(_ray_job("job"), namespace=namespace)
    (cluster,) = eventually(lambda: _items(control_plane, namespace, "rayclusters"))
    assert cluster["metadata"]["ownerReferences"][0]["kind"] == "RayJob"
    (pod,) = eventually(lambda: _items(control_plane, namespace, "pods"))
    assert pod["status"]["phase"] == "Pending"
    assert pod["metadata"]["labels"]["ray.io/node-type"] == "head"
    assert pod["metadata"]["labels"]["testbed"] == "head"


def test_kuberay_has_the_rights_of_its_own_role_and_no_others(control_plane: ControlPlane, kuberay: KubeRayOperator):
    api = control_plane.api_for_service_account(kuberay.NAMESPACE, "kuberay-operator")
    assert api.list("/apis/ray.io/v1/rayjobs") is not None
    with pytest.raises(ApiError) as refused:
        api.list("/api/v1/nodes")
    assert refused.value.reason == "Forbidden"


def test_a_ray_job_is_valid_under_kuberay_1_7(kuberay_1_7: ControlPlane):
    applied = kuberay_1_7.api.apply(_ray_job("job"))
    assert applied["spec"]["submissionMode"] == "HTTPMode"
    with pytest.raises(ApiError, match="field not declared in schema"):
        kuberay_1_7.api.apply(_ray_job("bad", submissionMood="cheerful"))


FLAVOR = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "any"}}


def _queue(name: str, cpus: str) -> dict:
    quotas = [{"name": "cpu", "nominalQuota": cpus}, {"name": "memory", "nominalQuota": "8Gi"}]
    group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": "any", "resources": quotas}]}
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "ClusterQueue",
        "metadata": {"name": name},
        "spec": {"namespaceSelector": {}, "resourceGroups": [group]},
    }


def _local_queue(cluster_queue: str) -> dict:
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "LocalQueue",
        "metadata": {"name": "queue"},
        "spec": {"clusterQueue": cluster_queue},
    }


def _active(plane: ControlPlane, path: str) -> bool:
    conditions = plane.api.get(path).get("status", {}).get("conditions", [])
    return any(each["type"] == "Active" and each["status"] == "True" for each in conditions)


@pytest.fixture
def queue(control_plane: ControlPlane, kueue: Kueue, namespace: str) -> str:
    """A queue with room for one CPU, served in the test's namespace."""
    api = control_plane.api
    api.apply(FLAVOR)
    api.apply(_queue(namespace, "1"))
    api.apply(_local_queue(namespace), namespace=namespace)
    eventually(lambda: _active(control_plane, f"/apis/kueue.x-k8s.io/v1beta2/clusterqueues/{namespace}"))
    return "queue"


def test_kueue_serves_a_queue(control_plane: ControlPlane, namespace: str, queue: str):
    path = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}/localqueues/{queue}"
    assert eventually(lambda: _active(control_plane, path))


def test_kueue_lets_a_ray_job_run_when_its_queue_has_room(control_plane: ControlPlane, namespace: str, queue: str):
    def make(name: str) -> Callable[[], bool]:
        manifest = _ray_job(name, {"kueue.x-k8s.io/queue-name": queue}, suspend=True)
        path = control_plane.api.path_of(control_plane.api.apply(manifest, namespace=namespace))
        return lambda: control_plane.api.get(path)["spec"].get("suspend", False)  # Kueue removes it

    first_suspended = make("first")
    eventually(lambda: not first_suspended())
    second_suspended = make("second")
    workloads = f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}/workloads"

    def waiting_for_quota() -> list[str]:
        return [
            condition["message"]
            for workload in control_plane.api.list(workloads)
            for condition in workload.get("status", {}).get("conditions", [])
            if condition["type"] == "QuotaReserved" and condition["status"] == "False"
        ]

    def one_waits() -> bool:
        messages = waiting_for_quota()
        assert len(messages) == 1, messages
        assert "insufficient unused quota" in messages[0]
        return True

    eventually(one_waits)
    assert second_suspended()


def test_kueue_suspends_a_ray_job_that_forgot_to(control_plane: ControlPlane, namespace: str, queue: str):
    labels = {"kueue.x-k8s.io/queue-name": "no-such-queue"}
    assert control_plane.api.apply(_ray_job("eager", labels), namespace=namespace)["spec"]["suspend"] is True


def test_both_go_on_after_a_crash_of_the_api_server(
    control_plane: ControlPlane, kuberay: KubeRayOperator, kueue: Kueue, namespace: str, queue: str
):
    control_plane.restart_apiserver()
    control_plane.api.apply(_ray_job("after", {"kueue.x-k8s.io/queue-name": queue}, suspend=True), namespace=namespace)
    eventually(lambda: _items(control_plane, namespace, "pods"))
    for operator in (kuberay, kueue):
        assert operator.daemon is not None
        assert operator.daemon.running


def test_prometheus_scrapes_the_operator_and_answers(kuberay: KubeRayOperator, tmp_path: Path):
    job = {"job_name": "kuberay", "static_configs": [{"targets": [kuberay.metrics_address]}]}
    with Prometheus({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}, tmp_path / "p") as prometheus:
        (sample,) = eventually(lambda: prometheus.query('up{job="kuberay"} == 1'))
        assert sample["value"][1] == "1"
        assert prometheus.query("workqueue_adds_total")


def test_helm_is_there_in_the_version_that_the_lock_names():
    done = subprocess.run([program("helm"), "version", "--short"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("v3.22.0")
