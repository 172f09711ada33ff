"""A run's steps, played: a function for each that does what the step would do, in the test's own words."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class StepTask:
    """One try of one step.

    retry: 0 for the first.
    stop: set when the pod is told to end.
    """

    run_id: str
    name: str
    inputs: Mapping[str, Any]
    container: Mapping[str, Any]
    outputs: Mapping[str, Any]
    environment: Mapping[str, str]
    retry: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


class Failed(Exception):
    """The program ended with an exit code other than 0."""


class Lost(Exception):
    """The pod was taken away under the program: what Argo calls Error."""


class Work(Protocol):
    """How steps are carried out."""

    def run(self, task: StepTask) -> Mapping[str, Any]:
        """Do TASK; its output parameters. Raises Failed or Lost."""


Play = Callable[[StepTask], Mapping[str, Any] | None]


class Script:
    """Steps by name; one that is not named succeeds at once with an output of its name."""

    def __init__(self, **plays: Play) -> None:
        self.plays = dict(plays)
        self.done: list[StepTask] = []

    def run(self, task: StepTask) -> Mapping[str, Any]:
        """Play TASK."""
        self.done.append(task)
        play = self.plays.get(task.name)
        return (None if play is None else play(task)) or {"Output": task.name}
