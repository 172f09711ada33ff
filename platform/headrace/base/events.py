"""What a run tells while it goes on: one JSON line an event, appended by whichever process knows it.

On a laptop HEADRACE_EVENTS names `runs/<id>/events.jsonl`, which the command line follows. On a cluster it names a file
of the pod, which `headrace.store.run_events` puts into the store and the pod's log; where there is no such file, as
in the pods of training workers, events are printed. A line is written by one `write` call to a file opened for
appending, so lines of several processes do not mix, and a reader that was killed starts again at the top.

Types: `step` {step, state, seconds?, why?}; `message` and `waiting` {step, text}; `finding` {step, text}, what a person
should still see when the run is over; `progress` {step, phase, epoch, epochs, batch, batches}; `metrics` {step, epoch,
metrics}; `attempt` {attempt}; `training` {step, phase, text, attempt, failures, epoch, metrics}, where a TrainingRun
stands.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

VARIABLE = "HEADRACE_EVENTS"


def emit(kind: str, **fields: Any) -> None:
    """Append one event. Never raises: telling must not fail what is told of."""
    line = json.dumps({"time": round(time.time(), 3), "type": kind, **fields}, default=str)
    path = os.environ.get(VARIABLE)
    if path and _append(path, line):
        return
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _append(path: str, line: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (line + "\n").encode())
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def parse(line: str) -> Mapping[str, Any] | None:
    """The event in LINE, or None for a half-written or foreign line."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "type" in value else None
