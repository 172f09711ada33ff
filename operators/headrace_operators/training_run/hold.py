"""Whether somebody still wants a run to go on: its spec says so, or the step of a pipeline that waits for it.

A step says it in an annotation, which it writes anew while it waits. A step whose pod is killed cannot say whether
another will take its place; the time in the annotation is how long the run goes on without one.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from headrace.api.training_run import HELD_UNTIL
from headrace_operators.runtime.conditions import parse_time
from headrace_operators.training_run.observe import Observed


def rests(seen: Observed, now: datetime) -> str:
    """Why the run is not to go on now; "" if it is."""
    if seen.spec.suspend:
        return "spec.suspend is true"
    until = held_until(seen)
    if until is not None and now >= until:
        return f"the step that waited for it has ended; it goes on when one waits for it again, or without {HELD_UNTIL}"
    return ""


def held_until(seen: Observed) -> datetime | None:
    """When the run is not wanted any more unless the annotation is written anew; None where nothing is said."""
    said = (seen.run["metadata"].get("annotations") or {}).get(HELD_UNTIL)
    with suppress(ValueError):
        moment = parse_time(said) if said else None
        return moment if moment is None or moment.tzinfo is not None else None
    return None


def hold_ends(seen: Observed, now: datetime) -> float | None:
    """Seconds until then; None where that is over, or nothing is said."""
    until = held_until(seen)
    return None if until is None or until <= now else (until - now).total_seconds()
