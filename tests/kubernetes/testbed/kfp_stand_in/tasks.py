"""The list of a run's tasks as the real API gives it, which is no list of tasks.

A step is there as `train`, `train(0)` and `train-driver`; executors are called `executor` and `executor(0)` whosever
they are; the root, the workflow itself, and entries without a name or a state are among them; what runs ended in the
year 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kfp_stand_in.world import NEVER, Record, new_id, now


class Tasks:
    """The tasks of the run RECORD."""

    def __init__(self, record: Record) -> None:
        self._run = record
        self._details: list[Record] = record["run_details"]["task_details"]

    def begin(self, workflow: str) -> None:
        """What is there once it runs."""
        self._add(f"{workflow}-wf", "RUNNING")
        self._add("root", "RUNNING")
        self._add("root-driver", "SUCCEEDED")["end_time"] = now()
        self._details.append({"run_id": self._run["run_id"], "task_id": new_id(), "create_time": now()})

    def end(self, state: str) -> None:
        """What runs is over."""
        for entry in self._details:
            if entry.get("state") in {"RUNNING", "PENDING"}:
                entry["state"], entry["end_time"] = state, now()

    @contextmanager
    def driver(self, name: str) -> Iterator[None]:
        """Kubeflow's own pod before the step NAME."""
        entry = self._add(f"{name}-driver", "RUNNING")
        yield
        entry["state"], entry["end_time"] = "SUCCEEDED", now()

    @contextmanager
    def step(self, name: str, tries: int) -> Iterator[None]:
        """The step's own part, once for each try."""
        entries = [self._add(called, "RUNNING") for called in (name, f"{name}({tries})", "executor", "executor(0)")]
        state = "FAILED"
        try:
            yield
            state = "SUCCEEDED"
        finally:
            for entry in entries:
                entry["state"], entry["end_time"] = state, now()

    def waits(self, name: str, tries: int) -> None:
        """Its pod is not there yet."""
        for entry in self._details:
            if entry.get("display_name") in {"executor", "executor(0)", f"{name}({tries})"} and "state" in entry:
                entry["state"] = "PENDING" if entry["state"] == "RUNNING" else entry["state"]

    def skip(self, name: str) -> None:
        """Its condition does not hold."""
        self._add(name, "SKIPPED")["end_time"] = now()

    def _add(self, name: str, state: str) -> Record:
        entry: Record = {
            "run_id": self._run["run_id"],
            "task_id": new_id(),
            "display_name": name,
            "create_time": now(),
            "start_time": now(),
            "end_time": NEVER,
            "state": state,
            "child_tasks": [{"pod_name": f"pod-{new_id()[:8]}"}],
        }
        self._details.append(entry)
        return entry
