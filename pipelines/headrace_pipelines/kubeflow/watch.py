"""What a follower is told of a run: its steps' own events from the store, and between them what Kubeflow is at.

A step tells from its first second; before that there is only Kubeflow, which says RUNNING long before a pod runs and
PENDING for ever where an image cannot be pulled. So whoever follows measures for how long no step has told anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace_pipelines.kubeflow.tasks import Seen

Event = Mapping[str, Any]
LIVELY = frozenset({"running"})
ENDED = frozenset({"succeeded", "cached", "failed", "skipped"})
RESTING = frozenset({"PENDING", "PAUSED"})  # a run of Kubeflow's that makes no pod: none is late


class Watch:
    """Takes in what is told, and says what Kubeflow should be said to be doing.

    Args:
        steps: the run's steps, in order.
        began: when the attempt was sent, in seconds since 1970.
    """

    def __init__(self, steps: Sequence[str], began: float) -> None:
        self._states: dict[str, str] = dict.fromkeys(steps, "")
        self._quiet_since = began
        self._resting = False
        self._told = ""

    def take(self, event: Event) -> None:
        """Take in what a step told."""
        if event.get("type") == "step" and event.get("step") in self._states:
            self._states[str(event["step"])] = str(event.get("state"))
        self._quiet_since = max(self._quiet_since, float(event.get("time") or 0.0))

    def take_kubeflow(self, seen: Seen) -> None:
        """Take in whether the run rests, and which steps Kubeflow knows to be over: their events may be lost."""
        self._resting = seen.state in RESTING
        self._quiet_since = max(self._quiet_since, seen.since or 0.0)
        for step, span in seen.steps.items():
            if span.state in {"SUCCEEDED", "SKIPPED"} and self._states.get(step, "succeeded") not in ENDED:
                self._states[step] = "succeeded"
                self._quiet_since = max(self._quiet_since, span.ended or 0.0)

    @property
    def next_step(self) -> str | None:
        """The step that should begin: none runs, and this is the first that has not told anything."""
        if any(state in LIVELY for state in self._states.values()):
            return None
        return next((step for step, state in self._states.items() if state not in ENDED), None)

    def quiet_seconds(self, now: float) -> float:
        """For how long nothing has been told, while a pod should be at work or start; 0 while the run rests."""
        return 0.0 if self._resting else max(0.0, now - self._quiet_since)

    def awaited_seconds(self, now: float) -> float:
        """For how long the next step has been awaited; 0 where none is."""
        return self.quiet_seconds(now) if self.next_step is not None else 0.0

    def kubeflow(self, seen: Seen) -> list[Event]:
        """What changed in what Kubeflow is at: one message, or none."""
        self.take_kubeflow(seen)
        text = self._doing(seen)
        if text is None or text == self._told:
            return []
        self._told = text
        return [{"type": "message", "step": self.next_step, "text": text}]

    def _doing(self, seen: Seen) -> str | None:
        if seen.state == "CANCELING":
            return "Kubeflow ends the run"
        if seen.state == "PAUSED":
            return "paused in Kubeflow"
        step = self.next_step
        if step is None:
            return None
        if seen.state == "PENDING":
            return "Kubeflow has not begun yet"
        driver = seen.drivers.get(step)
        if driver is None:
            return f"Kubeflow goes to {step}"
        return f"Kubeflow prepares {step}" if driver.ended is None else f"the pod of {step} starts"
