"""A cluster is backed up and comes back in another, empty one: database, bucket, API server, all of them real.

Everything is done with the rights that the chart gives, by the command line that its CronJob runs. No kubelet runs:
that a deployment is back shows in the RayService that the operator makes of it, and that it would answer as before in
what its package says.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from headrace.tracking import registry
from headrace.tracking.connection import client
from headrace_testbed.api import Object
from headrace_testbed.backup_sites import (
    OURS,
    RAY,
    RUN_ID,
    TEAM,
    Site,
    database_of,
    environment,
    make_objects,
    prepare,
    register,
)
from headrace_testbed.control_plane import EVERYTHING, ControlPlane
from headrace_testbed.helm import NAMESPACE, Helm, Objects
from headrace_testbed.mlflow_server import START_SECONDS
from headrace_testbed.ours import install_crds
from headrace_testbed.postgres import Postgres
from headrace_testbed.processes import Daemon, free_port
from headrace_testbed.replica import Replica
from headrace_testbed.s3 import S3Store
from headrace_testbed.waiting import eventually
from kuberay_double.install import install_kuberay_kinds

BACKUPS = "s3://backups/nightly"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with S3Store(tmp_path_factory.mktemp("s3")) as store:
        for bucket in ("before", "after", "backups"):
            store.make_bucket(bucket)
        yield store


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="hrpg", dir="/tmp") as folder, Postgres(Path(folder)) as server:
        for database in ("before", "after"):
            server.run("createdb", "--maintenance-db", server.url_of("postgres"), database)
        yield server


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """The chart with backups, of one workspace."""
    helm = Helm(tmp_path_factory.mktemp("helm"))
    return helm.template({"backup": {"enabled": True}, "workspaces": [TEAM]})


@pytest.fixture(scope="module")
def before(
    control_plane: ControlPlane, crds: None, rendered: Objects, postgres: Postgres, s3: S3Store, tmp_path_factory: Any
) -> Iterator[Site]:
    """A cluster with a run, a version that an alias names, an endpoint, a monitor, and trainings old and under way."""
    prepare(control_plane, rendered)
    database, folder = database_of(postgres, "before", "before"), tmp_path_factory.mktemp("before")
    site = Site(control_plane, database, "before", "http://mlflow.before:5000", folder, s3)
    with environment(site.environment(MLFLOW_TRACKING_URI=database)):
        register(site)
    make_objects(control_plane.api, site)
    yield site
    for kind in ("trainingruns", "modeldeployments", "modelmonitors"):
        for each in control_plane.api.list(f"{OURS}/{kind}"):
            control_plane.api.delete(f"{OURS}/{kind}/{each['metadata']['name']}")


@pytest.fixture(scope="module")
def after(rendered: Objects, postgres: Postgres, s3: S3Store, tmp_path_factory: Any) -> Iterator[Site]:
    """An empty cluster, its MLflow at another address, its store in another bucket."""
    folder = tmp_path_factory.mktemp("after")
    database = database_of(postgres, "after", "after")
    place = Path(tempfile.mkdtemp(prefix="headrace-testbed-after-"))
    with ControlPlane(place, EVERYTHING) as plane:
        install_kuberay_kinds(plane)
        install_crds(plane)
        prepare(plane, rendered)
        yield Site(plane, database, "after", f"http://127.0.0.1:{free_port()}", folder, s3)
    shutil.rmtree(place, ignore_errors=True)


def backed_up(site: Site, *words: str) -> dict[str, Any]:
    return site.headrace("backup", BACKUPS, "--verify", f"--lease-namespace={NAMESPACE}", *words)


@pytest.fixture(scope="module")
def backup(before: Site) -> dict[str, Any]:
    """A backup as the CronJob makes one."""
    return backed_up(before)


@pytest.fixture(scope="module")
def operator(after: Site) -> Iterator[Replica]:
    """The operator and the MLflow server of the empty cluster: the chart has started both long before a restore."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", after.mlflow.rpartition(":")[2], "--backend-store-uri", after.database]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = Daemon("mlflow", command, after.folder / "mlflow.log", {**quiet, **after.s3.environment})
    words = ["--kubeconfig", str(after.plane.kubeconfig), "--no-leader-election", "--mlflow-interval-seconds", "1"]
    words += ["--metrics-address", "", "--health-address", ""]
    command = [sys.executable, "-m", "headrace.cli.main", "operator", *words]
    replica = Replica("headrace-operator", command, after.folder / "operator.log")
    server.start()
    try:
        server.wait_for(lambda: answers(f"{after.mlflow}/health"), START_SECONDS)
        replica.start()
        eventually(lambda: [event for event in watches(after) if event == "trainingruns"])
        yield replica
    finally:
        replica.stop()
        server.kill()


