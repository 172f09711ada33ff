"""The life of one run, in a thread: its states and tasks as the real backend showed them, with its beats scaled.

PENDING, soon RUNNING, long before a pod runs; a driver before each step, and the controller's interval between two
looks; a step's pod; an end. A terminated run goes through CANCELING and ends FAILED. A missing image never ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kfp_stand_in.documents import Node, Pipeline
from kfp_stand_in.script import Failed, Lost, StepTask
from kfp_stand_in.tasks import Tasks
from kfp_stand_in.walk import Walk
from kfp_stand_in.world import Record, World, now

OVER = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"})


class Ended(Exception):
    """The run was terminated."""


class Life:
    """One run, RECORD as the API shows it."""

    def __init__(self, world: World, record: Record, pipeline: Pipeline, arguments: Mapping[str, Any]) -> None:
        self.world = world
        self.record = record
        self.pipeline = pipeline
        self.arguments = arguments
        self.tasks = Tasks(record)
        self._terminated = threading.Event()
        self._task: StepTask | None = None
        self._thread = threading.Thread(target=self._live, name=f"run-{record['run_id']}", daemon=True)
        self._state("PENDING")

    def begin(self) -> None:
        """Let it run."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether it ended within SECONDS."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def terminate(self) -> bool:
        """Ask it to end; False where it has ended or was asked before."""
        with self.world.lock:
            if self.record["state"] in OVER or self._terminated.is_set():
                return False
            self._state("CANCELING")
            self._terminated.set()
            if self._task is not None:
                self._task.stop.set()
            return True

    def lose_pod(self) -> None:
        """Take the running step's pod away, as a drained node does."""
        assert self._task is not None
        self._task.stop.set()

    def _state(self, state: str) -> None:
        with self.world.lock:
            self.record["state"] = state
            self.record["state_history"].append({"update_time": now(), "state": state})
            if state in OVER:
                self.record["finished_at"] = now()

    def _live(self) -> None:
        try:
            self._pause("pending")
            with self._unless_terminated():
                self._state("RUNNING")
            self.tasks.begin(self.record["display_name"])
            self._pause("driver")  # the root's
            Walk(self.pipeline, self.record["run_id"], self._execute, self._skip).go(self.arguments)
            self._pause("requeue")
            state = "SUCCEEDED"
        except (Ended, Failed, Lost):
            state = "FAILED"
        except Exception:
            self._state("FAILED")
            raise
        try:
            with self._unless_terminated():
                self._end(state)
        except Ended:
            time.sleep(self.world.beats.seconds("terminate"))
            self._end("FAILED")

    def _end(self, state: str) -> None:
        self.tasks.end(state)
        self._state(state)

    def _pause(self, name: str) -> None:
        if self._terminated.wait(self.world.beats.seconds(name)):
            raise Ended

    @contextmanager
    def _unless_terminated(self) -> Iterator[None]:
        """Nobody terminates the run during the block; Ended is raised where somebody has."""
        with self.world.lock:
            if self._terminated.is_set():
                raise Ended
            yield

    def _skip(self, name: str) -> None:
        self.tasks.skip(name)

    def _execute(self, name: str, component: Node, values: Mapping[str, Any]) -> Mapping[str, Any]:
        self._pause("requeue")
        with self.tasks.driver(name):
            self._pause("driver")
        policy = self._policy(name)
        began, tries = time.monotonic(), 0
        while True:
            try:
                with self.tasks.step(name, tries):
                    return self._try(name, component, values, tries)
            except (Failed, Lost) as failure:
                tries += 1
                if self._terminated.is_set() or not self._again(failure, policy, tries, time.monotonic() - began):
                    raise
                self._pause("requeue")

    def _policy(self, name: str) -> Node:
        for component in (self.pipeline.spec["root"], *self.pipeline.spec["components"].values()):
            task = component.get("dag", {}).get("tasks", {}).get(name)
            if task is not None:
                found: Node = task.get("retryPolicy", {})
                return found
        return {}

    def _again(self, failure: Exception, policy: Node, tries: int, spent: float) -> bool:
        """Whether Argo tries again: by its policy only a lost pod as shipped, and within the budget since the first."""
        retried = isinstance(failure, Lost) or self.world.retry_policy == "Always"
        budget = float(str(policy.get("backoffMaxDuration", "0s")).rstrip("s"))
        return retried and tries <= int(policy.get("maxRetryCount", 0)) and spent < budget

    def _try(self, name: str, component: Node, values: Mapping[str, Any], tries: int) -> Mapping[str, Any]:
        label = component["executorLabel"]
        container = self.pipeline.executor(label)
        if container.get("image") in self.world.missing_images:
            self.tasks.waits(name, tries)
            self._terminated.wait()
            raise Ended
        self._pause("pod")
        task = StepTask(
            run_id=self.record["run_id"],
            name=name,
            inputs=values,
            container=container,
            outputs=component.get("outputDefinitions", {}),
            environment=environment(self.world, self.pipeline.kubernetes(label)),
            retry=tries,
        )
        with self._unless_terminated():  # else the task would never hear of it
            self._task = task
        try:
            return self.world.work.run(task)
        finally:
            self._task = None


def environment(world: World, config: Node) -> dict[str, str]:
    """The variables that CONFIG asks for, of what is in the workspace; what is not there is left out if optional."""
    found: dict[str, str] = {}
    for wanted in config.get("configMapAsEnv", ()):
        data = world.config_maps.get(wanted["configMapName"])
        pairs = [(pair["configMapKey"], pair["envVar"]) for pair in wanted["keyToEnv"]]
        found |= _taken(data, pairs, wanted)
    for wanted in config.get("secretAsEnv", ()):
        data = world.secrets.get(wanted["secretName"])
        pairs = [(pair["secretKey"], pair["envVar"]) for pair in wanted["keyToEnv"]]
        found |= _taken(data, pairs, wanted)
    return found


def _taken(data: Mapping[str, str] | None, pairs: list[tuple[str, str]], wanted: Node) -> dict[str, str]:
    missing = data is None or any(key not in data for key, _ in pairs)
    if missing and not wanted.get("optional"):
        raise Failed("CreateContainerConfigError")
    return {variable: data[key] for key, variable in pairs if data is not None and key in data}
