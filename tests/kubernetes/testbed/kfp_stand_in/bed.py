"""A target whose Kubeflow is the stand-in: a home with targets.yaml, a store, and steps that leave the words of real
ones in it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.spec.targets import ENVIRONMENT
from headrace.steps.scheduled import run_of
from headrace.store import Store
from headrace.store.run_events import events_uri
from headrace.store.step_files import result_uri, step_uri, write_note
from kfp_stand_in.script import Failed, Lost, Play, StepTask
from kfp_stand_in.server import KubeflowStandIn

IMAGE = "registry.invalid/headrace/runtime:0.1.0"
METRICS = {"accuracy": 0.98}
VALUES: dict[str, dict[str, Any]] = {
    "split": {"fingerprint": "f" * 64},
    "train": {
        "metrics": METRICS,
        "mlflow": {"tracking_uri": "http://mlflow.invalid", "experiment_id": "1", "run_id": "abc"},
    },
    "register": {
        "gate": {"passed": True, "checks": [{"check": "accuracy >= 0.9", "value": 0.98, "passed": True}]},
        "model": {"name": "digits", "version": "1", "alias": None, "uri": "models:/digits/1"},
    },
    "deploy": {
        "endpoint": {"url": "http://front.invalid/digits", "model": "digits", "version": "1"},
        "model": {"name": "digits", "version": "1", "alias": "champion", "uri": "models:/digits/1"},
    },
}
SPEC = {
    "name": "digits",
    "task": "image-classification",
    "data": {"source": "builtin:digits"},
    "model": "resnet8",
    "gate": ["accuracy >= 0.9"],
    "register": "digits",
    "deploy": "digits",
}


def forget_sites(patch: pytest.MonkeyPatch) -> None:
    """Let nothing of another site be in the environment, and of this one's nothing when the test is over."""
    for name in (*ENVIRONMENT, "HEADRACE_EVENTS"):
        patch.setenv(name, "")  # known to PATCH, which else would not undo what the tested program sets
        patch.delenv(name)


def write_targets(home: Path, stand_in: KubeflowStandIn, store: Path, **kubeflow: Any) -> None:
    """Let HOME know the target `kubeflow`."""
    home.mkdir(parents=True, exist_ok=True)
    target = {"kubeflow": {"host": stand_in.url, **kubeflow}, "store": str(store), "image": IMAGE}
    (home / "targets.yaml").write_text(yaml.safe_dump({"kubeflow": target}))


def write_spec(folder: Path, **changes: Any) -> Path:
    """A spec file in FOLDER."""
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (SPEC | changes).items() if value is not None}))
    return path


class Steps:
    """Plays of the four steps that write what real ones write to the store URL."""

    def __init__(self, url: str, *, seconds: float = 0.0) -> None:
        self.store = Store(url)
        self.seconds = seconds

    def plays(self, **instead: Play) -> dict[str, Play]:
        """The four, some of them played otherwise."""
        return {step: self.well(step) for step in VALUES} | instead

    def well(self, step: str, **changes: Any) -> Play:
        """STEP ends well."""

        def play(task: StepTask) -> Mapping[str, Any]:
            self.tell(task, {"type": "step", "step": step, "state": "running"})
            self._work(task)
            result = {**VALUES[step], **changes, "step": step, "state": "succeeded", "seconds": self.seconds}
            self.store.write_json(result_uri(self.store, *_of(task, step)), result)
            self.tell(task, {"type": "step", "step": step, "state": "succeeded", "seconds": self.seconds})
            return {"Output": "f" * 64}

        return play

    def fails(self, step: str, **error: Any) -> Play:
        """STEP fails with the record of an error."""

        def play(task: StepTask) -> Mapping[str, Any]:
            self.tell(task, {"type": "step", "step": step, "state": "running"})
            self.store.write_json(step_uri(self.store, *_of(task, step), "error.json"), error)
            self.tell(task, {"type": "step", "step": step, "state": "failed", "seconds": 0.1, "why": error["message"]})
            raise Failed(1)

        return play

    def trying(self, *, failing: int, quiet: Callable[[], None], **error: Any) -> Play:
        """The train step whose training fails FAILING times, each told by its own driver; the operator has it done
        again while QUIET lasts."""

        def play(task: StepTask) -> Mapping[str, Any]:
            self.tell(task, {"type": "step", "step": "train", "state": "running"})
            for number in range(1, failing + 1):
                attempt = f"{task.inputs['attempt']}.{number}"
                where = step_uri(self.store, run_of_task(task), "train", attempt, "error.json")
                self.store.write_json(where, error)
                self.tell(task, {"type": "step", "step": "train", "state": "failed"}, attempt)
            quiet()
            return self.well("train")(task) or {}

        return play

    def refuses(self) -> Play:
        """The gate refuses the model."""
        gate = {"passed": False, "checks": [{"check": "accuracy >= 0.99", "value": 0.98, "passed": False}]}
        fails = self.fails("register", type="GateRefused", code="gate-refused", message="refused", action="train")

        def play(task: StepTask) -> Mapping[str, Any]:
            note = {"attempt": task.inputs["attempt"], "gate": gate, "model": None}
            write_note(self.store, run_of_task(task), "gate", note)
            return fails(task) or {}

        return play

    def waits(self, step: str) -> Play:
        """STEP goes on until its pod is told to end."""

        def play(task: StepTask) -> Mapping[str, Any]:
            self.tell(task, {"type": "step", "step": step, "state": "running"})
            task.stop.wait()
            raise Lost

        return play

    def waits_for(self, ready: threading.Event, step: str) -> Play:
        """STEP ends well, but not before READY is set."""

        def play(task: StepTask) -> Mapping[str, Any]:
            self.tell(task, {"type": "step", "step": step, "state": "running"})
            while not ready.wait(0.02):
                if task.stop.is_set():
                    raise Lost
            return self.well(step)(task) or {}

        return play

    def tell(self, task: StepTask, event: Mapping[str, Any], attempt: str = "") -> None:
        """Add an event to those of TASK, or of its ATTEMPT at a training."""
        uri = events_uri(self.store, run_of_task(task), task.name, attempt or str(task.inputs["attempt"]))
        before = self.store.read_bytes(uri) or b""
        line = json.dumps({"time": round(time.time(), 3), **event})
        self.store.write_bytes(uri, before + line.encode() + b"\n")

    def _work(self, task: StepTask) -> None:
        if task.stop.wait(self.seconds):
            raise Lost


def run_of_task(task: StepTask) -> str:
    """The run that TASK is of, as the components find it out."""
    return run_of(*(str(task.inputs[name]) for name in ("run_id", "request", "job_id")))


def _of(task: StepTask, step: str) -> tuple[str, str, str]:
    return run_of_task(task), step, str(task.inputs["attempt"])
