"""What is told of a run: right while it goes on, after it ended, and after anything of it was killed."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.base import events
from headrace.base.errors import InvalidInput, MissingExtra
from headrace.base.processes import ProcessRef
from headrace.local import runs
from headrace.local.run_files import RunFiles
from headrace.local.runs import LocalRun, create_run, git_state, list_runs
from headrace.spec import load_spec
from headrace.store import Store
from headrace.store.step_files import result_uri, write_note

SPEC: dict[str, Any] = {
    "name": "digits",
    "task": "image-classification",
    "data": {"source": "builtin:digits"},
    "model": "resnet8",
    "gate": ["accuracy >= 0.5"],
    "register": {},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HEADRACE_STORE", raising=False)
    return tmp_path / "home"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> LocalRun:
    made = LocalRun(create_run(load_spec(SPEC)))
    monkeypatch.setenv(events.VARIABLE, str(made.files.events))
    return made


@pytest.fixture
def runner(run: LocalRun) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is down as the run's runner."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        reference = ProcessRef.of(process.pid)
        assert reference is not None
        run.files.write_runner(reference)
        yield process
        process.kill()


def states(record: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in record["steps"]}


def test_a_run_that_was_just_made_is_queued(run: LocalRun) -> None:
    record = run.status()
    assert record["state"] == "queued"
    assert states(record) == {"split": "pending", "train": "pending", "register": "pending", "deploy": "skipped"}
    assert run.exit_code() is None


def test_a_record_has_exactly_the_parts_that_programs_rely_on(run: LocalRun) -> None:
    assert list(run.status()) == [
        "schema_version",
        "run_id",
        "state",
        "steps",
        "mlflow",
        "model",
        "metrics",
        "gate",
        "endpoint",
        "error",
        "findings",
    ]


def test_a_run_whose_runner_lives_is_running(run: LocalRun, runner: object) -> None:
    events.emit("attempt", attempt=1)
    events.emit("step", step="split", state="succeeded", seconds=1.5)
    events.emit("step", step="train", state="running")
    record = run.status()
    assert record["state"] == "running"
    assert states(record)["train"] == "running"
    assert record["steps"][0]["seconds"] == 1.5


def test_a_run_whose_runner_was_killed_has_failed_and_can_be_resumed(
    run: LocalRun, runner: subprocess.Popen[bytes]
) -> None:
    events.emit("attempt", attempt=1)
    events.emit("step", step="train", state="running")
    runner.kill()
    runner.wait()
    record = run.status()
    assert (record["state"], record["error"]["code"]) == ("failed", "runner-lost")
    assert f"headrace resume {run.run_id}" in record["error"]["action"]
    assert states(record)["train"] == "failed"
    assert run.exit_code() == 1


def test_a_new_attempt_begins_with_every_step_pending(run: LocalRun, runner: object) -> None:
    events.emit("attempt", attempt=1)
    events.emit("step", step="split", state="succeeded", seconds=1.0)
    events.emit("attempt", attempt=2)
    assert states(run.status())["split"] == "pending"


def test_what_an_earlier_attempt_left_is_not_told_as_this_ones(run: LocalRun, runner: object) -> None:
    store = Store()
    store.claim_attempt(run.run_id, "1.1")
    store.write_json(result_uri(store, run.run_id, "train", "1.1"), {"metrics": {"accuracy": 0.1}, "mlflow": {"a": 1}})
    write_note(store, run.run_id, "gate", {"attempt": "1.1", "gate": {"passed": False}, "model": None})
    assert run.status()["metrics"] == {"accuracy": 0.1}
    store.claim_attempt(run.run_id, "2.1")
    record = run.status()
    assert (record["metrics"], record["gate"]) == (None, None)


def test_the_result_is_the_last_word_and_its_exit_code_is_not_part_of_the_record(run: LocalRun) -> None:
    record = {"state": "refused"}
    run.files.write_result(dict(record), 3)
    assert run.status() == record
    assert run.exit_code() == 3
    assert list(run.follow()) == []


def test_following_yields_whole_lines_in_order_until_the_end(run: LocalRun) -> None:
    events.emit("attempt", attempt=1)
    with open(run.files.events, "a") as file:
        file.write("not json\n")
    events.emit("message", step="split", text="ü")
    run.files.write_result({"state": "succeeded"}, 0)
    assert [event["type"] for event in run.follow()] == ["attempt", "message"]


def test_cancelling_a_run_whose_runner_is_gone_marks_it_so_that_it_can_be_resumed(
    run: LocalRun, runner: subprocess.Popen[bytes]
) -> None:
    runner.kill()
    runner.wait()
    record = run.cancel()
    assert record["state"] == "cancelled"
    assert run.exit_code() == 130


def test_cancelling_asks_the_runner_first(run: LocalRun, runner: subprocess.Popen[bytes]) -> None:
    assert run.cancel()["state"] == "cancelled"
    assert runner.wait() == -signal.SIGINT


def test_cancelling_a_run_that_has_ended_changes_nothing(run: LocalRun) -> None:
    run.files.write_result({"state": "succeeded"}, 0)
    assert run.cancel() == {"state": "succeeded"}


def test_resuming_a_run_whose_runner_lives_only_looks_on(
    run: LocalRun, runner: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "start_runner", pytest.fail)
    assert run.resume() is False


def test_resuming_a_run_that_failed_starts_a_runner_and_forgets_how_it_ended(
    run: LocalRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(runs, "start_runner", started.append)
    run.files.write_result({"state": "failed"}, 1)
    assert run.resume() is True
    assert started == [run.run_id]
    assert run.files.read_result() is None


def test_resuming_ends_what_the_killed_runner_left_behind(
    run: LocalRun, runner: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "start_runner", lambda run_id: None)
    child = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!"], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    with child:
        left = ProcessRef.of(int(child.stdout.readline()))
        leader = ProcessRef.of(child.pid) or ProcessRef(child.pid, left.started, left.boot)  # type: ignore[union-attr]
    assert left is not None
    run.files.write_runner(leader)
    assert left.alive()
    assert run.resume() is True
    assert not left.alive()


def test_a_run_that_succeeded_is_not_run_again(run: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "start_runner", pytest.fail)
    run.files.write_result({"state": "succeeded"}, 0)
    assert run.resume() is False


@pytest.mark.parametrize("given", ["../../etc", "digits", "digits-aaaaaaaa/..", "", "Digits-aaaaaaaa"])
def test_what_cannot_be_a_runs_id_is_refused_before_any_path_is_made(given: str) -> None:
    with pytest.raises(InvalidInput, match="is not a run's id"):
        RunFiles.of(given)


def test_an_unknown_run_is_named(home: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no run digits-aaaaaaaa"):
        LocalRun("digits-aaaaaaaa")


def test_runs_are_listed_newest_first(home: Path) -> None:
    made = [create_run(load_spec(SPEC)) for _ in range(3)]
    for number, run_id in enumerate(made):
        files = RunFiles.of(run_id)
        files.write_run({**files.read_run(), "created": f"2026-01-0{number + 1}T00:00:00+00:00"})
    assert [run.run_id for run in list_runs()] == made[::-1]


def test_a_run_remembers_spec_store_and_where_it_came_from(home: Path, tmp_path: Path) -> None:
    run = LocalRun(create_run(load_spec(SPEC), no_cache=True, spec_file=tmp_path / "spec.yaml"))
    assert run.request["spec"] == load_spec(SPEC).to_record()
    assert run.request["store"] == str(home / "store")
    assert (run.request["spec_file"], run.request["no_cache"]) == (str(tmp_path / "spec.yaml"), True)
    assert json.loads((run.folder / "run.json").read_text())["run_id"] == run.run_id


def test_the_commit_of_the_specs_folder_is_kept_and_whether_it_is_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "GIT_SECONDS", 120.0)  # a tag may be given up where git is slow; here it is looked at

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    assert git_state(tmp_path / "none") is None
    git("init", "-q")
    assert git_state(tmp_path) is None
    (tmp_path / "spec.yaml").write_text("a")
    git("add", ".")
    git("commit", "-q", "-m", "a")
    clean = git_state(tmp_path)
    assert clean is not None
    assert (len(clean["commit"]), clean["dirty"]) == (40, False)
    (tmp_path / "spec.yaml").write_text("b")
    assert git_state(tmp_path) == {**clean, "dirty": True}


def test_of_two_commands_that_resume_at_once_only_one_starts_a_runner(
    run: LocalRun, runner: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "start_runner", pytest.fail)
    monkeypatch.setattr(LocalRun, "running", lambda self: False)  # looked at before the other command started one
    assert run.resume() is False
    assert runner.poll() is None


def test_an_installation_that_cannot_run_leaves_no_run_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="all"):
        create_run(load_spec(SPEC))
    assert list_runs() == []
