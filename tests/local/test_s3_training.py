"""Runs whose store, data and MLflow artifacts lie on S3: the whole way, with killed workers and a store that goes away.

One home of this module's own, and two Ray heads, as a head keeps the environment in which it was started: the second is
told to give up on S3 soon, for what becomes of a run once S3 was given up. Trouble begins by itself at a checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.base.processes import ProcessRef, session_members
from headrace.local.head_record import read_head
from headrace.local.runs import LocalRun
from headrace.steps.machine import down, standing
from headrace.store import Store
from headrace.store.step_files import read_result
from headrace.tracking import ensure_store
from headrace.training.checkpoint_folder import SNAPSHOT, committed
from headrace_testbed.s3 import S3Store
from headrace_testbed.s3_trouble import FOREVER, Trouble, TroubledStore, environment, new_bucket
from headrace_testbed.waiting import eventually

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
HASTY = {"AWS_MAX_ATTEMPTS": "2", "AWS_RETRY_MODE": "standard"}  # one repetition, not five with half a minute of waits


def commits(method: str, path: str) -> bool:
    """Whether a request is Ray Train naming one more checkpoint of the training that goes on: an epoch is over."""
    return method == "PUT" and SNAPSHOT in path


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

    def start(self, spec: str, *overrides: str) -> LocalRun:
        """Start a run and leave it to itself."""
        started = self.headrace("run", spec, "--detach", "--json", *sets(*overrides))
        return LocalRun(started["run_id"])

    @contextmanager
    def held(self) -> Iterator[Trouble]:
        """The training that begins in this block stands still where it names its third checkpoint."""
        trouble = self.way.make(Trouble("held", times=FOREVER, match=commits, begins=commits, nth=3))
        try:
            yield trouble
        finally:
            trouble.times = 0

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
            down(standing(), print)
    assert os.environ["HEADRACE_HOME"] == before
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def hasty(site: Site) -> Iterator[Site]:
    """The site, its head stopped, for commands and another head that soon give up on S3. For the last tests here."""
    site.headrace("down", "--yes")
    with environment({**site.way.environment, **HASTY}):
        yield site


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
        with suppress(OSError):  # it has ended meanwhile
            if Path(f"/proc/{process.pid}/cmdline").read_text().startswith("ray::RayTrainWorker"):
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


TWO_WORKERS = ("train.workers=2", "train.epochs=5", "train.seed=5", "register=null")


@pytest.fixture(scope="module")
def data(site: Site) -> None:
    """The same pictures on S3 and in a folder, each with a spec of its own."""
    import fsspec

    builtin = fsspec.filesystem("builtin")
    there, folder = Store(f"{site.bucket}/data"), site.work / "near"
    files = [path for path in builtin.find("digits") if int(path[-9:-4]) < 300]
    there.filesystem.pipe({there.path(f"{there.url}/{path}"): builtin.cat_file(path) for path in files})
    for path in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(builtin.cat_file(path))
    (site.work / "far.yaml").write_text(SPEC.replace("SOURCE", f"{there.url}/digits"))
    (site.work / "near.yaml").write_text(SPEC.replace("SOURCE", str(folder / "digits")))


@pytest.fixture(scope="module")
def throttled(site: Site, data: None) -> tuple[Mapping[str, Any], Trouble]:
    """A run with data in a folder, whose store turned away twelve requests in the middle of the training."""
    moment = site.way.make(Trouble("status", times=12, status=503, code="SlowDown", begins=commits, nth=2))
    return site.headrace("run", "near.yaml", "--json", *sets(*TWO_WORKERS)), moment


@pytest.fixture(scope="module")
def killed(site: Site, data: None) -> tuple[Mapping[str, Any], LocalRun]:
    """A run with data on S3, of whose workers one was killed in the third epoch."""
    with site.held() as held:
        run = site.start("far.yaml", *TWO_WORKERS)
        until(lambda: held.taken > 0 or run.exit_code() is not None)
        assert held.taken, f"it ended before that: {run.status()}"
        assert workers()[0].send(signal.SIGKILL)
    return site.end_of(run), run


def test_a_moment_without_s3_is_not_noticed(throttled: tuple[Mapping[str, Any], Trouble]) -> None:
    result, moment = throttled
    assert result["state"] == "succeeded"
    assert moment.taken == 12


def test_a_killed_worker_goes_on_from_the_checkpoint_on_s3(
    site: Site, killed: tuple[Mapping[str, Any], LocalRun], throttled: tuple[Mapping[str, Any], Trouble]
) -> None:
    result, run = killed
    assert result["state"] == "succeeded"
    assert sorted(steps_in_mlflow(result, "validation.accuracy")) == list(range(1, 6))
    assert "training starts again" in (run.folder / "events.jsonl").read_text()
    kept = committed(site.store, site.store.uri("runs", run.run_id, "checkpoints")) or []
    assert len(kept) == 2
    there = site.store.names(site.store.uri("runs", run.run_id, "checkpoints"))
    assert set(kept) <= set(there)
    straight, _ = throttled
    assert straight["metrics"] == result["metrics"]


def test_data_on_s3_trains_as_the_same_data_in_a_folder(
    killed: tuple[Mapping[str, Any], LocalRun], throttled: tuple[Mapping[str, Any], Trouble]
) -> None:
    """Neither the worker that was killed nor the moment without S3 may be seen in what was learned."""
    far, near = killed[0], throttled[0]
    assert far["metrics"]
    assert far["metrics"] == near["metrics"]


def sets(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


until = partial(eventually, seconds=600, pause_seconds=0.05)


# the driver of a RayJob


JOB: dict[str, Any] = {
    "tasks": [{"name": "image-classification"}],
    "model": {"name": "mlp"},
    "train": {"epochs": 5, "workers": {"min": 1, "max": 1}, "optimizer": {"name": "adam", "args": {"lr": 0.01}}},
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
        self.http = httpx.Client(base_url=head.dashboard_url, headers=headers, timeout=120, trust_env=False)

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

    def status(self, job: str) -> str:
        return str(self.http.get(f"/api/jobs/{job}").json()["status"])

    def over(self, job: str) -> bool:
        return self.status(job) not in ("PENDING", "RUNNING")

    def end_of(self, job: str) -> tuple[str, str]:
        """The job's last status and its log."""
        until(lambda: self.over(job))
        return self.status(job), self.log(job)


