"""Runs and the registry on a real MLflow with SQLite: killed, resumed, raced for, and out of reach."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace import tracking
from headrace.base.errors import Superseded, Unavailable
from headrace.tracking import Reporter, TrackedRun, calls, registry, service
from headrace.tracking.connection import own_uri
from headrace_testbed.waiting import eventually

pytestmark = pytest.mark.timeout(900)
PATIENCE_SECONDS = 300  # for a process that imports MLflow on a busy machine
SHA = "ab" * 32
COUNTS = {"train": 7, "validation": 2, "test": 1}
DATASETS = """
SELECT d.name, t.value FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id
JOIN input_tags t ON t.input_uuid = i.input_uuid WHERE i.destination_id = ? ORDER BY d.name
"""
DRIVER = """
import os, signal
from headrace.tracking import Reporter, TrackedRun
run = TrackedRun.open("{run_id}", "killed")
run.log_params({{"train": {{"epochs": 8}}}})
run.start_system_metrics()
reporter = Reporter(run.tracking_uri, run.mlflow_run_id)
for epoch in range(4):
    reporter.log_epoch(epoch, {{"train.loss": 1.0 / (epoch + 1)}})
reporter.flush()
print(run.mlflow_run_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of this module's own, deeper than a socket's path may be; its service samples the machine often."""
    place = tmp_path_factory.mktemp("home") / ("deep" * 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_HOME", str(place))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.3")
        yield place
        service.stop()


def python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows(query: str, *values: Any) -> list[Any]:
    """What stands in the store, past all of MLflow's code and ours."""
    with sqlite3.connect(own_uri().removeprefix("sqlite:///"), timeout=60) as database:
        return database.execute(query, values).fetchall()


def points(mlflow_run_id: str, key: str) -> list[tuple[int, float]]:
    return rows("SELECT step, value FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY step", mlflow_run_id, key)


def test_two_processes_that_create_one_store_at_once_both_succeed() -> None:
    code = (
        "from headrace.tracking.connection import client, own_uri\nprint(len(client(own_uri()).search_experiments()))"
    )
    for process in [python(code), python(code)]:
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, errors
        assert output == "1\n"


def test_a_killed_driver_leaves_one_run_that_goes_on_with_each_step_once() -> None:
    run_id = "killed-aaaaaaaa"
    driver = python(DRIVER.format(run_id=run_id))
    output, errors = driver.communicate(timeout=PATIENCE_SECONDS)
    assert driver.returncode == -signal.SIGKILL, errors
    resumed = TrackedRun.open(run_id, "killed", tags={"headrace.attempt": "2.1"})
    assert resumed.mlflow_run_id == output.strip()
    reporter = Reporter(resumed.tracking_uri, resumed.mlflow_run_id)
    for epoch in range(2, 6):
        reporter.log_epoch(epoch, {"train.loss": 9.0, "validation.accuracy": epoch / 6})
    reporter.close()
    resumed.log_test_metrics({"accuracy": 0.97})
    resumed.log_test_metrics({"accuracy": 0.97})
    resumed.finish("FINISHED")
    assert points(resumed.mlflow_run_id, "train.loss") == [(0, 1), (1, 0.5), (2, 1 / 3), (3, 0.25), (4, 9), (5, 9)]
    assert [step for step, _ in points(resumed.mlflow_run_id, "validation.accuracy")] == [2, 3, 4, 5]
    assert points(resumed.mlflow_run_id, "test.accuracy") == [(0, 0.97)]
    assert rows("SELECT status FROM runs WHERE run_uuid = ?", resumed.mlflow_run_id) == [("FINISHED",)]
    assert tracking.find_run(run_id) == resumed.to_record()


def test_a_finished_run_that_is_resumed_is_running_again() -> None:
    first = TrackedRun.open("again-aaaaaaaa", "digits")
    first.finish("KILLED")
    second = TrackedRun.open("again-aaaaaaaa", "digits")
    assert second.mlflow_run_id == first.mlflow_run_id
    assert rows("SELECT status FROM runs WHERE run_uuid = ?", first.mlflow_run_id) == [("RUNNING",)]
    second.finish()


def test_many_processes_that_open_one_run_at_once_make_one() -> None:
    code = (
        "from headrace.tracking.calls import call_here; from headrace.tracking.connection import own_uri\n"
        "made = call_here('open_run', own_uri(), {'run_id': 'raced-aaaaaaaa', 'experiment': 'raced', 'tags': {}})\n"
        "print(made['mlflow_run_id'])"
    )
    processes = [python(code), python(code)]
    with ThreadPoolExecutor(8) as pool:
        found = {run.mlflow_run_id for run in pool.map(lambda _: TrackedRun.open("raced-aaaaaaaa", "raced"), range(8))}
    for process in processes:
        output, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0, errors
        found.add(output.strip())
    assert len(found) == 1


def test_the_same_parameters_again_are_fine_and_changed_ones_are_told() -> None:
    run = TrackedRun.open("params-aaaaaaaa", "digits", tags={"mlflow.source.git.commit": "c0ffee", "absent": None})
    run.log_params({"train": {"epochs": 8, "note": "x" * 10_000}})
    run.log_params({"train": {"epochs": 9, "note": "x" * 10_000}})
    tags = dict(rows("SELECT key, value FROM tags WHERE run_uuid = ?", run.mlflow_run_id))
    params = dict(rows("SELECT key, value FROM params WHERE run_uuid = ?", run.mlflow_run_id))
    assert params["train.epochs"] == "8"
    assert tags["headrace.changed_params"] == '{"train.epochs": ["8", "9"]}'
    assert tags["headrace.run_id"] == "params-aaaaaaaa"
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    assert "absent" not in tags
    run.finish()


def test_a_split_is_the_runs_dataset_inputs_once() -> None:
    run = TrackedRun.open("data-aaaaaaaa", "digits")
    for _ in range(2):
        run.log_dataset("digits", "f" * 64, {"classes": ["0"]}, COUNTS, "builtin:digits")
    assert rows(DATASETS, run.mlflow_run_id) == [
        ("digits.test", "testing"),
        ("digits.train", "training"),
        ("digits.validation", "validation"),
    ]
    run.finish()


def test_pictures_are_artifacts_below_plots(tmp_path: Path, home: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "confusion_matrix.png").write_bytes(b"png")
    (tmp_path / "notes.txt").write_bytes(b"no picture")
    run = TrackedRun.open("plots-aaaaaaaa", "plots of/all")
    assert run.log_pictures(tmp_path) == ["plots/confusion_matrix.png"]
    assert [path.parent.name for path in home.rglob("confusion_matrix.png")] == ["plots"]
    run.finish()


def test_system_metrics_are_sampled_while_their_process_lives() -> None:
    code = (
        "import time; from headrace.tracking import TrackedRun\n"
        "run = TrackedRun.open('system-aaaaaaaa', 'system'); run.start_system_metrics()\n"
        "print(run.mlflow_run_id, flush=True); time.sleep(3600)"
    )
    process = python(code)
    assert process.stdout is not None
    mlflow_run_id = process.stdout.readline().strip()
    key = "system/cpu_utilization_percentage"
    eventually(lambda: len(points(mlflow_run_id, key)) > 1, PATIENCE_SECONDS)
    process.kill()
    process.communicate()

    def sampled_no_more() -> bool:  # the service looks once a second
        before = points(mlflow_run_id, key)
        time.sleep(1.2)  # four samples' time
        return points(mlflow_run_id, key) == before

    eventually(sampled_no_more, 60)
    before = points(mlflow_run_id, key)
    resumed = TrackedRun.open("system-aaaaaaaa", "system")
    resumed.start_system_metrics()
    eventually(lambda: points(mlflow_run_id, key) != before, PATIENCE_SECONDS)
    resumed.finish()
    steps = [step for step, _ in points(mlflow_run_id, key)]
    assert steps == sorted(set(steps))


def test_a_superseded_attempt_writes_nothing() -> None:
    superseded = False

    def check() -> None:
        if superseded:
            raise Superseded("attempt 1.1 was superseded by 2.1", action="nothing")

    run = TrackedRun.open("fenced-aaaaaaaa", "digits", check=check)
    superseded = True
    with pytest.raises(Superseded):
        run.log_metrics({"a": 1.0})
    with pytest.raises(Superseded):
        run.finish("FAILED")
    with pytest.raises(Superseded):
        registry.register("fenced", package_uri="/p", package_sha256=SHA, check=check)
    assert points(run.mlflow_run_id, "a") == []
    assert registry.list_versions("fenced") == []


def test_a_deleted_experiment_is_taken_back() -> None:
    TrackedRun.open("bin-aaaaaaaa", "bin").finish()
    with sqlite3.connect(own_uri().removeprefix("sqlite:///"), timeout=60) as database:
        database.execute("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'bin'")
    TrackedRun.open("bin-bbbbbbbb", "bin").finish()
    assert rows("SELECT lifecycle_stage FROM experiments WHERE name = 'bin'") == [("active",)]


def test_registering_a_package_again_makes_no_new_version_even_at_once() -> None:
    def register(_: int) -> registry.ModelVersion:
        return registry.register("digits", package_uri="/packages/a", package_sha256=SHA, run_id="digits-aaaaaaaa")

    with ThreadPoolExecutor(6) as pool:
        versions = {version.version for version in pool.map(register, range(6))}
    assert versions == {"1"}
    assert registry.find_by_package("digits", SHA) == registry.resolve("digits/1") == registry.resolve("digits")
    moved = registry.register("digits", package_uri="s3://elsewhere/a", package_sha256=SHA)
    assert (moved.version, moved.package_uri) == ("1", "s3://elsewhere/a")


def test_the_gate_is_tagged_anew_and_the_alias_moves() -> None:
    registry.register("moving", package_uri="/a", package_sha256="aa" * 32)
    registry.register("moving", package_uri="/b", package_sha256="bb" * 32, description="the second")
    registry.set_alias("moving", "champion", "1")
    assert registry.champion("moving", "champion") == registry.resolve("moving/1")
    checks = [{"check": "accuracy >= 0.95", "value": 0.9, "passed": False}]
    registry.tag_gate("moving", "2", passed=False, checks=checks, split_fingerprint="f" * 64)
    refused = registry.resolve("moving")
    assert refused is not None
    assert (refused.version, refused.gate, list(refused.gate_checks)) == ("2", "refused", checks)
    registry.tag_gate("moving", "2", passed=True, checks=[])
    registry.set_alias("moving", "champion", "2")
    found = registry.resolve("moving@champion")
    assert found is not None
    assert (found.version, found.aliases, found.gate, found.description) == ("2", ("champion",), "passed", "the second")
    assert [version.version for version in registry.list_versions("moving")] == ["2", "1"]
    assert {"name": "moving", "description": "", "aliases": {"champion": "2"}, "latest": "2"} in registry.list_models()
    registry.delete_alias("moving", "champion")
    assert registry.resolve("moving@champion") is None


def test_a_package_whose_mlflow_run_and_model_were_thrown_away_is_registered_all_the_same() -> None:
    for sha256, model in (("c1" * 32, {"model_id": "m-" + "0" * 32}), ("c2" * 32, {"mlflow_run_id": "0" * 32})):
        version = registry.register("orphan", package_uri="/p", package_sha256=sha256, **model)
        assert (version.package_uri, version.model_uri) == ("/p", "/p")


def test_a_store_that_is_not_ours_is_created_but_nothing_is_left_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = python(
        "from headrace.tracking import TrackedRun\n"
        f"run = TrackedRun.open('theirs-aaaaaaaa', 'theirs', uri='sqlite:///{tmp_path}/theirs.db'); run.finish()"
    )
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, errors
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.db"]


def test_what_is_not_registered_is_none() -> None:
    assert registry.resolve("nobody") is None
    assert registry.resolve("nobody@champion") is None
    assert registry.resolve("nobody/3") is None
    assert registry.list_versions("nobody") == []
    assert tracking.find_run("nobody-aaaaaaaa") is None


def test_callers_import_no_mlflow_and_the_service_is_private() -> None:
    code = (
        "import sys; from headrace.tracking import TrackedRun\n"
        "TrackedRun.open('light-aaaaaaaa', 'digits').finish(); print('mlflow' in sys.modules)"
    )
    process = python(code)
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert output == "False\n", errors
    place = Path(own_uri().removeprefix("sqlite:///")).parent
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / calls.SOCKET).stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE((place / "mlflow.db").stat().st_mode) == 0o600