def watches(site: Site) -> list[str]:
    """What is watched in the cluster."""
    return [event["objectRef"]["resource"] for event in site.plane.audited() if event["verb"] == "watch"]


@pytest.fixture(scope="module")
def restored(backup: dict[str, Any], operator: Replica, after: Site) -> dict[str, Any]:
    """That backup in the empty cluster."""
    return after.headrace("restore", backup["uri"], "--yes")


def said_by(site: Site) -> Sequence[Any]:
    """What `houses@champion` of SITE says of its own example, the package fetched as a replica fetches it."""
    from headrace.steps.predict import load_model

    with environment(site.environment(MLFLOW_TRACKING_URI=site.database)):
        loaded = load_model("houses@champion")
        return list(np.asarray(loaded.predict(loaded.example)["probabilities"]).ravel())


def test_a_backup_has_what_the_cluster_has_and_tells_the_operator(backup: dict[str, Any], before: Site) -> None:
    counts = backup["counts"]
    assert [counts[word] for word in ("runs", "models", "versions", "aliases")] == [1, 1, 1, 1]
    assert [counts[kind] for kind in ("TrainingRun", "ModelDeployment", "ModelMonitor")] == [2, 1, 1]
    assert counts["files"] - counts["kept"] == 1  # the checkpoint is listed
    assert backup["notes"] == []
    lease = before.plane.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/headrace-backup")
    assert lease["metadata"]["annotations"]["headrace.dev/backup-uri"] == backup["uri"]
    again = backed_up(before)
    later = before.plane.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/headrace-backup")
    assert later["spec"]["renewTime"] > lease["spec"]["renewTime"]
    assert again["new_bytes"] == 0  # nothing that was kept is read or written anew


def test_runs_versions_aliases_and_predictions_are_back(restored: dict[str, Any], before: Site, after: Site) -> None:
    assert restored["restored"]["runs"] == 1
    with environment(after.environment(MLFLOW_TRACKING_URI=after.database)):
        version = registry.resolve("houses@champion")
        assert version is not None
        assert (version.version, version.run_id) == ("1", RUN_ID)
        assert str(version.package_uri).startswith("s3://after/store/packages/")
        mlflow = client(after.database)
        curve = [(p.step, p.value) for p in mlflow.get_metric_history(str(version.mlflow_run_id), "train.loss")]
        assert curve == [(1, 1.0), (2, 1 / 2), (3, 1 / 3)]
        assert mlflow.get_run(str(version.mlflow_run_id)).info.artifact_uri.startswith("s3://after/mlflow/")
        logged = mlflow.search_logged_models([mlflow.get_run(str(version.mlflow_run_id)).info.experiment_id])[0]
        assert "MLmodel" in {file.path for file in mlflow.list_logged_model_artifacts(logged.model_id)}
        assert mlflow.create_experiment("next", "s3://after/mlflow/2") == "2"  # the counters go on where they were
    assert said_by(after) == said_by(before)
    assert objects_below(after, "store/packages") == objects_below(before, "store/packages")
    told = json.loads(object_at(after, f"store/runs/{RUN_ID}/steps/train/1/result.json"))
    assert told["package"].startswith("s3://after/store/packages/")
    assert object_at(after, "store/splits/abc/split.json")  # the training that was under way goes on with it


def objects_below(site: Site, prefix: str) -> dict[str, bytes]:
    listed = site.s3.client().list_objects_v2(Bucket=site.bucket, Prefix=prefix)["Contents"]
    return {each["Key"]: object_at(site, each["Key"]) for each in listed}


def object_at(site: Site, key: str) -> bytes:
    return bytes(site.s3.client().get_object(Bucket=site.bucket, Key=key)["Body"].read())