def states_of(store: Store, run_id: str) -> dict[str, str]:
    """Every object of a run with its ETag."""
    root = store.path(store.uri("runs", run_id))
    return {name: info["ETag"] for name, info in store.filesystem.find(root, detail=True).items()}


def test_a_rayjobs_driver_claims_trains_and_resumes_on_s3(site: Site) -> None:
    jobs, run_id = Jobs(site), "job-aaaaaaaa"
    with site.held() as held:
        first = jobs.submit(run_id, "1.1", "pod-1")
        claim = site.store.uri("runs", run_id, "claims", "1.1.json")
        until(lambda: site.store.exists(claim) or jobs.over(first))
        late, log = jobs.end_of(jobs.submit(run_id, "1.1", "pod-2"))  # KubeRay starts an entrypoint again on a new head
        assert late == "FAILED"
        assert '"code": "superseded"' in log.strip().splitlines()[-1]
        until(lambda: held.taken > 0 or jobs.over(first))
        assert held.taken, jobs.log(first)
        jobs.http.post(f"/api/jobs/{first}/stop").raise_for_status()
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


# S3 was given up


def test_a_store_that_is_away_from_the_beginning_ends_the_run_with_exit_4(site: Site) -> None:
    """After as many repetitions as people have."""
    trouble = site.way.make(Trouble("status", times=FOREVER, status=503, code="ServiceUnavailable"))
    try:
        record = site.headrace("run", "digits.yaml", "--json", *sets("register=null"), code=4)
    finally:
        trouble.times = 0
    assert site.way.endpoint in record["error"]["message"]
    assert record["error"]["code"] == "store-unavailable"


def test_an_endpoint_comes_back_while_s3_is_away(hasty: Site) -> None:
    trouble = hasty.way.make(Trouble("status", times=FOREVER, status=500, code="InternalError"))
    try:
        hasty.headrace("up")
        (row,) = hasty.headrace("predict", "digits", "0.png", "--json")["predictions"]
        assert row["version"] == "1"
    finally:
        trouble.times = 0


def test_a_store_that_goes_away_ends_the_run_with_exit_4_and_resume_goes_on(hasty: Site) -> None:
    trouble = hasty.way.make(
        Trouble("status", times=FOREVER, status=503, code="ServiceUnavailable", begins=commits, nth=3)
    )
    try:
        run = hasty.start("digits.yaml", "train.epochs=6", "register=null", "train.seed=6", "train.max_failures=0")
        until(lambda: run.exit_code() is not None)
    finally:
        trouble.times = 0
    result = run.status()
    assert run.exit_code() == 4, result
    assert result["state"] == "failed"
    assert hasty.way.endpoint in result["error"]["message"]
    done = hasty.headrace("resume", run.run_id, "--json")
    assert done["state"] == "succeeded"
    assert sorted(steps_in_mlflow(done, "validation.accuracy")) == list(range(1, 7))


def test_a_command_that_reaches_s3_otherwise_than_the_head_is_told_so(hasty: Site) -> None:
    with environment({**hasty.way.environment, **HASTY, "AWS_PROFILE_OF_ANOTHER_SHELL": "1"}):
        result = hasty.headrace("run", "digits.yaml", "--json", *sets("train.seed=8", "register=null"), code=4)
    assert result["error"]["code"] == "head-environment"
    assert "headrace down" in result["error"]["action"]
