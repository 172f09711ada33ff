"""The process that talks to Ray: `python -m headrace.training.ray_driver SCRATCH`.

It is a process of its own because Ray's client may end or hang its process when the head dies, handles signals its own
way, and keeps an interpreter busy that others (MLflow) use. The caller (`driver.py`) watches it and the head.

SCRATCH holds request.json when it starts and outcome.json when it is done; an exit without the latter is a failure,
whatever its code.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.base import events
from headrace.base.errors import HeadraceError, NotEnoughResources, RunFailed, Unavailable
from headrace.base.jsonfile import read_json, write_json
from headrace.training.failures import WorkerFailure, failure_of
from headrace.training.request import Connection, TrainingRequest

if TYPE_CHECKING:
    from headrace.store import Store

REQUEST, OUTCOME, REPORTS = "request.json", "outcome.json", "reports.jsonl"

# How often Ray Train tries to place the workers again (each try waits RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S) before
# it gives up; without a limit it waits for ever.
PLACEMENT_RETRIES = 1

CHECKPOINTS_KEPT = 2  # the newest, and the one before it in case its files are damaged


def main(scratch: Path) -> None:
    """Do what SCRATCH/request.json asks for."""
    record = read_json(scratch / REQUEST)
    request = TrainingRequest.from_record(record["request"])
    conclude(scratch, record, lambda connection: _train(request, connection, scratch))


def conclude(scratch: Path, record: Mapping[str, Any], work: Callable[[Connection], dict[str, Any]]) -> None:
    """Do WORK for the caller that wrote RECORD, and leave what became of it in SCRATCH/outcome.json."""
    _die_with(int(record["parent"]))
    outcome: dict[str, Any]
    try:
        outcome = {"result": work(Connection.from_record(record["connection"]))}
    except WorkerFailure as failure:
        outcome = {"error": failure.record, "trace": failure.trace}
    except HeadraceError as error:
        outcome = {"error": error.to_record(), "trace": ""}
    except Exception as error:
        outcome = {"error": _lost_or_broken(error), "trace": traceback.format_exc()}
    write_json(scratch / OUTCOME, outcome)


def _lost_or_broken(error: Exception) -> dict[str, Any]:
    """ERROR as a record: Ray's own errors mean that the head is in trouble, others that we are."""
    if type(error).__module__.startswith("ray.") or isinstance(error, ConnectionError):
        lost = Unavailable(
            f"training lost its Ray head: {type(error).__name__}: {error}", action="resume the run", code="ray-lost"
        )
        return lost.to_record()
    return failure_of(error).record