def test_the_operator_serves_again_and_runs_nothing_that_had_run(restored: dict[str, Any], after: Site) -> None:
    """It looked at every write of the restore."""
    (service,) = eventually(lambda: after.plane.api.list(f"{RAY}/rayservices"))
    assert "s3://after/store/packages/" in json.dumps(service["spec"])
    assert "s3://before" not in json.dumps(service["spec"])
    eventually(lambda: status_of(after, "long").get("phase") == "Suspended")
    done = status_of(after, "done")
    assert (done["phase"], done["attempt"], done["metrics"]) == ("Succeeded", 2, {"accuracy": 0.97})
    assert done["packageURI"] == "s3://after/store/packages/x"
    assert [event for event in after.plane.audited(containing="rayjobs") if made_a_job(event)] == []
    assert restored["waiting"] == [f"{TEAM}/long"]
    after.plane.api.patch(f"{OURS}/trainingruns/long", {"spec": {"suspend": False}})
    (job,) = eventually(lambda: after.plane.api.list(f"{RAY}/rayjobs"))
    assert job["metadata"]["name"] == "long-4"  # the attempt after the one that was lost
    assert "s3://after/store/runs/long/checkpoints/7" in json.dumps(job["spec"])
    eventually(lambda: [event for event in after.plane.audited(containing="rayjobs") if made_a_job(event)])


def made_a_job(event: Object) -> bool:
    """Whether what the API server was asked may make a RayJob: applied or posted."""
    return event.get("objectRef", {}).get("resource") == "rayjobs" and event["verb"] in ("create", "patch", "update")


def status_of(site: Site, name: str) -> Object:
    found: Object = site.plane.api.get(f"{OURS}/trainingruns/{name}")["status"]
    return found


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_custom_resources_come_back_with_their_addresses_moved(restored: dict[str, Any], after: Site) -> None:
    deployment = after.plane.api.get(f"{OURS}/modeldeployments/houses")
    assert deployment["spec"]["store"] == {"uri": "s3://after/store", "secretName": "headrace-store"}
    assert deployment["spec"]["mlflow"]["trackingURI"] == after.mlflow
    assert deployment["spec"]["model"] == {"name": "houses", "version": "1"}
    assert after.plane.api.get(f"{OURS}/modelmonitors/houses")["spec"]["deploymentName"] == "houses"
    done = after.plane.api.get(f"{OURS}/trainingruns/done")
    assert done["metadata"]["labels"] == {"headrace.dev/run-id": "done-abcdefgh"}
    assert done["spec"]["manifestURI"] == "s3://after/store/splits/abc"


def test_a_cluster_in_use_is_refused_and_says_what_is_in_it(
    restored: dict[str, Any], backup: dict[str, Any], after: Site
) -> None:
    refused = after.headrace("restore", backup["uri"], "--yes", code=2)
    assert refused["error"]["code"] == "target-not-empty"
    for words in ("1 runs", "2 trainingruns in team-a", "1 modeldeployments in team-a"):
        assert words in refused["error"]["message"]
    kept = after.headrace("restore", backup["uri"], "--yes", "--existing", "keep")
    assert [kept["restored"][kind] for kind in ("TrainingRun", "ModelDeployment", "ModelMonitor")] == [0, 0, 0]


def test_overwriting_makes_objects_what_they_were_and_takes_no_training_back(
    restored: dict[str, Any], backup: dict[str, Any], after: Site
) -> None:
    api, words = after.plane.api, ("restore", backup["uri"], "--yes", "--existing", "overwrite")
    api.patch(f"{OURS}/trainingruns/long", {"spec": {"suspend": False}})
    refused = after.headrace(*words, code=2)
    assert (refused["error"]["code"], f"{TEAM}/long" in refused["error"]["message"]) == ("target-busy", True)
    api.patch(f"{OURS}/trainingruns/long", {"spec": {"suspend": True}})
    eventually(lambda: status_of(after, "long").get("phase") == "Suspended")
    attempts = [status_of(after, name)["attempt"] for name in ("done", "long")]
    right = api.get(f"{OURS}/modeldeployments/houses")["spec"]
    others = {"model": {"version": None, "alias": "other"}, "autoscaling": {"maxReplicas": 4}}
    api.patch(f"{OURS}/modeldeployments/houses", {"spec": others})
    assert api.get(f"{OURS}/modeldeployments/houses")["spec"] != right

    written = after.headrace(*words)["restored"]

    assert [written[kind] for kind in ("TrainingRun", "ModelDeployment", "ModelMonitor")] == [0, 1, 1]
    assert api.get(f"{OURS}/modeldeployments/houses")["spec"] == right
    assert [status_of(after, name)["attempt"] for name in ("done", "long")] == attempts


