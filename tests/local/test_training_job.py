"""A TrainingRun's driver as KubeRay starts it: posted to the head's job API, told everything by its environment."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.api.reports import CHECKPOINT_URI_TAG, CPU_SECONDS_TAG, FAILURE_LINE, PACKAGE_URI_TAG
from headrace.local.ray_head import Head
from headrace.store import Store
from headrace.store.run_events import EventReader
from headrace.store.step_files import read_result
from headrace.tracking import ensure_store
from headrace_models.package import pack_code
from headrace_testbed.pausing import write_code

SPEC: dict[str, Any] = {
    "tasks": [{"name": "image-classification"}],
    "model": {"name": "mlp"},
    "train": {"epochs": 3, "workers": {"min": 2, "max": 2}, "optimizer": {"name": "adam", "args": {"lr": 0.01}}},
    "data": {"source": "builtin:digits", "format": "image-folder"},
    "store": {"uri": "s3://told-by-the-environment"},
    "mlflow": {"trackingURI": "http://told-by-the-environment"},
}


pytestmark = pytest.mark.timeout(900)  # many processes, one after the other, on a busy machine

EPOCHS = 6
NETWORK = """
from torch import nn
from pause import Pause


class Net(nn.Module):
    def __init__(self, num_classes, in_features):
        super().__init__()
        self.pause = Pause(35)  # in the third or fourth epoch
        self.head = nn.Linear(in_features, num_classes)

    def forward(self, image):
        if self.training:
            self.pause()
        return self.head(image.flatten(1))
"""


@dataclass
class Jobs:
    """The job API of one head, asked as KubeRay's HTTPMode asks it."""

    head: Head
    store: Store
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.head.token()}"}
        self.http = httpx.Client(base_url=self.head.dashboard_url, headers=headers, timeout=30, trust_env=False)

    def submit(self, run_id: str, attempt: str, spec: dict[str, Any] = SPEC, *, pod: str = "pod-1") -> str:
        environment = {
            "HEADRACE_TRAINING_RUN": json.dumps(spec),
            "HEADRACE_RUN_ID": run_id,
            "HEADRACE_ATTEMPT": attempt,
            "HEADRACE_RAY_CLUSTER": f"{run_id}-x1",
            "HEADRACE_POD_UID": pod,
            "HEADRACE_STORE": self.store.url,
            "MLFLOW_TRACKING_URI": ensure_store(),
        }
        job = {
            "entrypoint": f"{sys.executable} -m headrace.steps.training_job",
            "runtime_env": {"env_vars": environment},
        }
        since = time.monotonic()
        while "No available agent" in (answer := self.http.post("/api/jobs/", json=job)).text:  # a head that is young
            assert time.monotonic() - since < 60, answer.text
            time.sleep(0.2)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["submission_id"])

    def ended(self, job: str) -> str:
        """The job's last status, or nothing while it goes on."""
        status = str(self.http.get(f"/api/jobs/{job}").json()["status"])
        return "" if status in ("PENDING", "RUNNING") else status

    def end_of(self, job: str, seconds: float = 240) -> tuple[str, str]:
        """The job's last status and its log."""
        deadline = time.monotonic() + seconds
        while not (status := self.ended(job)):
            assert time.monotonic() < deadline, self.log(job)
            time.sleep(0.2)
        return status, self.log(job)

    def log(self, job: str) -> str:
        return str(self.http.get(f"/api/jobs/{job}/logs").json()["logs"])

    def wait_for_epoch(self, job: str, epoch: int) -> None:
        deadline = time.monotonic() + 240
        while f'"epoch": {epoch}, "metrics"' not in self.log(job):
            assert not self.ended(job), self.log(job)
            assert time.monotonic() < deadline, self.log(job)
            time.sleep(0.1)


@pytest.fixture(scope="module")
def jobs(head: Head, headrace_home: Path) -> Jobs:
    return Jobs(head, Store(str(headrace_home / "job-store")))


def mlflow_runs(run_id: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(ensure_store())
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(everywhere, filter_string=f"tags.`headrace.run_id` = '{run_id}'"))


def steps_of(run: Any, metric: str) -> list[int]:
    from mlflow import MlflowClient

    return [point.step for point in MlflowClient(ensure_store()).get_metric_history(run.info.run_id, metric)]


def failure_in(log: str) -> dict[str, Any]:
    last = log.strip().splitlines()[-1]
    assert last.startswith(FAILURE_LINE), log
    found = json.loads(last.removeprefix(FAILURE_LINE))
    assert isinstance(found, dict)
    return found


