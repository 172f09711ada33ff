"""What a run's events come to, as values: what the live table shows and which lines a pipe gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.cli.output import number, seconds

STEPS = ("split", "train", "register", "deploy")
ENDED = {"succeeded", "cached", "failed", "skipped"}


@dataclass
class StepView:
    """One row of the table."""

    name: str
    state: str = "pending"
    started: float | None = None  # seconds since 1970
    seconds: float | None = None
    text: str = ""
    waiting: bool = False

    def elapsed(self, now: float) -> float | None:
        """How long it took, or takes so far."""
        if self.seconds is not None or self.started is None:
            return self.seconds
        return max(0.0, now - self.started) if self.state == "running" else None


@dataclass
class RunView:
    """A run as its events tell it, from the first on."""

    steps: dict[str, StepView] = field(default_factory=lambda: {name: StepView(name) for name in STEPS})
    epoch: int | None = None
    epochs: int | None = None
    share: float = 0.0  # of all epochs, 0..1
    phase: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    metrics_epoch: int | None = None
    note: str = ""  # the last word of no step in particular
    findings: list[str] = field(default_factory=list)  # what should still be seen when the run is over

    def take(self, event: Mapping[str, Any]) -> str | None:
        """Take in one event; the line that a pipe gets for it, if any."""
        handler = getattr(self, f"_take_{event['type']}", None)
        line = None if handler is None else handler(event)
        return None if line is None else str(line)

    def _step(self, event: Mapping[str, Any]) -> StepView:
        name = str(event.get("step") or "")
        return self.steps.setdefault(name, StepView(name))

    def _take_attempt(self, event: Mapping[str, Any]) -> str | None:
        attempt = event.get("attempt")
        for step in self.steps.values():
            step.state, step.started, step.seconds, step.text, step.waiting = "pending", None, None, "", False
        self.phase = ""
        self.findings.clear()
        return None if str(attempt).split(".")[0] in {"0", "1"} else f"attempt {attempt}"

    def _take_step(self, event: Mapping[str, Any]) -> str:
        step = self._step(event)
        step.state, step.waiting = str(event.get("state")), False
        step.text = str(event.get("why") or "")
        self.note = ""
        if step.state == "running":
            step.started = float(event.get("time") or 0.0)
            return f"{step.name}: running"
        took = event.get("seconds")
        step.seconds = None if took is None else float(took)
        return "  ".join(part for part in (f"{step.name}: {step.state}", seconds(step.seconds), step.text) if part)

    def _take_message(self, event: Mapping[str, Any], *, waiting: bool = False) -> str:
        text = str(event.get("text") or "")
        if not event.get("step"):
            self.note = text
            return text
        step = self._step(event)
        step.text, step.waiting = text, waiting
        return f"{step.name}: {text}"

    def _take_finding(self, event: Mapping[str, Any]) -> str:
        self.findings.append(str(event.get("text") or ""))
        return f"{self._step(event).name}: {self.findings[-1]}"

    def _take_waiting(self, event: Mapping[str, Any]) -> str:
        return self._take_message(event, waiting=True)

    def _take_progress(self, event: Mapping[str, Any]) -> str | None:
        phase, before = str(event.get("phase") or ""), self.phase
        self.phase = phase
        step = self._step(event)
        step.text, step.waiting = phase, False
        epoch, epochs = event.get("epoch"), event.get("epochs")
        if epoch is None or not epochs:
            return f"{step.name}: {phase}" if phase != before else None
        self.epoch, self.epochs = int(epoch), int(epochs)
        batch, batches = event.get("batch"), event.get("batches")
        part = float(batch) / float(batches) if batch is not None and batches else 0.0
        self.share = min(1.0, (max(0, self.epoch - 1) + part) / self.epochs)
        return None

    def _take_metrics(self, event: Mapping[str, Any]) -> str:
        self.metrics = chief({name: float(value) for name, value in (event.get("metrics") or {}).items()})
        self.metrics_epoch = event.get("epoch")
        values = "  ".join(f"{name} {number(value)}" for name, value in self.metrics.items())
        of = f"/{self.epochs}" if self.epochs else ""
        return f"{self._step(event).name}: epoch {self.metrics_epoch}{of}  {values}"


def chief(metrics: Mapping[str, float]) -> dict[str, float]:
    """The few METRICS of an epoch that fit into a line: both losses, and validation's first of each task."""
    losses = [name for name in ("train.loss", "validation.loss") if name in metrics]
    others = [name for name in metrics if name.startswith("validation.") and name not in losses]
    firsts = {name.rpartition(".")[0]: name for name in reversed(others)}
    shown = [*losses, *(name for name in others if name in firsts.values())] or list(metrics)
    return {name: metrics[name] for name in shown}
