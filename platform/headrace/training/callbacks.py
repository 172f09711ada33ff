"""What the controller hears: epochs as they are committed, and failures before Ray Train decides to retry them.

`after_report` runs once for each epoch that all workers reported, after its checkpoint is named in the snapshot. It
passes the metrics on to the driver (a line in a file: both are on one node) and to whoever follows the run. The
driver's caller logs them to MLflow, which it has imported anyway; the controller would spend 4 s of CPU on that import.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ray.train import UserCallback

from headrace.base import events
from headrace.training.failures import WorkerFailure


class RunCallback(UserCallback):
    """Tells of epochs, and ends the run at once on a failure that would come again.

    Args:
        reports_path: where a JSON line is appended for each epoch: {"epoch", "metrics", "time", "workers"}, and
            "checkpoint", the name of the folder that holds all epochs up to this one, where there is one.
        events_path: the run's events.jsonl, or None.
    """

    def __init__(self, reports_path: str, events_path: str | None) -> None:
        self.reports_path = reports_path
        self.events_path = events_path
        self._told = 0

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Pass on the epochs that the first worker reported and that were not told before."""
        entries = metrics[0]["epochs"]
        for entry in entries:
            if entry["epoch"] > self._told:
                self._told = entry["epoch"]
                told = {**entry, "workers": len(metrics)}
                if checkpoint is not None and entry is entries[-1]:
                    told["checkpoint"] = checkpoint.path.rstrip("/").rsplit("/", 1)[-1]
                with open(self.reports_path, "a", encoding="utf-8") as file:
                    file.write(json.dumps(told) + "\n")
                if not entry.get("resumed"):
                    self._emit("metrics", epoch=entry["epoch"], metrics=entry["metrics"])

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise a lasting failure: an error in a callback is what Ray Train does not retry."""
        for _, error in sorted(worker_exceptions.items()):
            if isinstance(error, WorkerFailure) and error.permanent:
                raise error
        names = ", ".join(str(rank) for rank in sorted(worker_exceptions))
        self._emit("message", text=f"worker {names} failed; training starts again from its checkpoint")

    def _emit(self, kind: str, **fields: Any) -> None:
        if self.events_path:  # the controller's process has the head's environment, not the run's
            os.environ[events.VARIABLE] = self.events_path
        events.emit(kind, step="train", **fields)