def files_of(store: Store, run_id: str) -> dict[str, int]:
    root = Path(store.url) / "runs" / run_id
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Attempts:
    """A run whose first attempt was stopped in mid-training, and whose second one has ended."""

    run_id: str
    spec: dict[str, Any]
    cpu_seconds: float  # when the first was over
    status: str
    log: str


@pytest.fixture(scope="module")
def attempts(jobs: Jobs, tmp_path_factory: pytest.TempPathFactory) -> Attempts:
    folder, run_id = tmp_path_factory.mktemp("attempts"), "job-aaaaaaaa"
    hold = folder / "hold"
    sha256, tar = pack_code(write_code(folder / "src", hold, net=NETWORK))
    code = {"sha256": sha256, "uri": f"file://{jobs.store.write_bytes(jobs.store.uri('code', f'{sha256}.tar'), tar)}"}
    train = {**SPEC["train"], "epochs": EPOCHS, "batchSize": 128}
    spec = {**SPEC, "model": {"name": "net:Net", "code": code}, "train": train}
    hold.touch()
    try:
        first = jobs.submit(run_id, "1.1", spec)
        jobs.wait_for_epoch(first, 2)
        since = time.monotonic()
        while not (tags := mlflow_runs(run_id)[0].data.tags).get(CPU_SECONDS_TAG):  # MLflow hears of it a little later
            assert time.monotonic() - since < 60, tags
            time.sleep(0.1)
        jobs.http.post(f"/api/jobs/{first}/stop")
        jobs.end_of(first)
    finally:
        hold.unlink()
    cpu_seconds = float(mlflow_runs(run_id)[0].data.tags[CPU_SECONDS_TAG])
    return Attempts(run_id, spec, cpu_seconds, *jobs.end_of(jobs.submit(run_id, "1.2", spec, pod="pod-2")))


def test_a_job_splits_trains_and_reports(jobs: Jobs, attempts: Attempts) -> None:
    assert attempts.status == "SUCCEEDED", attempts.log
    result = read_result(jobs.store, attempts.run_id, "train", "1.2")
    assert result is not None
    assert result["metrics"]["accuracy"] > 0.5
    (run,) = mlflow_runs(attempts.run_id)
    assert run.info.status == "FINISHED"
    tags = run.data.tags
    assert tags[PACKAGE_URI_TAG] == result["package_uri"]
    assert Path(tags[CHECKPOINT_URI_TAG]).is_dir()
    assert float(tags[CPU_SECONDS_TAG]) > 0
    assert tags["headrace.attempt"] == "1.2"
    told = EventReader(jobs.store, attempts.run_id, "1.2").new()
    epochs = [event["epoch"] for event in told if event["type"] == "metrics"]
    assert epochs == list(range(epochs[0], EPOCHS + 1))
    assert told[-1]["state"] == "succeeded"


def test_a_second_head_touches_nothing(jobs: Jobs, attempts: Attempts) -> None:
    before = files_of(jobs.store, attempts.run_id)
    status, log = jobs.end_of(jobs.submit(attempts.run_id, "1.2", attempts.spec, pod="pod-3"))
    assert status == "FAILED"
    assert failure_in(log)["code"] == "superseded"
    assert failure_in(log)["permanent"] is False
    assert files_of(jobs.store, attempts.run_id) == before


def test_the_next_attempt_goes_on_in_the_same_mlflow_run_from_the_newest_checkpoint(
    jobs: Jobs, attempts: Attempts
) -> None:
    (run,) = mlflow_runs(attempts.run_id)
    assert sorted(steps_of(run, "validation.accuracy")) == list(range(1, EPOCHS + 1))
    assert float(run.data.tags[CPU_SECONDS_TAG]) > attempts.cpu_seconds > 0
    assert '"epoch": 2, "metrics"' not in attempts.log  # it was not trained again
    _, log = jobs.end_of(jobs.submit(attempts.run_id, "1.1", attempts.spec))
    assert failure_in(log)["code"] == "superseded"  # whoever comes back late


def test_what_is_wrong_in_every_attempt_is_told_as_permanent(jobs: Jobs) -> None:
    train = {**SPEC["train"], "workers": {"min": 1, "max": 1}}
    spec = {**SPEC, "model": {"name": "mlp", "args": {"hidden": "wide"}}, "train": train}
    status, log = jobs.end_of(jobs.submit("job-cccccccc", "1.1", spec))
    assert status == "FAILED"
    failure = failure_in(log)
    assert failure["permanent"] is True
    assert "hidden" in failure["message"]
