"""The driver's pure parts: records, failures told apart, a head that is watched, progress that does not flood."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.base import events
from headrace.base.errors import DataInvalid, Finding, RunFailed, Superseded, Unavailable, error_from_record
from headrace.base.processes import ProcessRef
from headrace.store import Store
from headrace.training import Connection, TrainingRequest, TrainingResult, run_training
from headrace.training.driver import _outcome, _Reports
from headrace.training.failures import failure_of, is_lost_peer, is_temporary
from headrace.training.head_watch import REFUSALS, HeadWatch
from headrace.training.progress import Teller


def request(store: Store, **changes: Any) -> TrainingRequest:
    values: dict[str, Any] = {
        "run_id": "digits-aaaaaaaa",
        "attempt": "2.1",
        "train": {"tasks": [], "model": {}, "train": {}},
        "split_fingerprint": "f",
        "store_url": store.url,
        "checkpoints_uri": store.uri("runs", "digits-aaaaaaaa", "checkpoints"),
        "evaluate": ("packages/b",),
        "workers": (1, 2),
    }
    return TrainingRequest(**{**values, **changes})


def test_requests_results_and_connections_come_back_from_json_as_they_were(tmp_path: Path) -> None:
    asked = request(Store(str(tmp_path)))
    assert TrainingRequest.from_record(json.loads(json.dumps(asked.to_record()))) == asked
    result = TrainingResult("packages/a", "a", 3, 2, {"accuracy": 0.5}, {"a": {"metrics": {}, "samples": 1}})
    assert TrainingResult.from_record(json.loads(json.dumps(result.to_record()))) == result
    connection = Connection("127.0.0.1:1", {"A": "b"}, "/logs", ProcessRef.current())
    assert Connection.from_record(json.loads(json.dumps(connection.to_record()))) == connection


def test_nothing_is_started_when_every_evaluation_is_there(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for sha256 in ("a", "b"):
        store.write_json(store.uri("evaluations", sha256, "f.json"), {"metrics": {"accuracy": 0.5}, "samples": 9})
    asked = request(store, train_needed=False, package_uri=store.uri("packages", "a"), evaluate=("x/packages/b",))
    result = run_training(asked, connection=Connection("127.0.0.1:1"))
    assert result.package_sha256 == "a"
    assert result.evaluations == {name: {"metrics": {"accuracy": 0.5}, "samples": 9} for name in ("a", "b")}


def test_an_evaluation_that_lacks_a_metric_of_the_task_is_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    metrics = {"iou": 0.5, "pixel_accuracy": 0.5}
    train = {"tasks": [{"name": "semantic-segmentation"}], "model": {}, "train": {}}
    asked = request(store, train=train, train_needed=False, package_uri=store.uri("packages", "a"), evaluate=())
    monkeypatch.setattr("headrace.training.driver._run_child", lambda *_: pytest.fail("it was measured"))
    uri = store.uri("evaluations", "a", "f.json")
    store.write_json(uri, {"metrics": metrics, "samples": 9})
    assert run_training(asked, connection=Connection("127.0.0.1:1")).evaluations["a"]["metrics"] == metrics
    store.write_json(uri, {"metrics": {"iou": 0.5}, "samples": 9})
    with pytest.raises(pytest.fail.Exception, match="it was measured"):
        run_training(asked, connection=Connection("127.0.0.1:1"))


def test_an_attempt_that_was_superseded_starts_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.claim_attempt("digits-aaaaaaaa", "3.1")
    with pytest.raises(Superseded):
        run_training(request(store), connection=Connection("127.0.0.1:1"))


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_users_error_is_lasting_and_keeps_its_words_and_its_place() -> None:
    failure = failure_of(raised(ZeroDivisionError("by my own fault")))
    assert failure.permanent
    error = error_from_record(failure.record)
    assert isinstance(error, RunFailed)
    assert "ZeroDivisionError: by my own fault" in error.message
    assert "test_training_driver.py" in error.message
    assert "Traceback" in failure.trace


def test_an_error_of_ours_passes_as_it_is() -> None:
    failure = failure_of(raised(DataInvalid("bad rows", action="mend", findings=[Finding("row 3", "x", "", "")])))
    assert failure.permanent
    error = error_from_record(pickle.loads(pickle.dumps(failure)).record)
    assert isinstance(error, DataInvalid)
    assert error.findings[0].where == "row 3"


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (RuntimeError("[/x/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:36217"), True),
        (RuntimeError("NCCL communicator was aborted on rank 1"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ConnectionResetError("storage"), True),
        (FileNotFoundError("my_table.csv"), False),
        (Unavailable("storage", action=""), True),
        (ValueError("x"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_what_may_go_better_next_time_is_tried_again(error: BaseException, temporary: bool) -> None:
    assert is_temporary(error) is temporary
    assert failure_of(raised(error)).permanent is not temporary


def test_running_out_of_memory_says_what_to_lower() -> None:
    assert "batch_size" in error_from_record(failure_of(raised(MemoryError())).record).action
    assert not is_lost_peer(MemoryError())


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_head_is_gone_after_refusing_several_times_in_a_row() -> None:
    clock, answers = Clock(), [True, False, False, True, False, False, False]
    watch = HeadWatch(Connection("127.0.0.1:7"), clock=clock, answers=lambda *_: answers.pop(0))
    seen = []
    for _ in range(7):
        seen.append(watch.gone())
        assert watch.gone() is seen[-1]  # not asked again within the second
        clock.now += 1.5
    assert seen == [False] * 6 + [True]
    assert REFUSALS == 3
    assert watch.error().exit_code == 4


def test_a_head_is_gone_at_once_when_its_process_is() -> None:
    dead = ProcessRef(ProcessRef.current().pid, 1, ProcessRef.current().boot)
    watch = HeadWatch(Connection("127.0.0.1:7", {}, "/logs", dead), answers=lambda *_: True)
    assert watch.gone()
    assert "/logs" in watch.error().action
    assert watch.error().log == "/logs"


def test_a_driver_that_died_is_a_failure_whatever_its_exit_code() -> None:
    clock = Clock()
    alive = HeadWatch(Connection("host"), clock=clock)
    for code in (0, -9):
        with pytest.raises(RunFailed) as caught:
            _outcome(None, code, alive, patience_seconds=0.0)
        assert caught.value.code == "driver-died"
    with pytest.raises(DataInvalid):
        _outcome({"error": DataInvalid("x").to_record(), "trace": ""}, 0, alive)
    gone = HeadWatch(Connection("host", leader=ProcessRef(1, 1, "another boot")))
    with pytest.raises(Unavailable):
        _outcome(None, 0, gone)


def test_reports_are_passed_on_once_and_half_a_line_waits(tmp_path: Path) -> None:
    class Reporter:
        logged: list[int] = []

        def log_epoch(self, step: int, metrics: Any, timestamp: float, tags: Any) -> None:
            self.logged.append(step)

    path = tmp_path / "reports.jsonl"
    reports = _Reports(path, Reporter(), request(Store(str(tmp_path))))  # type: ignore[arg-type]
    reports.pass_on()
    path.write_text('{"epoch": 1, "metrics": {}, "time": 1, "workers": 1}\n{"epoch": 2, "met')
    reports.pass_on()
    reports.pass_on()
    assert Reporter.logged == [1]
    path.write_text(
        '{"epoch": 1, "metrics": {}, "time": 1, "workers": 1}\n{"epoch": 2, "metrics": {}, "time": 2, "workers": 1}\n'
    )
    reports.pass_on()
    assert Reporter.logged == [1, 2]


def test_reports_tell_the_newest_checkpoint_and_what_the_workers_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reporter:
        tags: list[Any] = []

        def log_epoch(self, step: int, metrics: Any, timestamp: float, tags: Any) -> None:
            self.tags.append(tags)

    path = tmp_path / "reports.jsonl"
    now = 1_795_694_400.0
    monkeypatch.setattr("headrace.training.driver.time", SimpleNamespace(time=lambda: now))
    asked = request(Store(str(tmp_path)), cpus_per_worker=2, gpus_per_worker=1, reserved_seconds=(100.0, 50.0))
    reports = _Reports(path, Reporter(), asked)  # type: ignore[arg-type]
    entries = [
        {"epoch": 1, "metrics": {}, "time": now + 10, "workers": 2},
        {"epoch": 2, "metrics": {}, "time": now + 15, "workers": 1, "checkpoint": "checkpoint_2"},
        {"epoch": 1, "metrics": {}, "time": now - 99, "workers": 1},  # told by an earlier attempt: it held nothing here
    ]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    reports.pass_on()
    first, second, third = Reporter.tags
    assert float(first["headrace.cpu_seconds"]) == 100 + 10 * 2 * 2
    assert "headrace.checkpoint_uri" not in first
    assert float(second["headrace.gpu_seconds"]) == 50 + 10 * 2 + 5
    assert second["headrace.checkpoint_uri"] == f"{asked.checkpoints_uri}/checkpoint_2"
    assert second["headrace.checkpoint_epoch"] == "2"
    assert third["headrace.cpu_seconds"] == second["headrace.cpu_seconds"]


def test_progress_is_told_twice_a_second_and_a_new_phase_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(events.VARIABLE, str(tmp_path / "events"))
    clock = Clock()
    teller = Teller(speaks=True, clock=clock)
    for batch in range(100):
        teller.tell("training", batch=batch)
        clock.now += 0.01
    teller.tell("validating")
    Teller(speaks=False, clock=clock).tell("training")
    told = [events.parse(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert [event["phase"] for event in told if event] == ["training", "training", "validating"]
    with teller.part("train"):
        clock.now += 2
    with teller.part("train"):
        clock.now += 1
    assert teller.seconds == {"train": 3.0}
