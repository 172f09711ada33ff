"""Rules as values: what is recorded, what alerts, and the YAML that Prometheus reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any, Literal

Severity = Literal["critical", "warning", "info"]
Source = Literal["operator", "ray", "backup"]
RUNBOOKS = "docs/runbooks"  # where the chart's value `monitoring.rules.runbooks` points, unless it is set


@dataclass(frozen=True)
class Record:
    """A recording rule."""

    name: str
    expression: str

    def to_rule(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {"record": self.name, "expr": expression(self.expression)}


@dataclass(frozen=True)
class Alert:
    """An alerting rule.

    Args:
        name: also the name of its runbook.
        severity: critical wakes somebody, warning waits for the morning, info is there to be read.
        expression: in PromQL.
        hold: how long it must be true (`for`).
        summary: one line, without values that change.
        description: what is so, with the values, and the first command.
        labels: besides the severity.
    """

    name: str
    severity: Severity
    expression: str
    hold: str
    summary: str
    description: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_rule(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": expression(self.expression),
            "for": self.hold,
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": " ".join(dedent(self.description).split()),
                "runbook_url": f"{RUNBOOKS}/{self.name}.md",
            },
        }


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated one after the other.

    Args:
        name: of the group.
        needs: what must be there, or its alerts fire for ever or never: the operator's metrics, those of Ray's pods,
            backups. An installation without it gets no such group.
        rules: of it.
        interval: between two evaluations.
    """

    name: str
    needs: frozenset[Source]
    rules: tuple[Record | Alert, ...]
    interval: str = "30s"

    def to_record(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {"name": self.name, "interval": self.interval, "rules": [rule.to_rule() for rule in self.rules]}


def expression(text: str) -> str:
    """PromQL without the code's indentation."""
    return dedent(text).strip()
