"""Conditions as Kubernetes' API conventions have them: one of each type, stamped when its status changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

Truth = Literal["True", "False", "Unknown"]
_LONGEST_MESSAGE = 32768


def rfc3339(moment: datetime) -> str:
    """MOMENT as the API server writes times: whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """The inverse of `rfc3339`; fractions of a second are understood too."""
    return datetime.fromisoformat(text)


def condition(
    previous: Iterable[Mapping[str, Any]],
    type_: str,
    status: Truth,
    reason: str,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> dict[str, Any]:
    """The condition TYPE_; its time is PREVIOUS' one where the status is the same."""
    before = find(previous, type_)
    same = before is not None and before.get("status") == status
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message[:_LONGEST_MESSAGE],
        "lastTransitionTime": before["lastTransitionTime"] if same and before is not None else rfc3339(now),
        "observedGeneration": generation,
    }


def find(conditions: Iterable[Mapping[str, Any]], type_: str) -> Mapping[str, Any] | None:
    """The condition of TYPE_."""
    return next((entry for entry in conditions if entry["type"] == type_), None)
