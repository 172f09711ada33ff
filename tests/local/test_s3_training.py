"""Runs whose store, data and MLflow artifacts lie on S3: the whole way, with killed workers and a store that goes away.

One home and one Ray head of this module's own, since a head keeps the environment in which it was started.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.base.processes import ProcessRef, session_members
from headrace.local.head_record import read_head
from headrace.local.ray_head import stop_head
from headrace.local.runs import LocalRun
from headrace.store import Store
from headrace.store.step_files import read_result
from headrace.tracking import ensure_store
from headrace.training.checkpoint_folder import committed
from headrace_testbed.s3 import S3Store
from headrace_testbed.s3_trouble import Trouble, TroubledStore, environment, new_bucket

pytestmark = pytest.mark.timeout(1800)
BIN = Path(sys.executable).parent
SPEC = """\
name: digits
task: image-classification
data: {source: "SOURCE", format: image-folder, split: {train: 0.4, validation: 0.2, test: 0.4}}
model: {name: mlp}
train: {epochs: 2, batch_size: 128, workers: 1, optimizer: {name: adam, lr: 0.003}}
register: {name: digits}
"""


@dataclass
class Site:
    """A laptop whose files lie on S3."""

    way: TroubledStore
    bucket: str
    home: Path
    work: Path

    @property
    def store(self) -> Store:
        return Store(f"{self.bucket}/store")

    def headrace(self, *arguments: str, code: int | None = 0) -> Any:
        """Run one command; its JSON where there is any, else its text."""
        done = subprocess.run(
            [BIN / "headrace", *arguments], cwd=self.work, capture_output=True, text=True, check=False, timeout=1000
        )
        assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    def start(self, *overrides: str) -> LocalRun:
        """Start a run and leave it to itself."""
        started = self.headrace("run", "digits.yaml", "--detach", "--json", *sets(*overrides))
        return LocalRun(started["run_id"])

    def wait_for_epoch(self, run: LocalRun, epoch: int) -> None:
        """Follow RUN until EPOCH is over."""
        for event in run.follow():
            if event["type"] == "metrics" and event["epoch"] >= epoch:
                return
        pytest.fail(f"it ended before that: {run.status()}")

    def end_of(self, run: LocalRun) -> Mapping[str, Any]:
        """RUN's record once it is over."""
        for _ in run.follow():
            pass
        return run.status()


