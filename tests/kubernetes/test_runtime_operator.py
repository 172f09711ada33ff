"""A third operator, taken from the docs as it is, run as a process against the real API server."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace_testbed.api import Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.ours import install
from headrace_testbed.replica import Replica, wait_for_lease
from headrace_testbed.waiting import eventually

DOCS = Path(__file__).parents[2] / "docs" / "operators"
CRD: Object = yaml.safe_load((DOCS / "third_operator_crd.yaml").read_text())
BUDGETS = "/apis/example.headrace.dev/v1/namespaces/{}/gpubudgets"
GPUS = "requests.nvidia.com/gpu"

Start = Callable[..., Replica]


def budget(name: str, gpus: int) -> Object:
    return {
        "apiVersion": "example.headrace.dev/v1",
        "kind": "GpuBudget",
        "metadata": {"name": name},
        "spec": {"gpus": gpus},
    }


@pytest.fixture
def start(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Start]:
    """Starts replicas of the third operator, each with a kubeconfig whose context is in the given namespace."""
    started: list[Replica] = []

    def run(namespace: str) -> Replica:
        config = yaml.safe_load(control_plane.kubeconfig.read_text())
        config["contexts"][0]["context"]["namespace"] = namespace
        path = tmp_path / f"kubeconfig-{len(started)}"
        path.write_text(yaml.safe_dump(config))
        replica = Replica(
            "third-operator",
            [sys.executable, DOCS / "third_operator.py"],
            tmp_path / f"replica-{len(started)}.log",
            {"KUBECONFIG": str(path), "ADDRESS": "127.0.0.1:0", "NAMESPACE": namespace},
        )
        started.append(replica)
        replica.start()
        return replica

    yield run
    for replica in started:
        replica.kill()


@pytest.fixture
def installed(control_plane: ControlPlane) -> None:
    """Its CRD."""
    install(control_plane, [CRD])


def quota(plane: ControlPlane, namespace: str) -> Object:
    quotas = plane.api.list(f"/api/v1/namespaces/{namespace}/resourcequotas")
    assert len(quotas) == 1
    return quotas[0]


def remove_crd(plane: ControlPlane) -> None:
    path, name = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD["metadata"]["name"]
    if plane.api.list(path, fieldSelector=f"metadata.name={name}"):
        plane.api.delete(f"{path}/{name}")
    eventually(lambda: not plane.api.list(path, fieldSelector=f"metadata.name={name}"))


def test_the_example_of_the_docs_is_about_sixty_lines() -> None:
    assert len([line for line in (DOCS / "third_operator.py").read_text().splitlines() if line]) <= 60


def test_the_page_shows_the_example_as_it_is() -> None:
    assert (DOCS / "third_operator.py").read_text() in (DOCS / "runtime.md").read_text()


def test_a_third_operator_acts_mends_reports_and_stops_in_peace(
    control_plane: ControlPlane, installed: None, namespace: str, start: Start
) -> None:
    api, budgets = control_plane.api, BUDGETS.format(namespace)
    replica = start(namespace)
    wait_for_lease(api, namespace, "gpu-budgets", replica.identity)
    api.apply(budget("team", 4), namespace=namespace)
    eventually(lambda: quota(control_plane, namespace)["spec"]["hard"][GPUS] == "4")

    def ready() -> Any:
        status = api.get(f"{budgets}/team").get("status", {})
        return [(c["type"], c["status"], c["observedGeneration"]) for c in status.get("conditions", ())]

    eventually(lambda: ready() == [("Ready", "True", 1)])

    api.patch(f"{budgets}/team", {"spec": {"gpus": 2}})
    eventually(lambda: quota(control_plane, namespace)["spec"]["hard"][GPUS] == "2")
    eventually(lambda: ready() == [("Ready", "True", 2)])

    api.patch(f"/api/v1/namespaces/{namespace}/resourcequotas/team", {"spec": {"hard": {GPUS: "100"}}})
    eventually(lambda: quota(control_plane, namespace)["spec"]["hard"][GPUS] == "2")

    uid = quota(control_plane, namespace)["metadata"]["uid"]
    api.delete(f"/api/v1/namespaces/{namespace}/resourcequotas/team")
    eventually(lambda: quota(control_plane, namespace)["metadata"]["uid"] != uid)

    described = control_plane.kubectl("describe", "gpubudget", "team", "-n", namespace)
    assert "QuotaSet" in described
    assert "at most 2 GPUs from now on" in described

    api.delete(f"{budgets}/team")
    replica.terminate()
    assert replica.exit_code() == 0
    assert replica.said("stopped")
    lease = api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/gpu-budgets")
    assert lease["spec"].get("holderIdentity", "") == ""


def test_it_is_alive_but_not_ready_until_its_crd_is_there_and_says_so(
    control_plane: ControlPlane, namespace: str, start: Start
) -> None:
    remove_crd(control_plane)
    replica = start(namespace)
    told = replica.wait_until_it_said("install its CRD")
    assert "gpubudgets.example.headrace.dev" in told["message"]
    assert replica.page("/healthz").status_code == 200

    def waits_for_its_crd_alone() -> bool:
        answer = replica.page("/readyz")
        assert answer.status_code == 503
        return answer.text == "gpubudget has not listed gpubudgets yet\n"

    eventually(waits_for_its_crd_alone)
    install(control_plane, [CRD])
    eventually(lambda: replica.page("/readyz").status_code == 200)
    assert replica.running


def test_a_quiet_time_has_no_write_but_the_lease(
    control_plane: ControlPlane, installed: None, namespace: str, start: Start
) -> None:
    replica = start(namespace)
    for number in range(20):
        control_plane.api.apply(budget(f"team-{number}", number), namespace=namespace)
    wait_for_lease(control_plane.api, namespace, "gpu-budgets", replica.identity)

    def settled() -> bool:
        items = control_plane.api.list(BUDGETS.format(namespace))
        return all(item.get("status", {}).get("conditions", [{}])[0].get("status") == "True" for item in items)

    eventually(settled)
    quiet = datetime.now(UTC).isoformat(timespec="microseconds")  # what came before may come into the log later
    time.sleep(10)
    writes = {
        (event["verb"], event["objectRef"]["resource"])
        for event in control_plane.audited(containing=replica.identity)
        if event["requestReceivedTimestamp"] > quiet and event["verb"] not in ("get", "list", "watch")
    }
    assert writes <= {("update", "leases")}


def test_its_metrics_tell_what_the_test_made_it_do(
    control_plane: ControlPlane, installed: None, namespace: str, start: Start
) -> None:
    replica = start(namespace)
    wait_for_lease(control_plane.api, namespace, "gpu-budgets", replica.identity)
    for number in range(5):
        control_plane.api.apply(budget(f"team-{number}", number), namespace=namespace)
    eventually(lambda: len(control_plane.api.list(f"/api/v1/namespaces/{namespace}/resourcequotas")) == 5)
    eventually(lambda: (replica.metric("headrace_cache_objects", {"kind": "ResourceQuota"}) or 0) >= 5)
    label = {"name": "gpubudget"}
    controller = {"controller": "gpubudget"}
    assert replica.page("/metrics").headers["content-type"].startswith("text/plain; version=")
    for metric, labels in (  # a quota is there before the operator has counted what it did for it
        ("controller_runtime_reconcile_total", {**controller, "result": "success"}),
        ("controller_runtime_reconcile_time_seconds_count", controller),
        ("workqueue_adds_total", label),
        ("workqueue_work_duration_seconds_count", label),
        ("rest_client_requests_total", {"method": "PATCH", "code": "201"}),
        ("headrace_events_total", {"result": "written"}),
    ):
        eventually(lambda metric=metric, labels=labels: (replica.metric(metric, labels) or 0) >= 5)
    eventually(lambda: replica.metric("workqueue_depth", label) == 0)
    assert replica.metric("controller_runtime_max_concurrent_reconciles", controller) == 8
    assert replica.metric("leader_election_master_status", {"name": "gpu-budgets"}) == 1
    measured = replica.metric("process_resident_memory_bytes") or 0
    assert 0.8 < measured / 2**20 / replica.resident_mib < 1.25


def test_the_second_signal_ends_it_at_once(installed: None, namespace: str, start: Start) -> None:
    replica = start(namespace)
    replica.wait_until_it_said("holding the lease")
    os.kill(replica.pid, signal.SIGTERM)
    os.kill(replica.pid, signal.SIGTERM)
    assert replica.exit_code() in (0, -signal.SIGTERM)