def test_restricted_pod_security_takes_the_pods_of_backups_and_of_restores(before: Site, rendered: Objects) -> None:
    api, jobs = before.plane.api, f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"
    api.apply(rendered.one("CronJob", "headrace-backup"), "testbed", force=True)
    created = ("create", "job", "-n", NAMESPACE, "--from=cronjob/headrace-backup", "--dry-run=client", "-o", "json")
    for name, words in (("by-hand", None), ("restore", ["headrace", "restore"])):  # as docs/backup.md has it
        manifest = json.loads(before.plane.kubectl(*created, name))
        container = manifest["spec"]["template"]["spec"]["containers"][0]
        container["command"] = words or container["command"]
        api.post(jobs, manifest)
        (pod,) = eventually(partial(pods_of, before, name))
        assert {"MLFLOW_BACKEND_STORE_URI", "AWS_ACCESS_KEY_ID", "HEADRACE_STORE"} <= {
            each["name"] for each in pod["spec"]["containers"][0]["env"]
        }
        api.delete(f"{jobs}/{name}", {"propagationPolicy": "Background"})
    api.delete(f"/apis/batch/v1/namespaces/{NAMESPACE}/cronjobs/headrace-backup")


def pods_of(site: Site, job: str) -> list[Object]:
    found: list[Object] = site.plane.api.list(f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=f"job-name={job}")
    return found


def test_two_backups_at_once_are_one(before: Site) -> None:
    place, stop = {"Bucket": "backups", "Key": "nightly/lock.json"}, threading.Event()
    client = before.s3.client()

    def work() -> None:
        while not stop.wait(0.2):
            record = {"holder": "another pod", "time": time.time(), "draw": "x", "host": "elsewhere"}
            client.put_object(**place, Body=json.dumps(record).encode())

    other = threading.Thread(target=work)
    other.start()
    try:
        eventually(lambda: client.list_objects_v2(Bucket="backups", Prefix=place["Key"]).get("Contents"))
        refused = before.headrace("backup", BACKUPS, code=1)
    finally:
        stop.set()
        other.join()
        client.delete_object(**place)
    assert refused["error"]["code"] == "backup-locked"
    assert "another pod" in refused["error"]["message"]


def test_the_destination_may_be_another_s3_store_with_its_own_keys(before: Site, tmp_path: Path) -> None:
    with S3Store(tmp_path, "elsewhere", "elsewhere-secret") as other, pytest.MonkeyPatch.context() as patch:
        other.make_bucket("vault")
        patch.setenv("HEADRACE_BACKUP_AWS_ENDPOINT_URL", other.endpoint)
        patch.setenv("HEADRACE_BACKUP_AWS_ACCESS_KEY_ID", other.access_key)
        patch.setenv("HEADRACE_BACKUP_AWS_SECRET_ACCESS_KEY", other.secret_key)
        made = before.headrace("backup", "s3://vault/headrace", "--verify")
        keys = {each["Key"] for each in other.client().list_objects_v2(Bucket="vault")["Contents"]}
    assert f"headrace/{made['name']}/manifest.json" in keys


def test_a_database_that_is_down_is_told_and_leaves_no_backup(before: Site) -> None:
    bad = f"postgresql+psycopg2://u:secret@127.0.0.1:{free_port()}/none"
    away = Site(before.plane, bad, "before", before.mlflow, before.folder, before.s3)
    refused = away.headrace("backup", "s3://backups/away", code=4)
    assert "secret" not in json.dumps(refused)
    assert refused["error"]["code"] == "database-unavailable"
    listed = before.s3.client().list_objects_v2(Bucket="backups", Prefix="away/").get("Contents", [])
    assert not [each for each in listed if each["Key"].endswith(("manifest.json", "lock.json"))]