def _die_with(parent: int) -> None:
    """Be killed when the caller ends, however it ends: Ray then frees the workers within half a second."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _train(request: TrainingRequest, connection: Connection, scratch: Path) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    started = time.time()
    events.emit("progress", step="train", phase="starting workers")
    import ray

    from headrace.store import Store
    from headrace.training.checkpoint_folder import remove_uncommitted

    ray.init(address=connection.address, namespace="headrace", log_to_driver=True)
    workers = _workers(request, connection, ray.cluster_resources())
    seconds["connect"] = time.time() - started
    store = Store(request.store_url)
    store.check_attempt(request.run_id, request.attempt)
    remove_uncommitted(store, request.checkpoints_uri)
    connected = time.time()
    outcome = _fit(lambda: _trainer(request, workers, store, scratch), request)
    seconds["start_workers"] = outcome.pop("entered") - connected
    seconds.update(outcome["seconds"])
    seconds["stop_workers"] = time.time() - outcome.pop("left")
    outcome["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
    return outcome


Workers = int | tuple[int, int]  # a fixed number, or as few and as many as Ray Train may make of them


def _workers(request: TrainingRequest, connection: Connection, there: dict[str, float]) -> Workers:
    """How many workers to start: on one machine as many as fit, on a cluster whatever Ray Train finds room for."""
    least, most = request.workers
    for name, each in (("CPU", request.cpus_per_worker), ("GPU", request.gpus_per_worker)):
        if least * each > there.get(name, 0):
            raise NotEnoughResources(
                f"training asks for {least * each} {name}s ({least} workers with {each} each); "
                f"the Ray head has {there.get(name, 0):g}",
                action="lower train.workers or train.resources, or train on a larger machine",
            )
        if connection.single_machine and each:
            most = min(most, int(there.get(name, 0) // each))
    return most if connection.single_machine or least == most else (least, most)


def _fit(make_trainer: Callable[[], Any], request: TrainingRequest) -> dict[str, Any]:
    from ray.exceptions import RayActorError
    from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError

    tries = 0
    while True:
        try:
            result = make_trainer().fit()
            value = result.return_value
            if not isinstance(value, dict):
                raise RunFailed("training ended without a result", action="look into the log")
            return value
        except ControllerError as error:
            raise _translated(error.controller_failure, request) from error
        except TrainingFailedError as error:
            raise _given_up(error, request) from error
        except RayActorError:  # the controller was killed: a new one goes on from the newest checkpoint
            tries += 1
            if tries > int(request.train["train"]["max_failures"]):
                raise
            events.emit("message", step="train", text="Ray Train's controller died; training starts again")


def _trainer(request: TrainingRequest, workers: Workers, store: Store, scratch: Path) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig

    from headrace.training.arrow_store import arrow_filesystem
    from headrace.training.backend import MeetingBackendConfig
    from headrace.training.callbacks import RunCallback
    from headrace.training.trainer import ElasticTrainer, FixedTrainer
    from headrace.training.worker import train_worker

    parent, _, name = request.checkpoints_uri.rstrip("/").rpartition("/")
    resources: dict[str, float] = {"CPU": request.cpus_per_worker}
    if request.gpus_per_worker:
        resources["GPU"] = request.gpus_per_worker
    trainer = FixedTrainer if isinstance(workers, int) else ElasticTrainer
    return trainer(
        train_worker,
        train_loop_config={"request": request.to_record()},
        backend_config=MeetingBackendConfig(scratch=str(scratch)),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=request.gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=store.path(parent),
            storage_filesystem=arrow_filesystem(store),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
            failure_config=FailureConfig(
                max_failures=int(request.train["train"]["max_failures"]), controller_failure_limit=PLACEMENT_RETRIES
            ),
            logging_config=LoggingConfig(log_level="WARNING"),  # everything is in the head's logs in any case
            callbacks=[RunCallback(str(scratch / REPORTS), request.events_path)],
        ),
    )


def _translated(failure: BaseException, request: TrainingRequest) -> Exception:
    """What a controller's failure means: mostly the first worker's own error, sometimes no room for the workers."""
    if isinstance(failure, WorkerFailure):
        return failure
    if (told := _store_failure(failure, request)) is not None:
        return told
    if type(failure).__name__ in ("WorkerGroupStartupTimeoutError", "InsufficientClusterResourcesError"):
        return NotEnoughResources(
            f"{request.workers[0]} workers could not be placed: others hold the CPUs or GPUs",
            action="wait until they are done, then `headrace resume`",
        )
    return RunFailed(
        f"Ray Train's controller failed: {failure}",
        action="look into the log, then `headrace resume`",
        code="controller-failed",
    )


def _store_failure(failure: BaseException, request: TrainingRequest) -> HeadraceError | None:
    """What a controller's failure says of the store that it writes its snapshot to, if it is the store's."""
    from headrace.store import Store
    from headrace.store.filesystems import explanation

    causes = (failure, failure.__cause__)
    told = (explanation(one, request.checkpoints_uri, Store(request.store_url).filesystem) for one in causes if one)
    return next((one for one in told if one is not None), None)


def _given_up(error: Any, request: TrainingRequest) -> Exception:
    """What it means that Ray Train will not try again: a worker's own temporary error, or a worker that was killed."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        if isinstance(failure, WorkerFailure) and not failure.lost_peer:
            return failure
    which = ", ".join(str(rank) for rank in sorted(failures)) or "?"
    return RunFailed(
        f"training failed after {request.train['train']['max_failures']} restarts: worker {which} died",
        action="was it killed for its memory? See the log and `dmesg`; lower train.batch_size, then `headrace resume`",
        code="workers-died",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
