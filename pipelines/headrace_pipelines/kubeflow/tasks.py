"""What Kubeflow says of a run, as values that can be trusted.

Its list of tasks is none: it has `train`, `train(0)`, `train-driver`, `executor`, `root`, the workflow's own name and
entries with no name at all, and what has not ended yet ended in the year 1. A run that was terminated is called FAILED;
that somebody terminated it stands in the history of its states.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headrace.store.step_files import STEPS

RUNNING = frozenset({"PENDING", "RUNNING", "CANCELING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED", ""})
FIRST_YEAR = 1971  # what is older was never
_NAME = re.compile(r"(?P<step>[a-z]+)(?P<driver>-driver)?(\(\d+\))?")


@dataclass(frozen=True)
class Span:
    """When something ran, in seconds since 1970; None for what is not known or not over."""

    state: str = ""
    began: float | None = None
    ended: float | None = None

    @property
    def seconds(self) -> float:
        """How long it took; 0 while that is not known."""
        return 0.0 if self.began is None or self.ended is None else max(0.0, self.ended - self.began)


@dataclass(frozen=True)
class Seen:
    """A run as Kubeflow shows it: itself, its steps, and the drivers that Kubeflow runs before them.

    `cancelled`: it has ended because somebody ended it. `since`: when it came to its state, in seconds since 1970.
    """

    state: str
    since: float | None
    cancelled: bool
    whole: Span
    steps: Mapping[str, Span]
    drivers: Mapping[str, Span]

    @property
    def over(self) -> bool:
        """Whether it has ended, in whichever way."""
        return self.state not in RUNNING

    def began(self, step: str) -> float | None:
        """When Kubeflow first did anything for STEP; None where that is not known."""
        spans = (self.drivers.get(step), self.steps.get(step))
        return min((span.began for span in spans if span is not None and span.began is not None), default=None)


def read_run(run: Mapping[str, Any]) -> Seen:
    """The RUN of Kubeflow's answer."""
    entries = run.get("state_history") or ()
    history = [str(entry.get("state") or "") for entry in entries]
    state = str(run.get("state") or "")
    details = (run.get("run_details") or {}).get("task_details") or ()
    return Seen(
        state=state,
        since=moment(entries[-1].get("update_time")) if entries else None,
        cancelled=state == "CANCELED" or (state == "FAILED" and "CANCELING" in history),
        whole=Span(state, moment(run.get("created_at")), moment(run.get("finished_at"))),
        steps=_spans(details, driver=False),
        drivers=_spans(details, driver=True),
    )


def _spans(details: Iterable[Mapping[str, Any]], *, driver: bool) -> dict[str, Span]:
    found: dict[str, Span] = {}
    for entry in details:
        match = _NAME.fullmatch(str(entry.get("display_name") or ""))
        if match is None or match["step"] not in STEPS or (match["driver"] is not None) is not driver:
            continue
        span = Span(
            str(entry.get("state") or ""),
            moment(entry.get("start_time")) or moment(entry.get("create_time")),
            moment(entry.get("end_time")),
        )
        known = found.get(match["step"])
        found[match["step"]] = span if known is None else _joined(known, span)
    return found


def _joined(one: Span, other: Span) -> Span:
    """Two entries of one step, a retried one's say: from the first one's begin; the state of the later one."""
    begins = [span.began for span in (one, other) if span.began is not None]
    later = max((one, other), key=lambda span: (span.began or 0.0, span.ended is None, span.ended or 0.0))
    return Span(later.state or one.state or other.state, min(begins, default=None), later.ended)


def moment(value: Any) -> float | None:
    """A time of Kubeflow's in seconds since 1970; None for one that was never."""
    if not value:
        return None
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found.timestamp() if found.year >= FIRST_YEAR else None