@pytest.fixture(scope="module")
def site(s3_server: S3Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = Path(tempfile.mkdtemp(prefix="hs", dir="/tmp"))
    before = os.environ["HEADRACE_HOME"]
    with TroubledStore(s3_server) as way:
        bucket = new_bucket(s3_server)
        own = {
            "HEADRACE_HOME": str(home),
            "HEADRACE_STORE": f"{bucket}/store",
            "MLFLOW_DEFAULT_ARTIFACT_ROOT": f"{bucket}/mlflow",
        }
        with environment({**way.environment, **own}):
            made = Site(way, bucket, home, tmp_path_factory.mktemp("work"))
            (made.work / "digits.yaml").write_text(SPEC.replace("SOURCE", "builtin:digits"))
            yield made
            from headrace.tracking import service

            stop_head()
            service.stop()
    assert os.environ["HEADRACE_HOME"] == before
    shutil.rmtree(home, ignore_errors=True)


def states(result: Mapping[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in result["steps"]}


def steps_in_mlflow(result: Mapping[str, Any], metric: str) -> list[int]:
    from mlflow import MlflowClient

    client = MlflowClient(result["mlflow"]["tracking_uri"])
    return [point.step for point in client.get_metric_history(result["mlflow"]["run_id"], metric)]


def workers() -> list[ProcessRef]:
    """The head's training workers."""
    head = read_head()
    assert head is not None
    found = []
    for process in session_members(head.leader.pid):
        title = Path(f"/proc/{process.pid}/cmdline")
        if title.exists() and title.read_text().startswith("ray::RayTrainWorker"):
            found.append(process)
    return found


def test_a_run_goes_the_whole_way_with_store_and_artifacts_on_s3(site: Site, digit_pictures: list[bytes]) -> None:
    result = site.headrace("run", "digits.yaml", "--json", "--set", "deploy.name=digits")
    assert result["state"] == "succeeded"
    print(json.dumps({step["name"]: step["seconds"] for step in result["steps"]}))
    package = result["model"]["uri"] if result["model"]["uri"].startswith("s3://") else None
    names = site.store.names(site.store.url)
    assert {"evaluations", "index", "packages", "runs", "specs", "splits"} <= set(names)
    assert package is None or package.startswith(site.store.url)
    artifacts = Store(f"{site.bucket}/mlflow")
    found = [name for name in artifacts.filesystem.find(artifacts.path(artifacts.url)) if "confusion_matrix" in name]
    assert found
    assert not list((site.home / "store").glob("*")) if (site.home / "store").exists() else True
    for number in range(3):
        (site.work / f"{number}.png").write_bytes(digit_pictures[number])
    answered = site.headrace("predict", "digits", *(f"{number}.png" for number in range(3)), "--json")
    assert [row["version"] for row in answered["predictions"]] == ["1"] * 3
    assert sum(row["label"] == str(n) for n, row in enumerate(answered["predictions"])) >= 2

    again = site.headrace("run", "digits.yaml", "--json", "--set", "deploy.name=digits")
    assert states(again) == {"split": "cached", "train": "cached", "register": "cached", "deploy": "cached"}


def test_an_endpoint_comes_back_while_s3_is_away(site: Site) -> None:
    site.headrace("down", "--yes")
    trouble = site.way.make(Trouble("status", times=100_000, status=500, code="InternalError"))
    try:
        site.headrace("up")
        (row,) = site.headrace("predict", "digits", "0.png", "--json")["predictions"]
        assert row["version"] == "1"
    finally:
        trouble.times = 0


def test_data_on_s3_trains_as_the_same_data_in_a_folder(site: Site) -> None:
    import fsspec

    builtin = fsspec.filesystem("builtin")
    data = Store(f"{site.bucket}/data")
    files = [path for path in builtin.find("digits") if int(path[-9:-4]) < 300]
    data.filesystem.pipe({data.path(f"{data.url}/{path}"): builtin.cat_file(path) for path in files})
    (site.work / "far.yaml").write_text(SPEC.replace("SOURCE", f"{data.url}/digits"))
    folder = site.work / "near"
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(builtin.cat_file(path))
    (site.work / "near.yaml").write_text(SPEC.replace("SOURCE", str(folder / "digits")))
    arguments = ("--json", "--set", "train.workers=2", "--set", "register=null")
    far = site.headrace("run", "far.yaml", *arguments)
    near = site.headrace("run", "near.yaml", *arguments)
    assert far["metrics"] == near["metrics"]


def test_a_killed_worker_goes_on_from_the_checkpoint_on_s3(site: Site) -> None:
    overrides = ("train.epochs=14", "train.workers=2", "register=null", "train.seed=5")
    run = site.start(*overrides)
    site.wait_for_epoch(run, 3)
    assert workers()[0].send(signal.SIGKILL)
    result = site.end_of(run)
    assert result["state"] == "succeeded"
    assert sorted(steps_in_mlflow(result, "validation.accuracy")) == list(range(1, 15))
    assert "training starts again" in (run.folder / "events.jsonl").read_text()
    kept = committed(site.store, site.store.uri("runs", run.run_id, "checkpoints")) or []
    assert len(kept) == 2
    there = site.store.names(site.store.uri("runs", run.run_id, "checkpoints"))
    assert set(kept) <= set(there)
    straight = site.headrace("run", "digits.yaml", "--json", "--no-cache", *sets(*overrides))
    assert straight["metrics"] == result["metrics"]


def sets(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def test_a_store_that_goes_away_ends_the_run_with_exit_4_and_resume_goes_on(site: Site) -> None:
    run = site.start("train.epochs=16", "register=null", "train.seed=6", "train.max_failures=0")
    site.wait_for_epoch(run, 3)
    trouble = site.way.make(Trouble("status", times=100_000, status=503, code="ServiceUnavailable"))
    began = time.monotonic()
    for _ in run.follow():
        pass
    assert time.monotonic() - began < 600
    trouble.times = 0
    result = run.status()
    assert run.exit_code() == 4, result
    assert result["state"] == "failed"
    assert site.way.endpoint in result["error"]["message"]
    done = site.headrace("resume", run.run_id, "--json")
    assert done["state"] == "succeeded"
    assert sorted(steps_in_mlflow(done, "validation.accuracy")) == list(range(1, 17))


def test_a_store_that_is_away_from_the_beginning_ends_the_run_with_exit_4(site: Site) -> None:
    trouble = site.way.make(Trouble("status", times=100_000, status=503, code="ServiceUnavailable"))
    try:
        record = site.headrace("run", "digits.yaml", "--json", *sets("register=null"), code=4)
    finally:
        trouble.times = 0
    assert site.way.endpoint in record["error"]["message"]
    assert record["error"]["code"] == "store-unavailable"


def test_a_moment_without_s3_is_not_noticed(site: Site) -> None:
    run = site.start("train.epochs=12", "register=null", "train.seed=7")
    site.wait_for_epoch(run, 2)
    site.way.make(Trouble("status", times=12, status=503, code="SlowDown"))
    assert site.end_of(run)["state"] == "succeeded"


def test_a_command_that_reaches_s3_otherwise_than_the_head_is_told_so(site: Site) -> None:
    with environment({**site.way.environment, "AWS_PROFILE_OF_ANOTHER_SHELL": "1"}):
        result = site.headrace("run", "digits.yaml", "--json", *sets("train.seed=8", "register=null"), code=4)
    assert result["error"]["code"] == "head-environment"
    assert "headrace down" in result["error"]["action"]


# the driver of a RayJob


JOB: dict[str, Any] = {
    "tasks": [{"name": "image-classification"}],
    "model": {"name": "mlp"},
    "train": {"epochs": 14, "workers": {"min": 2, "max": 2}, "optimizer": {"name": "adam", "args": {"lr": 0.01}}},
    "data": {"source": "builtin:digits", "format": "image-folder"},
    "store": {"uri": "s3://told-by-the-environment"},
    "mlflow": {"trackingURI": "http://told-by-the-environment"},
}


class Jobs:
    """The job API of the head, asked as KubeRay's HTTPMode asks it."""

    def __init__(self, site: Site) -> None:
        head = read_head()
        assert head is not None
        self._site = site
        headers = {"Authorization": f"Bearer {head.token()}"}
        self.http = httpx.Client(base_url=head.dashboard_url, headers=headers, timeout=30, trust_env=False)

    def submit(self, run_id: str, attempt: str, pod: str) -> str:
        variables = {
            "HEADRACE_TRAINING_RUN": json.dumps(JOB),
            "HEADRACE_RUN_ID": run_id,
            "HEADRACE_ATTEMPT": attempt,
            "HEADRACE_RAY_CLUSTER": f"{run_id}-x1",
            "HEADRACE_POD_UID": pod,
            "HEADRACE_STORE": self._site.store.url,
            "MLFLOW_TRACKING_URI": ensure_store(),
        }
        entrypoint = f"{sys.executable} -m headrace.steps.training_job"
        answer = self.http.post("/api/jobs/", json={"entrypoint": entrypoint, "runtime_env": {"env_vars": variables}})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["submission_id"])

    def log(self, job: str) -> str:
        return str(self.http.get(f"/api/jobs/{job}/logs").json()["logs"])

    def wait_for_epoch(self, job: str, epoch: int) -> None:
        deadline = time.monotonic() + 600
        while f'"epoch": {epoch}, "metrics"' not in self.log(job):
            assert time.monotonic() < deadline, self.log(job)
            time.sleep(0.2)

    def end_of(self, job: str) -> tuple[str, str]:
        """The job's last status and its log."""
        deadline = time.monotonic() + 600
        while (status := self.http.get(f"/api/jobs/{job}").json()["status"]) in ("PENDING", "RUNNING"):
            assert time.monotonic() < deadline, self.log(job)
            time.sleep(0.3)
        return status, self.log(job)


def states_of(store: Store, run_id: str) -> dict[str, str]:
    """Every object of a run with its ETag."""
    root = store.path(store.uri("runs", run_id))
    return {name: info["ETag"] for name, info in store.filesystem.find(root, detail=True).items()}


def test_a_rayjobs_driver_claims_trains_and_resumes_on_s3(site: Site) -> None:
    jobs, run_id = Jobs(site), "job-aaaaaaaa"
    first = jobs.submit(run_id, "1.1", "pod-1")
    jobs.wait_for_epoch(first, 3)
    late, log = jobs.end_of(jobs.submit(run_id, "1.1", "pod-2"))  # KubeRay starts an entrypoint again on a new head
    assert late == "FAILED"
    assert '"code": "superseded"' in log.strip().splitlines()[-1]
    jobs.http.post(f"/api/jobs/{first}/stop")
    jobs.end_of(first)
    status, log = jobs.end_of(jobs.submit(run_id, "1.2", "pod-3"))
    assert status == "SUCCEEDED", log
    assert '"epoch": 1, "metrics"' not in log  # it went on from the checkpoint
    result = read_result(site.store, run_id, "train", "1.2")
    assert result is not None
    assert result["package_uri"].startswith(f"{site.store.url}/packages/")
    before = states_of(site.store, run_id)
    status, log = jobs.end_of(jobs.submit(run_id, "1.1", "pod-1"))  # whoever comes back late
    assert '"code": "superseded"' in log.strip().splitlines()[-1]
    assert states_of(site.store, run_id) == before
