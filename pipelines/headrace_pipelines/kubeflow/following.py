"""Following a run on a cluster: the events of its steps as they come, Kubeflow's part in words, and a deadline.

Kubeflow waits for ever for an image that cannot be pulled; whoever follows does not. After the target's
start_deadline_seconds without a word of the next step the run is ended, and why stands in its record.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from headrace.base.errors import HeadraceError, RunFailed
from headrace.store.run_events import EventReader
from headrace_pipelines.kubeflow.absence import Absence
from headrace_pipelines.kubeflow.tasks import Seen
from headrace_pipelines.kubeflow.watch import Event, Watch

if TYPE_CHECKING:
    from headrace_pipelines.kubeflow.run import ClusterRun

POLL_SECONDS = 1.5  # between looks at Kubeflow and the store
QUIET_SECONDS = 20.0  # of a step that does not start, or was lost and started anew, until the pods are looked at
PODS_SECONDS = 15.0  # between looks at them


class Follower:
    """Somebody who follows RUN."""

    def __init__(self, run: ClusterRun) -> None:
        self._run = run
        self._watch = Watch(run.steps, run.began())
        self._reader = EventReader(run.cluster.store, run.run_id, run.step_attempt)
        self._absence = Absence()
        self._looked = 0.0
        self._trouble = ""

    def events(self) -> Iterator[Event]:
        """What is told, until the run has ended."""
        yield {"type": "attempt", "attempt": self._run.attempt, "time": self._run.began()}
        while True:
            try:
                # looked at before reading: nothing comes after the end, and a known one needs no Kubeflow
                over = self._run.ended() is not None
                seen = None if over else self._run.seen(patience_seconds=0.0)
                over = over or (seen.over if seen is not None else not self._run.is_being_sent())
                told = [*self._absence.over(), *self._new_events(), *self._kubeflow(seen, over)]
            except HeadraceError as error:
                over, told = False, self._absence.met(error)
            yield from told
            if over:
                return
            time.sleep(POLL_SECONDS)

    def _new_events(self) -> list[Event]:
        new = self._reader.new()
        for event in new:
            self._watch.take(event)
        return new

    def _kubeflow(self, seen: Seen | None, over: bool) -> list[Event]:
        """What Kubeflow is at, and what keeps the next step from starting."""
        if seen is None or over:
            return []
        self._watch.take_kubeflow(seen)
        now = time.time()
        awaited, step = self._watch.awaited_seconds(now), self._watch.next_step
        if awaited > self._run.start_deadline_seconds:
            self._run.give_up(not_started(self._run, awaited, step), step)
            return []
        told = self._watch.kubeflow(seen)
        if self._watch.quiet_seconds(now) > QUIET_SECONDS and now - self._looked > PODS_SECONDS:
            self._looked = now
            told += self._why(step)
        return told

    def _why(self, step: str | None) -> list[Event]:
        text = self._run.why_waiting() or ""
        if text == self._trouble:
            return []
        self._trouble = text
        return [{"type": "waiting", "step": step, "text": text}] if text else []


def overdue(run: ClusterRun, seen: Seen | None) -> str | None:
    """That the next step of RUN has not started for longer than it may, in words; None while all is well."""
    if seen is None or seen.over:
        return None
    watch = Watch(run.steps, run.began())
    for event in run.events():
        watch.take(event)
    watch.take_kubeflow(seen)
    awaited = watch.awaited_seconds(time.time())
    return None if awaited <= run.start_deadline_seconds else not_started(run, awaited, watch.next_step).message


def not_started(run: ClusterRun, awaited: float, step: str | None) -> RunFailed:
    """The error of a run whose next STEP has not started for AWAITED seconds."""
    target, why = run.cluster.target, run.why_waiting()
    known = why or "Kubeflow does not say why; it is often an image that cannot be pulled"
    action = f"check image {target.image} of the target, and that there is room for the pod"
    if why is None and target.kubeconfig is None:
        action += "; with a kubeconfig in the target headrace looks at the pod itself"
    return RunFailed(
        f"step {step} has not started for {awaited:.0f} s, and {run.start_deadline_seconds} are allowed: {known}",
        action=f"{action}; then headrace resume {run.run_id}",
        code="step-not-started",
    )
