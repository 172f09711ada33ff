"""A real Prometheus scrapes the running operator: each metric of our own kinds has the value that the test forced.

Those of the runtime are `test_runtime_metrics.py`'s. KubeRay and the fronts are doubles here; MLflow is real.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.monitoring import names
from headrace_chaos.storm import ACCOUNT, field_of
from headrace_operators.metrics_reference import DECLARING
from headrace_operators.runtime import metrics
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.mlflow_server import MLflowServer
from headrace_testbed.model_deployments import model_deployment
from headrace_testbed.processes import free_port
from headrace_testbed.prometheus import Prometheus
from headrace_testbed.replica import Replica
from headrace_testbed.training_runs import training_run
from headrace_testbed.waiting import eventually
from kuberay_double import Behaviour, Script

Object = dict[str, Any]
SPACE = "counted"
OURS = f"/apis/headrace.dev/v1alpha1/namespaces/{SPACE}"
PERMANENT = 'HEADRACE_FAILURE {"code": "invalid-input", "message": "no such column", "permanent": true}'
ENDINGS = {
    "ends-well": (Script(Behaviour(run_seconds=2.0)), {}),
    "fails": (Script(Behaviour("fails", message=PERMANENT)), {}),
    "goes-on": (Script(Behaviour("runs-on")), {}),
    "rests": (Script(), {"suspend": True}),
}
# What fronts would export under 40 requests a second, each of which takes 25 to 50 ms.
OF_FRONT = {"deployment": "digits", "version": "7"}
EXPORTED = [
    ("requests_total", {"code": "200"}, 30),
    ("requests_total", {"code": "500"}, 10),
    ("request_seconds_bucket", {"le": "0.025"}, 0),
    ("request_seconds_bucket", {"le": "0.05"}, 40),
    ("request_seconds_bucket", {"le": "+Inf"}, 40),
]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, int]]:
    """A Prometheus and the port that it scrapes; what fronts would export it makes by rules."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    rules = [
        {"record": f"ray_headrace_{name}", "labels": OF_FRONT | labels, "expr": f"time() * {rate}"}
        for name, labels, rate in EXPORTED
    ]
    text = yaml.safe_dump({"groups": [{"name": "fronts", "interval": "1s", "rules": rules}]})
    (folder / "fronts.yaml").write_text(text)
    job = {"job_name": "operator", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    config = {
        "global": {"scrape_interval": "500ms"},
        "rule_files": [str(folder / "fronts.yaml")],
        "scrape_configs": [job],
    }
    with Prometheus(config, folder) as server:
        yield server, port


@pytest.fixture(scope="module")
def plane(
    played_plane: ControlPlane, prometheus: tuple[Prometheus, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """With one operator at work, and a TrainingRun of each ending, a ModelDeployment and a ModelMonitor asked of it."""
    api = played_plane.api
    api.post("/api/v1/namespaces", {"metadata": {"name": SPACE}})
    with (
        MLflowServer(tmp_path_factory.mktemp("mlflow")) as mlflow,
        field_of(played_plane, SPACE, mlflow),
    ):
        mlflow.register("digits", 7)
        kubeconfig = played_plane.kubeconfig_for_service_account(SPACE, ACCOUNT)
        flags = ["--namespace", SPACE, "--kubeconfig", str(kubeconfig), "--no-leader-election", "--health-address", ""]
        flags += ["--metrics-address", f"127.0.0.1:{prometheus[1]}", "--mlflow-interval-seconds", "1"]
        command = [Path(sys.executable).parent / "headrace", "operator", *flags]
        operator = Replica("headrace-operator", command, played_plane.folder / "counted.log")
        operator.start()
        try:
            for name, (script, spec) in ENDINGS.items():
                mlflow.start_run(f"id-{name}", attempt="1.1", cpu_seconds="120.5", gpu_seconds="60")
                run = training_run(name, mlflow.url, run_id=f"id-{name}", **spec)
                run["spec"]["pods"]["environment"] = [script.to_variable()]
                api.post(f"{OURS}/trainingruns", run)
            deployment = model_deployment("digits", mlflow.url)
            deployment["spec"]["model"] = {"name": "digits", "version": "7"}
            api.post(f"{OURS}/modeldeployments", deployment)
            monitor = {"deploymentName": "digits", "prometheus": {"url": prometheus[0].url}}
            monitor |= {"intervalSeconds": 5, "windowSeconds": 15, "objectives": {"maxErrorRatio": 0.05}}
            metadata = {"name": "watch"}
            body = {
                "apiVersion": "headrace.dev/v1alpha1",
                "kind": "ModelMonitor",
                "metadata": metadata,
                "spec": monitor,
            }
            api.post(f"{OURS}/modelmonitors", body)
            yield played_plane
        finally:
            operator.kill()


def value(server: Prometheus, expression: str) -> float | None:
    """The one value of an instant query."""
    found = server.query(expression)
    assert len(found) <= 1, found
    return float(found[0]["value"][1]) if found else None


@pytest.mark.parametrize(
    ("expression", "forced", "off_by"),
    [
        ('headrace_training_runs{phase="Succeeded"}', 1, 0),
        ('headrace_training_runs{phase="Failed"}', 1, 0),
        ('headrace_training_runs{phase="Running"}', 1, 0),
        ('headrace_training_runs{phase="Suspended"}', 1, 0),
        ('headrace_training_runs{phase="Pending"}', 0, 0),
        ('headrace_training_attempts_total{result="succeeded"}', 1, 0),
        ('headrace_training_attempts_total{result="failed"}', 1, 0),
        ("headrace_training_cpu_seconds_total", 3 * 120.5, 0.1),  # of the three that began
        ("headrace_training_gpu_seconds_total", 3 * 60, 0.1),
        ("headrace_training_queue_wait_seconds_count", 3, 0),
        ('headrace_deployments{state="available"}', 1, 0),
        ('headrace_deployment_version_info{name="digits",version="7"}', 1, 0),
        ("headrace_deployment_swap_seconds_count", 1, 0),
        ('headrace_monitor_healthy{name="watch",deployment="digits"}', 0, 0),
        ("headrace_monitor_error_ratio", 0.25, 0.01),
        ("headrace_monitor_requests", 15 * 40, 60),
        ('headrace_monitor_latency_seconds{quantile="0.5"}', 0.0375, 0.001),
        ('headrace_monitor_latency_seconds{quantile="0.99"}', 0.04975, 0.001),
    ],
)
def test_a_metric_has_the_value_that_was_forced(
    plane: ControlPlane, prometheus: tuple[Prometheus, int], expression: str, forced: float, off_by: float
) -> None:
    def look() -> bool:
        found = value(prometheus[0], expression)
        assert found is not None, f"{expression} has no data"
        assert abs(found - forced) <= off_by, f"{expression} is {found}, not {forced}"
        return True

    eventually(look)


def test_every_documented_metric_of_our_kinds_has_data(plane: ControlPlane, prometheus: tuple[Prometheus, int]) -> None:
    assert DECLARING  # importing them has filled the table
    ours = [name for name in metrics.TABLE if name.startswith(("headrace_training", "headrace_dep", "headrace_mon"))]
    ours.remove(names.TRAINING_WAITING_SINCE)  # nobody waits here: see test_monitoring_operators.py
    assert len(ours) >= 12
    for name in ours:
        series = name + ("_count" if metrics.TABLE[name].type == "histogram" else "")
        eventually(lambda series=series: prometheus[0].query(series))
