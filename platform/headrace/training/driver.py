"""Run a training from any process, and always come back: with a result or with an error that says what to do.

The work with Ray is done by a child process (`ray_driver.py`); this side imports neither ray nor torch. It watches the
child and the head, passes each epoch's metrics on to MLflow, and ends the child whatever happens.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.api.reports import CHECKPOINT_EPOCH_TAG, CHECKPOINT_URI_TAG, CPU_SECONDS_TAG, GPU_SECONDS_TAG
from headrace.base import events
from headrace.base.errors import HeadraceError, RunFailed, error_from_record
from headrace.base.jsonfile import read_json, write_json
from headrace.spec.measured import is_whole
from headrace.store import Store
from headrace.training.head_watch import INTERVAL_SECONDS, REFUSALS, HeadWatch
from headrace.training.request import Connection, TrainingRequest, TrainingResult

if TYPE_CHECKING:
    from headrace.tracking.reporter import Reporter

POLL_SECONDS = 0.05
DOUBTFUL = ("driver-died", "ray-lost", "controller-failed", "workers-died")  # errors that a dying head can cause
VERDICT_SECONDS = REFUSALS * INTERVAL_SECONDS + 1.0  # how long until a dead head is known to be dead
GRACE_SECONDS = 5.0  # for the child to leave Ray in order after TERM; then it is killed

# What Ray Train is told through the environment of its driver, which passes it on to the controller and the workers.
RAY_TRAIN = {
    "RAY_TRAIN_V2_ENABLED": "1",
    # Seconds between the controller's looks at the workers. It takes one report a look, and looks once more at the end:
    # with its default of 2 s an empty training takes 9 s longer.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    # Seconds to wait for room for the workers before the attempt counts as failed.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay where the head was started
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_DEDUP_LOGS": "0",
}


OnEpoch = Callable[[Mapping[str, Any]], None]


def run_training(
    request: TrainingRequest, *, connection: Connection, on_epoch: OnEpoch | None = None
) -> TrainingResult:
    """Train and evaluate as REQUEST says, on the head that CONNECTION names.

    A request with the checkpoints of an earlier one goes on from the newest. Blocks until the end; being interrupted
    ends the training first. ON_EPOCH hears of each epoch, with "epoch", "metrics" and "time"; it may be told twice.

    Raises:
        InvalidInput: the data, the model or the resources are at fault (exit code 2).
        Unavailable: the head died, or MLflow cannot be reached; the run can be resumed (exit code 4).
        Superseded: a newer attempt owns the run.
        RunFailed: training failed, with the first failing worker's own words.
    """
    started = time.monotonic()
    store = Store(request.store_url)
    store.check_attempt(request.run_id, request.attempt)
    known = _known_evaluations(request, store)
    if known is not None:
        return known
    with tempfile.TemporaryDirectory(prefix="headrace-train-") as folder, _reporter(request, store) as reporter:
        outcome = _run_child(request, connection, Path(folder), reporter, on_epoch)
        history = outcome.pop("history")
        _log_missing(reporter, history)
        for entry in history if on_epoch is not None else ():  # an earlier attempt's epochs are told by nobody else
            on_epoch(entry)  # type: ignore[misc]
    outcome["package_sha256"] = str(outcome["package_uri"]).rstrip("/").rsplit("/", 1)[-1]
    outcome["seconds"]["total"] = round(time.monotonic() - started, 3)
    return TrainingResult.from_record(outcome)


def _known_evaluations(request: TrainingRequest, store: Store) -> TrainingResult | None:
    """The result where nothing is left to do: no training is needed and every evaluation is in the store."""
    if request.train_needed or request.package_uri is None:
        return None
    tasks = [str(task["name"]) for task in request.train["tasks"]]
    evaluations: dict[str, Mapping[str, Any]] = {}
    for uri in (request.package_uri, *request.evaluate):
        sha256 = uri.rstrip("/").rsplit("/", 1)[-1]
        found = store.read_json(store.uri("evaluations", sha256, f"{request.split_fingerprint}.json"))
        if not isinstance(found, dict) or not is_whole(found, tasks):
            return None
        evaluations[sha256] = {"metrics": found["metrics"], "samples": found["samples"]}
    sha256 = request.package_uri.rstrip("/").rsplit("/", 1)[-1]
    return TrainingResult(request.package_uri, sha256, 0, 0, {}, evaluations, {}, {"total": 0.0})


# metrics


@contextmanager
def _reporter(request: TrainingRequest, store: Store) -> Iterator[Reporter | None]:
    """MLflow's reporter for the time of a training; what it has taken is written when the block ends."""
    if request.tracking_uri is None or request.mlflow_run_id is None:
        yield None
        return
    from headrace.tracking.reporter import Reporter

    reporter = Reporter(
        request.tracking_uri,
        request.mlflow_run_id,
        check=lambda: store.check_attempt(request.run_id, request.attempt),
    )
    try:
        yield reporter
    except BaseException:
        try:
            reporter.close(5.0)
        except HeadraceError as error:  # the training's own error is the one to tell
            events.emit("message", step="train", text=error.message)
        raise
    reporter.close()


