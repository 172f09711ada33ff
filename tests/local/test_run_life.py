"""The life of a run with the real Ray, MLflow and kfp.local: done, reused, killed, resumed, cancelled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace.base.processes import ProcessRef, session_members
from headrace.local.ray_head import Head
from headrace.local.runs import LocalRun, create_run, start_runner
from headrace.spec import load_spec
from headrace.tracking import registry

pytestmark = pytest.mark.timeout(900)

LONG = ("train.epochs=60", "train.early_stop=null")  # long enough to be killed in


@pytest.fixture(scope="module", autouse=True)
def _one_head(head: Head) -> Head:
    return head


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., Path]:
    """Writes a spec that trains in seconds; `spec(name, "gate lines")`."""

    def write(name: str = "life", gate: str = "accuracy >= 0.1", workers: int = 1) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            f"""
name: {name}
task: image-classification
data: {{source: builtin:digits}}
model: {{name: resnet8}}
train: {{epochs: 1, batch_size: 128, workers: {workers}, optimizer: {{name: adam, lr: 0.003}}}}
gate: [{gate}]
register: {{name: {name}}}
"""
        )
        return path

    return write


def begin(path: Path, *overrides: str) -> LocalRun:
    run_id = create_run(load_spec(path, overrides), spec_file=path)
    start_runner(run_id)
    return LocalRun(run_id)


def finish(run: LocalRun) -> dict[str, Any]:
    for _ in run.follow():
        pass
    return run.status()


def run(path: Path, *overrides: str) -> dict[str, Any]:
    return finish(begin(path, *overrides))


def until(followed: LocalRun, wanted: Callable[[Mapping[str, Any]], bool], *, attempt: int = 1) -> Mapping[str, Any]:
    now = 0
    for event in followed.follow():
        now = event["attempt"] if event["type"] == "attempt" else now
        if now == attempt and wanted(event):
            return event
    pytest.fail(f"it ended before that: {followed.status()}")


def trained(epoch: int) -> Callable[[Mapping[str, Any]], bool]:
    return lambda event: event["type"] == "metrics" and event["epoch"] >= epoch


def states(record: Mapping[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in record["steps"]}


def epochs_logged(record: Mapping[str, Any]) -> list[int]:
    from mlflow import MlflowClient

    mlflow = record["mlflow"]
    history = MlflowClient(mlflow["tracking_uri"]).get_metric_history(mlflow["run_id"], "train.loss")
    return [point.step for point in history]


def processes_of(followed: LocalRun) -> list[ProcessRef]:
    runner = followed.files.read_runner()
    return [] if runner is None else list(session_members(runner.pid))


def process_of_step(followed: LocalRun, name: str) -> ProcessRef:
    for member in processes_of(followed):
        words = Path(f"/proc/{member.pid}/cmdline").read_bytes().split(b"\0")
        if b"kfp.dsl.executor_main" in words and name.encode() in words:
            return member
    pytest.fail(f"no process of step {name}")


# reuse


def test_a_run_trains_gates_and_registers_and_the_same_again_reuses_all_of_it(spec: Callable[..., Path]) -> None:
    path = spec("reuse", gate="accuracy >= 0.1, accuracy >= champion - 0.5")
    first = run(path)
    assert first["state"] == "succeeded", first
    assert states(first) == {"split": "succeeded", "train": "succeeded", "register": "succeeded", "deploy": "skipped"}
    assert first["model"] == {"name": "reuse", "version": "1", "alias": "champion", "uri": "models:/reuse/1"}
    assert first["gate"]["checks"][1]["note"] == "there is no champion yet"

    again = run(path)
    assert states(again) == {"split": "cached", "train": "cached", "register": "cached", "deploy": "skipped"}
    assert again["model"] == first["model"]
    assert again["metrics"] == first["metrics"]
    assert again["mlflow"] == first["mlflow"]
    assert again["gate"]["checks"][1]["note"].startswith("champion: ")

    longer = run(path, "train.epochs=2")
    assert states(longer)["split"] == "cached"
    assert states(longer)["train"] == "succeeded"
    assert longer["mlflow"]["run_id"] != first["mlflow"]["run_id"]
    champion = registry.resolve("reuse@champion")
    assert champion is not None
    assert champion.version == longer["model"]["version"] == "2"


def test_a_refused_model_is_registered_with_its_verdict_and_no_alias_moves(spec: Callable[..., Path]) -> None:
    path = spec("refused")
    assert run(path)["state"] == "succeeded"
    followed = begin(spec("refused", gate="accuracy >= 0.9999"), "train.epochs=2")
    record = finish(followed)
    assert (record["state"], followed.exit_code()) == ("refused", 3)
    assert (record["error"]["code"], record["error"]["step"]) == ("gate-refused", "register")
    assert record["gate"]["passed"] is False
    assert record["model"]["alias"] is None
    refused = registry.resolve(f"refused/{record['model']['version']}")
    assert refused is not None
    assert (refused.gate, refused.aliases) == ("refused", ())
    champion = registry.resolve("refused@champion")
    assert champion is not None
    assert champion.version == "1"


# killed and resumed


@pytest.fixture
def killed(spec: Callable[..., Path]) -> Iterator[LocalRun]:
    """A run in mid-training; whatever a test leaves of it is ended."""
    followed = begin(spec("killed"), *LONG)
    until(followed, trained(2))
    yield followed
    followed.cancel()


def resumed(followed: LocalRun, *, least: int) -> None:
    """Resume, let it train a little further, and hold what every resumed training must hold."""
    before = followed.status()["mlflow"]
    done = max(e["epoch"] for e in _metrics(followed))
    assert followed.resume() is True
    until(followed, trained(done + 2), attempt=2)
    record = followed.status()
    assert record["state"] == "running"
    assert record["mlflow"] == before
    followed.cancel()
    logged = epochs_logged(record)
    assert logged == sorted(set(logged)), "an epoch was logged twice"
    assert logged[:done] == list(range(1, done + 1)), "an epoch is missing"
    second = [e["epoch"] for e in _metrics(followed, attempt=2)]
    assert min(second) >= least, f"it began again: {second}"


def _metrics(followed: LocalRun, attempt: int = 1) -> list[Mapping[str, Any]]:
    from headrace.local.records import read_events

    now, found = 0, []
    for event in read_events(followed.files.events):
        if event["type"] == "attempt":
            now = int(event["attempt"])
        elif event["type"] == "metrics" and now == attempt:
            found.append(event)
    return found


def test_a_killed_runner_is_told_and_its_run_goes_on_from_the_newest_checkpoint(killed: LocalRun) -> None:
    runner = killed.files.read_runner()
    assert runner is not None
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait(5.0)
    record = killed.status()
    assert (record["state"], record["error"]["code"]) == ("failed", "runner-lost")
    resumed(killed, least=2)


def test_a_killed_train_step_fails_the_run_which_goes_on_from_the_newest_checkpoint(killed: LocalRun) -> None:
    process_of_step(killed, "train").send(signal.SIGKILL)
    record = finish(killed)
    assert (record["state"], killed.exit_code()) == ("failed", 1)
    assert (record["error"]["code"], record["error"]["step"]) == ("step-lost", "train")
    assert f"headrace resume {killed.run_id}" in record["error"]["action"]
    resumed(killed, least=2)


def test_a_cancelled_run_ends_cleanly_and_goes_on_when_it_is_resumed(killed: LocalRun) -> None:
    began = time.monotonic()
    record = killed.cancel()
    assert time.monotonic() - began < 40
    assert (record["state"], killed.exit_code()) == ("cancelled", 130)
    assert record["error"]["code"] == "cancelled"
    assert processes_of(killed) == []
    assert registry.list_versions("killed") == []
    resumed(killed, least=2)


def test_killing_a_command_that_follows_leaves_the_run_alone(spec: Callable[..., Path]) -> None:
    followed = begin(spec("watched"))
    code = (
        f"from headrace.local.runs import LocalRun\nfor event in LocalRun({followed.run_id!r}).follow(): print(event)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert b"attempt" in follower.stdout.readline()
        follower.kill()
    assert finish(followed)["state"] == "succeeded"


# sharing the machine


def test_two_runs_at_once_take_turns_and_both_finish(spec: Callable[..., Path], head: Head) -> None:
    one = begin(spec("first", workers=head.num_cpus))
    until(one, lambda event: event["type"] == "step" and event["step"] == "train")
    other = begin(spec("second", workers=head.num_cpus))
    waited = until(other, lambda event: event["type"] == "waiting")
    assert waited["text"] == f"waiting for run {one.run_id}"
    assert finish(one)["state"] == "succeeded"
    assert finish(other)["state"] == "succeeded"


def test_a_run_that_asks_for_more_cpus_than_there_are_says_so_within_ten_seconds(
    spec: Callable[..., Path], head: Head
) -> None:
    began = time.monotonic()
    followed = begin(spec("greedy", workers=head.num_cpus + 1))
    record = finish(followed)
    assert time.monotonic() - began < 10
    assert (record["state"], followed.exit_code()) == ("failed", 2)
    assert record["error"]["code"] == "not-enough-resources"
    assert f"and there {'is' if head.num_cpus == 1 else 'are'} {head.num_cpus}" in record["error"]["message"]
