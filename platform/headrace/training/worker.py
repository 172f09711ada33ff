"""Where Ray Train enters: in every worker process, again after each restart.

Light at import, because the controller unpickles a reference to it as well; torch is imported when a worker runs it.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.base import events
from headrace.training.failures import failure_of
from headrace.training.request import TrainingRequest

if TYPE_CHECKING:
    from headrace.training.group import Group


def train_worker(config: Mapping[str, Any]) -> dict[str, Any]:
    """Do the request's work and return what the driver makes its result of.

    Raises:
        WorkerFailure: whatever went wrong, and whether it would again.
    """
    entered = time.time()
    request = TrainingRequest.from_record(config["request"])
    with _telling(request):
        outcome = _work(request, entered)
    outcome["entered"], outcome["left"] = entered, time.time()
    return outcome


def _telling(request: TrainingRequest) -> AbstractContextManager[None]:
    """Tells what the worker does in the run's file, which is on the driver's machine, else in an object of its own."""
    if not request.events_path:
        return nullcontext()
    os.environ[events.VARIABLE] = request.events_path
    if Path(request.events_path).parent.is_dir():
        return nullcontext()
    del os.environ[events.VARIABLE]
    from headrace.store import Store
    from headrace.store.run_events import told_in_store

    return told_in_store(Store(request.store_url), request.run_id, "train", f"{request.attempt}-worker")


def _work(request: TrainingRequest, entered: float) -> dict[str, Any]:
    try:
        group = _open_group(request.cpus_per_worker)
        from headrace.training.group import close_group
        from headrace.training.work import Work

        ready = time.time()
        with tempfile.TemporaryDirectory(prefix="headrace-worker-") as folder:
            outcome = Work(request, group, Path(folder)).run()
        close_group()
    except BaseException as error:
        raise failure_of(error) from None
    outcome["seconds"]["import_and_meet"] = ready - entered
    return outcome


def _open_group(threads: int) -> Group:
    import ray.train
    import torch
    from ray.train.v2._internal.execution import context as reporting

    from headrace.training.gpu import repeatable
    from headrace.training.group import open_group

    # It logs all metrics of each worker each epoch, under the name of its file, so as if a user's code had done it.
    logging.getLogger(reporting.__file__).setLevel(logging.WARNING)
    torch.set_num_threads(threads)
    context = ray.train.get_context()
    device = torch.device("cpu")
    if ray.get_gpu_ids():
        from ray.train.torch import get_device

        device = get_device()
        repeatable(device)
    return open_group(context.get_world_rank(), context.get_world_size(), context.get_local_world_size(), device)
