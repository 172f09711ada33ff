"""The life of a run with the real Ray, MLflow and kfp.local: done, reused, killed, resumed, cancelled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headrace.base.processes import ProcessRef, session_members
from headrace.local.ray_head import Head
from headrace.local.records import read_events
from headrace.local.runs import LocalRun, create_run, start_runner
from headrace.spec import load_spec
from headrace.tracking import registry
from headrace_testbed.pausing import write_code

pytestmark = pytest.mark.timeout(900)

LONG = ("train.epochs=100000", "train.early_stop=null")  # no test sees its end

HELD = """
from torch import nn
from pause import Pause


class Net(nn.Module):
    def __init__(self, num_classes, in_features):
        super().__init__()
        self.pause = Pause(0)
        self.head = nn.Linear(in_features, num_classes)

    def forward(self, image):
        if self.training:
            self.pause()
        return self.head(image.flatten(1))
"""


@pytest.fixture(scope="module", autouse=True)
def _one_head(head: Head) -> Head:
    return head


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a spec that trains in seconds; `spec(name, gate="gate lines")`."""
    folder = tmp_path_factory.mktemp("life")

    def write(name: str, *, gate: str = "accuracy >= 0.1", workers: int = 1, model: str = "{name: resnet8}") -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(
            f"""
name: {name}
task: image-classification
data: {{source: builtin:digits}}
model: {model}
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
        try:
            words = Path(f"/proc/{member.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended since
            continue
        if b"kfp.dsl.executor_main" in words and name.encode() in words:
            return member
    pytest.fail(f"no process of step {name}")


# one after the other


@dataclass(frozen=True)
class Pair:
    """A run, the same with an epoch more, and how the second had to wait for the first."""

    path: Path
    first: dict[str, Any]
    longer: dict[str, Any]
    first_id: str
    waited: Mapping[str, Any]


@pytest.fixture(scope="module")
def patient(spec: Callable[..., Path], head: Head, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`spec` for runs that take all CPUs and do not train while there is a file `hold` beside them."""
    hold = spec("any").with_name("hold")
    code = write_code(tmp_path_factory.mktemp("patient") / "src", hold, held=HELD)
    return partial(spec, workers=head.num_cpus, model=f"{{name: 'held:Net', code: {code}}}")


@pytest.fixture(scope="module")
def pair(patient: Callable[..., Path]) -> Pair:
    """The two of them, begun together."""
    path = patient("reuse", gate="accuracy >= 0.1, accuracy >= champion - 0.5")
    hold = path.with_name("hold")
    hold.touch()
    try:
        one = begin(path)
        until(one, lambda event: event.get("phase") == "starting workers")  # it has the CPUs
        other = begin(path, "train.epochs=2")
        waited = until(other, lambda event: event["type"] == "waiting")
        hold.unlink()
        until(one, lambda event: event.get("phase") == "packaging")
        hold.touch()  # the other one begins to train when this one is registered
        first = finish(one)
    finally:
        hold.unlink(missing_ok=True)
    return Pair(path, first, finish(other), one.run_id, waited)


def test_two_runs_at_once_take_turns_and_both_finish(pair: Pair) -> None:
    assert pair.waited["text"] == f"waiting for run {pair.first_id}"
    assert pair.first["state"] == "succeeded", pair.first
    assert pair.longer["state"] == "succeeded", pair.longer


def test_a_run_trains_gates_and_registers_and_the_same_again_reuses_all_of_it(pair: Pair) -> None:
    first, longer = pair.first, pair.longer
    assert states(first) == {"split": "succeeded", "train": "succeeded", "register": "succeeded", "deploy": "skipped"}
    assert first["model"] == {"name": "reuse", "version": "1", "alias": "champion", "uri": "models:/reuse/1"}
    assert first["gate"]["checks"][1]["note"] == "there is no champion yet"

    assert states(longer)["split"] == "cached"
    assert states(longer)["train"] == "succeeded"
    assert longer["mlflow"]["run_id"] != first["mlflow"]["run_id"]
    champion = registry.resolve("reuse@champion")
    assert champion is not None
    assert champion.version == longer["model"]["version"] == "2"

    again = run(pair.path)
    assert states(again) == {"split": "cached", "train": "cached", "register": "cached", "deploy": "skipped"}
    assert again["model"] == first["model"]
    assert again["metrics"] == first["metrics"]
    assert again["mlflow"] == first["mlflow"]
    assert again["gate"]["checks"][1]["note"].startswith("champion: ")


def test_a_refused_model_is_registered_with_its_verdict_and_no_alias_moves(
    patient: Callable[..., Path], pair: Pair
) -> None:
    assert run(patient("refused"))["state"] == "succeeded"  # the pair has trained both
    followed = begin(patient("refused", gate="accuracy >= 0.9999"), "train.epochs=2")
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


@pytest.fixture(scope="module")
def long_run(spec: Callable[..., Path], head: Head) -> Iterator[LocalRun]:
    """A run that does not end by itself; whatever the tests leave of it is ended."""
    followed = begin(spec("killed"), *LONG)
    yield followed
    followed.cancel()


@pytest.fixture
def training(long_run: LocalRun) -> LocalRun:
    """It in mid-training, wherever the test before has left it."""
    before = newest_attempt(long_run)
    attempt = before + 1 if long_run.resume() else max(1, before)
    until(long_run, trained(2), attempt=attempt)
    return long_run


def newest_attempt(followed: LocalRun) -> int:
    return max((int(e["attempt"]) for e in read_events(followed.files.events) if e["type"] == "attempt"), default=0)


def resumed(followed: LocalRun) -> None:
    """Resume, let it train a little further, and hold what every resumed training must hold."""
    attempt = newest_attempt(followed)
    before = followed.status()["mlflow"]
    done = max(e["epoch"] for e in _metrics(followed, attempt))
    assert followed.resume() is True
    until(followed, trained(done + 2), attempt=attempt + 1)
    record = followed.status()
    assert record["state"] == "running"
    assert record["mlflow"] == before
    since = time.monotonic()
    while not set(range(1, done + 3)) <= set(logged := epochs_logged(record)):  # MLflow hears of them a little later
        assert time.monotonic() - since < 60, f"an epoch is missing: {logged}"
        time.sleep(0.1)
    assert logged == sorted(set(logged)), "an epoch was logged twice"
    second = [e["epoch"] for e in _metrics(followed, attempt + 1)]
    assert min(second) >= done, f"it began again: {second}"


def _metrics(followed: LocalRun, attempt: int) -> list[Mapping[str, Any]]:
    now, found = 0, []
    for event in read_events(followed.files.events):
        if event["type"] == "attempt":
            now = int(event["attempt"])
        elif event["type"] == "metrics" and now == attempt:
            found.append(event)
    return found


def test_killing_a_command_that_follows_leaves_the_run_alone(training: LocalRun) -> None:
    attempt, done = newest_attempt(training), max(e["epoch"] for e in _metrics(training, newest_attempt(training)))
    runner = training.files.read_runner()
    follow = f"for event in LocalRun({training.run_id!r}).follow(): print(event, flush=True)"
    code = f"from headrace.local.runs import LocalRun\n{follow}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert b"attempt" in follower.stdout.readline()
        follower.kill()
    until(training, trained(done + 3), attempt=attempt)
    assert training.status()["state"] == "running"
    assert training.files.read_runner() == runner


def test_a_killed_runner_is_told_and_its_run_goes_on_from_the_newest_checkpoint(training: LocalRun) -> None:
    runner = training.files.read_runner()
    assert runner is not None
    os.kill(runner.pid, signal.SIGKILL)
    assert runner.wait(30.0)
    record = training.status()
    assert (record["state"], record["error"]["code"]) == ("failed", "runner-lost")
    resumed(training)


def test_a_killed_train_step_fails_the_run_which_goes_on_from_the_newest_checkpoint(training: LocalRun) -> None:
    assert process_of_step(training, "train").send(signal.SIGKILL)
    record = finish(training)
    assert (record["state"], training.exit_code()) == ("failed", 1)
    assert (record["error"]["code"], record["error"]["step"]) == ("step-lost", "train")
    assert f"headrace resume {training.run_id}" in record["error"]["action"]
    resumed(training)


def test_a_cancelled_run_ends_cleanly_and_goes_on_when_it_is_resumed(training: LocalRun) -> None:
    began = time.monotonic()
    record = training.cancel()
    assert time.monotonic() - began < 60  # its steps are given 15 s, then it itself, then what is left is killed
    assert (record["state"], training.exit_code()) == ("cancelled", 130)
    assert record["error"]["code"] == "cancelled"
    assert processes_of(training) == []
    assert registry.list_versions("killed") == []
    resumed(training)


# more than there is


def test_a_run_that_asks_for_more_cpus_than_there_are_says_so_within_ten_seconds(
    spec: Callable[..., Path], head: Head
) -> None:
    for _ in range(3):  # the quickest: a machine may be busy with something else for a while
        began = time.monotonic()
        followed = begin(spec("greedy", workers=head.num_cpus + 1))
        record = finish(followed)
        seconds = time.monotonic() - began
        if seconds < 10:
            break
    assert seconds < 10
    assert not [event for event in read_events(followed.files.events) if event["type"] == "step"], "something began"
    assert (record["state"], followed.exit_code()) == ("failed", 2)
    assert record["error"]["code"] == "not-enough-resources"
    assert f"and there {'is' if head.num_cpus == 1 else 'are'} {head.num_cpus}" in record["error"]["message"]