def _log_missing(reporter: Reporter | None, history: list[dict[str, Any]]) -> None:
    """Log epochs of which only the checkpoint knows: the reporter skips what MLflow has."""
    for entry in history if reporter is not None else ():
        reporter.log_epoch(entry["epoch"], entry["metrics"], entry["time"])  # type: ignore[union-attr]


class _Reports:
    """The controller's lines, each passed on once, with what they mean for the run's tags."""

    def __init__(
        self, path: Path, reporter: Reporter | None, request: TrainingRequest, on_epoch: OnEpoch | None = None
    ) -> None:
        self._path = path
        self._on_epoch = on_epoch
        self._reporter = reporter
        self._request = request
        self._read = 0
        self._until = time.time()
        self._cpu_seconds, self._gpu_seconds = request.reserved_seconds

    def pass_on(self) -> None:
        """Log what was appended since the last call."""
        if (self._reporter is None and self._on_epoch is None) or not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                entry = json.loads(line)
                if self._reporter is not None:
                    self._reporter.log_epoch(entry["epoch"], entry["metrics"], entry["time"], self._tags(entry))
                if self._on_epoch is not None:
                    self._on_epoch(entry)

    def _tags(self, entry: Mapping[str, Any]) -> dict[str, str]:
        """The run's tags after ENTRY: what the workers have held so far, and where the newest checkpoint lies."""
        seconds = max(0.0, entry["time"] - self._until)
        self._until += seconds
        self._cpu_seconds += seconds * entry["workers"] * self._request.cpus_per_worker
        self._gpu_seconds += seconds * entry["workers"] * self._request.gpus_per_worker
        tags = {CPU_SECONDS_TAG: f"{self._cpu_seconds:.1f}", GPU_SECONDS_TAG: f"{self._gpu_seconds:.1f}"}
        if entry.get("checkpoint"):
            tags[CHECKPOINT_URI_TAG] = f"{self._request.checkpoints_uri}/{entry['checkpoint']}"
            tags[CHECKPOINT_EPOCH_TAG] = str(entry["epoch"])
        return tags


# the child


def _run_child(
    request: TrainingRequest,
    connection: Connection,
    scratch: Path,
    reporter: Reporter | None,
    on_epoch: OnEpoch | None,
) -> dict[str, Any]:
    reports = _Reports(scratch / "reports.jsonl", reporter, request, on_epoch)
    given = {"request": request.to_record()}
    return run_child(
        "headrace.training.ray_driver", given, connection, scratch, reports.pass_on, events_path=request.events_path
    )


def run_child(
    module: str,
    given: Mapping[str, Any],
    connection: Connection,
    scratch: Path,
    pass_on: Callable[[], None],
    *,
    events_path: str | None,
) -> dict[str, Any]:
    """Run `python -m MODULE SCRATCH` with GIVEN as its request.json until it ends; its outcome.json's "result".

    PASS_ON is called often meanwhile. Raises what the child says, or what its silence or the head's death means.
    """
    write_json(scratch / "request.json", {**given, "connection": connection.to_record(), "parent": os.getpid()})
    watch = HeadWatch(connection)
    child = subprocess.Popen(
        [sys.executable, "-m", module, str(scratch)],
        env=_environment(events_path, connection),
        stdin=subprocess.DEVNULL,
        process_group=0,  # Ctrl-C is ours to handle
    )
    try:
        while child.poll() is None:
            pass_on()
            if watch.gone():
                raise watch.error()
            time.sleep(POLL_SECONDS)
        pass_on()
    finally:
        _end(child, at_once=watch.gone())
    return _outcome(read_json(scratch / "outcome.json"), child.returncode, watch)


def _environment(events_path: str | None, connection: Connection) -> dict[str, str]:
    environment = dict(os.environ)
    if connection.single_machine:  # what a person's shell holds for Ray is meant for other clusters
        environment = {name: value for name, value in environment.items() if not name.startswith("RAY_")}
        # One process less: no node can be taken away from under the workers.
        environment["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"
    environment.update({**connection.env, **RAY_TRAIN})
    if events_path:
        environment[events.VARIABLE] = events_path
    return environment


def _end(child: subprocess.Popen[bytes], *, at_once: bool) -> None:
    """End the child if it still runs."""
    if child.poll() is None and not at_once:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)
    if child.poll() is None:
        child.send_signal(signal.SIGKILL)
    child.wait()


def _outcome(
    outcome: Mapping[str, Any] | None, code: int, watch: HeadWatch, patience_seconds: float = VERDICT_SECONDS
) -> dict[str, Any]:
    """The child's result, or its error raised; where the head's death may be behind it, that is found out first."""
    if outcome is not None and "result" in outcome:
        return dict(outcome["result"])
    error = error_from_record(outcome["error"]) if outcome is not None else _ended(code)
    if outcome is not None and outcome["trace"]:
        print(outcome["trace"], file=sys.stderr, flush=True)
    deadline = time.monotonic() + patience_seconds
    while error.code in DOUBTFUL:
        if watch.gone():
            raise watch.error()
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
    raise error


def _ended(code: int) -> RunFailed:
    ended = f"signal {-code}" if code < 0 else f"exit code {code} and no result"
    return RunFailed(
        f"the process that drives Ray Train ended with {ended}",
        action="look into the log, then resume the run: it goes on from the newest checkpoint",
        code="driver-died",
    )
