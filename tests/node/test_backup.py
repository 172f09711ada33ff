"""The chart's CronJob in real pods of the MLflow image: it backs up, and what was lost comes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import httpx
import pytest

from headrace_testbed.api import Object
from headrace_testbed.helm import NAMESPACE
from headrace_testbed.node import Node
from headrace_testbed.objects import model_deployment
from headrace_testbed.release import START_SECONDS, THEIRS, WORKSPACE, Release
from headrace_testbed.waiting import eventually

# Not the runtime: no Ray cluster is made here.
pytestmark = [pytest.mark.images("operator", "mlflow", *THEIRS), pytest.mark.timeout(2400)]
JOBS = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
DEPLOYMENTS = f"/apis/headrace.dev/v1alpha1/namespaces/{WORKSPACE}/modeldeployments"
DESTINATION = "s3://headrace/backups"


def settled(release: Release) -> bool:
    return not release.unready() and release.node.api.get(
        f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs/headrace-backup"
    )


def log_of(node: Node, name: str) -> str:
    return str(node.kubectl("logs", "-n", NAMESPACE, f"job/{name}", "--tail=-1"))


def run(node: Node, name: str, command: Sequence[str] = (), arguments: Sequence[str] = ()) -> str:
    """Run a job made of the CronJob, with other words if they are given, to its end; its log."""
    created = ("create", "job", "-n", NAMESPACE, "--from=cronjob/headrace-backup", "--dry-run=client", "-o", "json")
    manifest: Object = json.loads(node.kubectl(*created, name))
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    if command:
        container |= {"command": list(command), "args": list(arguments)}
    node.api.post(JOBS, manifest)
    eventually(partial(ended, node, name), 600, 1.0)
    status = node.api.get(f"{JOBS}/{name}")["status"]
    assert status.get("succeeded") == 1, log_of(node, name)
    return log_of(node, name)


def ended(node: Node, name: str) -> bool:
    status = node.api.get(f"{JOBS}/{name}").get("status", {})
    return bool(status.get("succeeded") or status.get("failed"))


def versions(mlflow: httpx.Client) -> list[Any]:
    answer = mlflow.get("/model-versions/search", params={"filter": "name='houses'"})
    answer.raise_for_status()
    return list(answer.json().get("model_versions", []))


def make(mlflow: httpx.Client, path: str, body: Object) -> Any:
    answer = mlflow.post(path, json=body)
    answer.raise_for_status()
    return answer.json()


def test_a_pod_backs_up_and_another_brings_back_what_was_lost(node: Node, release: Release) -> None:
    release.helm.upgrade(
        NAMESPACE, {**release.values(), "backup": {"enabled": True, "schedule": "0 0 1 1 *"}}
    )  # by hand alone
    eventually(lambda: settled(release), START_SECONDS, 0.5)
    site = release.site()
    with release.mlflow() as mlflow:
        run_id = make(mlflow, "/runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
        make(mlflow, "/runs/log-metric", {"run_id": run_id, "key": "loss", "value": 0.5, "timestamp": 1, "step": 1})
        make(mlflow, "/registered-models/create", {"name": "houses"})
        make(mlflow, "/model-versions/create", {"name": "houses", "source": "s3://headrace/store/packages/x"})
        make(mlflow, "/registered-models/alias", {"name": "houses", "alias": "champion", "version": "1"})
        served = model_deployment("houses", store=site["store"], mlflow=site["mlflow"])
        node.api.post(DEPLOYMENTS, served)

        said = run(node, "by-hand")
        assert "1 ModelDeployment" in said
        assert "1 runs, 1 models, 1 versions, 1 aliases" in said
        assert "verified:" in said
        lease = node.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/headrace-backup")
        assert lease["metadata"]["annotations"]["headrace.dev/backup-uri"].startswith(DESTINATION)

        mlflow.request("DELETE", "/registered-models/delete", json={"name": "houses"}).raise_for_status()
        make(mlflow, "/runs/delete", {"run_id": run_id})
        node.api.delete(f"{DEPLOYMENTS}/houses")
        assert versions(mlflow) == []
        node.kubectl(
            *("create", "rolebinding", "headrace-restore", "-n", WORKSPACE, "--role=headrace-restore"),
            f"--serviceaccount={NAMESPACE}:headrace-backup",
        )
        words = [DESTINATION, f"--namespace={WORKSPACE}"]
        assert "nothing was changed" in run(
            node, "look", ["headrace", "restore"], [*words, "--dry-run", "--existing=overwrite"]
        )
        run(node, "restore", ["headrace", "restore"], [*words, "--yes", "--existing=overwrite"])

        assert [version["version"] for version in versions(mlflow)] == ["1"]
        named = mlflow.get("/registered-models/alias", params={"name": "houses", "alias": "champion"}).json()
        assert named["model_version"]["version"] == "1"
        found = mlflow.get("/runs/get", params={"run_id": run_id}).json()["run"]
        assert found["info"]["lifecycle_stage"] == "active"
        assert found["data"]["metrics"][0]["value"] == 0.5
        assert node.api.get(f"{DEPLOYMENTS}/houses")["spec"]["model"] == served["spec"]["model"]
