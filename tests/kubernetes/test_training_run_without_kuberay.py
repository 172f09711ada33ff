"""A cluster that has no KubeRay yet: a TrainingRun says so, and begins when somebody has installed it."""

from __future__ import annotations

from pathlib import Path

from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.operators import install_kuberay_1_7
from headrace_testbed.ours import install_crds
from headrace_testbed.training_runs import MLflowStandIn, OperatorProcess, condition, ray_jobs, training_run
from headrace_testbed.waiting import eventually

RUNS = "/apis/headrace.dev/v1alpha1/namespaces/default/trainingruns"


def test_a_run_waits_for_kuberay_and_begins_when_it_is_there(tmp_path: Path) -> None:
    with ControlPlane(tmp_path) as plane, MLflowStandIn() as mlflow:
        install_crds(plane)
        with OperatorProcess(plane, "training_run"):
            plane.api.post(RUNS, training_run("digits", mlflow.url))
            eventually(lambda: condition(plane.api.get(f"{RUNS}/digits"), "Running") == ("False", "KubeRayMissing"))
            status = plane.api.get(f"{RUNS}/digits")["status"]
            assert (status["phase"], status.get("attempt", 0)) == ("Pending", 0)
            assert "install KubeRay" in status["message"]
            install_kuberay_1_7(plane)
            (job,) = eventually(lambda: ray_jobs(plane, "default"))
            assert job["metadata"]["name"] == "digits-1"
            eventually(lambda: plane.api.get(f"{RUNS}/digits")["status"].get("rayJobUID") == job["metadata"]["uid"])