def test_a_killed_service_is_replaced_within_the_call() -> None:
    run = TrackedRun.open("service-aaaaaaaa", "digits")
    process = calls.service_process()
    assert process is not None
    assert process.send(signal.SIGKILL)
    run.log_metrics({"a": 1.0})
    run.finish()
    assert points(run.mlflow_run_id, "a") == [(0, 1.0)]
    assert calls.service_process() != process


def test_a_service_that_runs_other_code_leaves_for_one_that_runs_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    before = calls.service_process()
    with pytest.raises(calls.ServiceDown, match="other code"):
        calls._remote({"name": "ping", "uri": own_uri(), "arguments": {}, "build": "another"})
    assert before is not None
    assert before.wait(60)
    calls.call("ping", own_uri())
    assert calls.service_process() != before


def test_stopping_the_service_ends_its_process() -> None:
    process = calls.service_process()
    assert process is not None
    assert service.stop()
    assert not process.alive()
    assert not service.stop()


def test_a_server_that_is_not_there_is_named_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens: nobody else gets the port meanwhile
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        started = time.monotonic()
        for attempt in (
            lambda: TrackedRun.open("away-aaaaaaaa", "digits"),
            lambda: registry.resolve("digits@champion"),
        ):
            with pytest.raises(Unavailable, match=address):
                attempt()
        assert time.monotonic() - started < 30  # as MLflow comes, four minutes
    assert os.environ["MLFLOW_TRACKING_URI"] == address
