"""Clusters that are backed up and restored: a real API server, database and bucket each, and what lies in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import s3fs

from headrace.store import Store
from headrace.tracking import TrackedRun, registry
from headrace.tracking.connection import client
from headrace_testbed.api import Api, Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.helm import NAMESPACE, Objects
from headrace_testbed.objects import model_deployment, model_monitor, training_run
from headrace_testbed.postgres import Postgres
from headrace_testbed.s3 import S3Store
from headrace_testbed.told import told

TEAM = "team-a"
OURS = f"/apis/headrace.dev/v1alpha1/namespaces/{TEAM}"
RAY = f"/apis/ray.io/v1/namespaces/{TEAM}"
RUN_ID = "houses-abcdefgh"
BACKUPS = "s3://backups/nightly"
VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI", "HEADRACE_STORE", "KUBECONFIG", "HEADRACE_HOME")


@dataclass(frozen=True)
class Site:
    """One cluster as its pods see it: API server, database, bucket."""

    plane: ControlPlane
    database: str
    bucket: str
    mlflow: str
    folder: Path
    s3: S3Store

    @property
    def store(self) -> str:
        return f"s3://{self.bucket}/store"

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **self.s3.environment,
            "HEADRACE_HOME": str(self.folder / "home"),
            "HEADRACE_STORE": self.store,
            "MLFLOW_BACKEND_STORE_URI": self.database,
            "MLFLOW_TRACKING_URI": self.mlflow,
            **more,
        }

    def headrace(self, *words: str, account: str = "headrace-backup", code: int = 0) -> dict[str, Any]:
        """What a command says with `--json`, run as ACCOUNT."""
        kubeconfig = self.plane.kubeconfig_for_service_account(NAMESPACE, account)
        with environment(self.environment(KUBECONFIG=str(kubeconfig))):
            return told(*words, f"--namespace={TEAM}", code=code)


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """VARIABLES for the length of a block; what is known of S3 from another environment is forgotten."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            s3fs.S3FileSystem.clear_instance_cache()


def prepare(plane: ControlPlane, rendered: Objects) -> None:
    """Our kinds, the namespaces, and what the chart gives backups there."""
    for name in (NAMESPACE, TEAM):
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        metadata = {"name": name, "labels": labels}
        plane.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, "testbed", force=True)
        plane.wait_for(f"/api/v1/namespaces/{name}/serviceaccounts/default")
    for each in rendered:
        name = each["metadata"]["name"]
        if each["kind"] in ("ServiceAccount", "Role", "RoleBinding") and name.startswith(
            ("headrace-backup", "headrace-restore")
        ):
            plane.api.apply(each, "testbed", force=True)
    for account in ("headrace-restore",):  # as docs/backup.md has it: bound for the time of a restore
        subject = {"kind": "ServiceAccount", "name": "headrace-backup", "namespace": NAMESPACE}
        plane.api.apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": account, "namespace": TEAM},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
                "subjects": [subject],
            },
            "testbed",
        )


def database_of(postgres: Postgres, name: str, bucket: str) -> str:
    """The database NAME with MLflow's tables, as the chart's server makes them at its first start."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = postgres.url_of(name).replace("postgresql://", "postgresql+psycopg2://")
    SqlAlchemyStore(uri, f"s3://{bucket}/mlflow").engine.dispose()
    return uri


def register(site: Site) -> None:
    """A run with its curve, its package in the store and in MLflow, a version, and an alias."""
    import torch

    from headrace_models.package import build_model, write_package
    from headrace_models.tasks import Sample, Schema, build_task

    torch.manual_seed(0)
    rows = [{"rooms": float(n), "city": ("Rome", "Oslo")[n % 2]} for n in range(8)]
    samples = [Sample(f"r{n}", row, {"kind": "xy"[n % 2]}) for n, row in enumerate(rows)]
    schema = Schema("kind", ("x", "y"), {"rooms": "number", "city": "category"})
    task = build_task({"name": "tabular-classification", "args": {}}, schema)
    task.learn([task.summarise(samples)])
    record = {"name": "mlp", "args": {}}
    built = site.folder / "package"
    sha256 = write_package(
        built,
        task=task,
        model=build_model(record, task, None),
        model_record=record,
        code_folder=None,
        provenance={"run_id": RUN_ID},
        example=task.request(samples[:2]),
    )
    store = Store()
    uri = store.put_folder(built, store.uri("packages", sha256), marker="headrace.json")
    store.claim_attempt(RUN_ID, "1.1")
    store.write_json(store.uri("runs", RUN_ID, "steps", "train", "1", "result.json"), {"package": uri})
    store.write_bytes(store.uri("runs", RUN_ID, "checkpoints", "3", "model.safetensors"), os.urandom(10_000))
    store.write_json(store.uri("splits", "abc", "split.json"), {"rows": 8})
    root = site.store.replace("/store", "/mlflow")  # a server would say so; we go to the database itself
    client(site.database).create_experiment("houses", artifact_location=f"{root}/1")
    run = TrackedRun.open(RUN_ID, "houses")
    for epoch in range(1, 4):
        run.log_metrics({"train.loss": 1 / epoch}, step=epoch)
    logged = run.log_package(built, sha256)
    version = registry.register(
        "houses",
        package_uri=uri,
        package_sha256=sha256,
        run_id=RUN_ID,
        mlflow_run_id=run.mlflow_run_id,
        model_id=logged.model_id,
    )
    registry.set_alias("houses", "champion", version.version)
    run.finish()


def make_objects(api: Api, site: Site) -> None:
    """What people and steps have applied, with the statuses that an operator wrote."""
    places: Object = {"store": {"uri": site.store, "secretName": "headrace-store"}}
    places |= {"mlflow": {"trackingURI": site.mlflow}}
    api.post(f"{OURS}/modeldeployments", model_deployment("houses", model={"name": "houses", "version": "1"}, **places))
    api.post(f"{OURS}/modelmonitors", model_monitor("houses", deploymentName="houses"))
    ended = {"phase": "Succeeded", "attempt": 2, "failures": 1, "completionTime": "2026-11-26T04:00:00Z"}
    ended |= {"packageURI": f"{site.store}/packages/x", "metrics": {"accuracy": 0.97}, "observedGeneration": 1}
    under_way = {"phase": "Running", "attempt": 3, "rayJobName": "long-3", "rayJobUID": "u", "startTime": NOON}
    under_way |= {"checkpoint": {"uri": f"{site.store}/runs/long/checkpoints/7", "epoch": 7}}
    for name, status in (("done", ended), ("long", under_way)):
        manifest = training_run(name, manifestURI=f"{site.store}/splits/abc", runID=f"{name}-abcdefgh", **places)
        manifest["metadata"]["labels"] = {"headrace.dev/run-id": f"{name}-abcdefgh"}
        api.post(f"{OURS}/trainingruns", manifest)
        api.patch(f"{OURS}/trainingruns/{name}/status", {"status": status})


NOON = "2026-11-26T12:00:00Z"
