"""Waiting for a service that is away, inside a step on a cluster.

There a failed program is the end of a run (Kubeflow tries lost pods again, not failed programs), and MLflow, its
database or the store may be restarted at any time. So a step's whole body is done again for some minutes, and takes
from the store and the cluster what it did already; nothing inside it waits, but the API server's transport for that. On
a laptop the person who sees the error is nearer than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from headrace.base.errors import Unavailable

PATIENCE_SECONDS = 300.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 30.0
LONG_TRIES = 3  # in a row, each failing after all its work: no outage, or the try right after it would fail at once
HOPELESS = ("store-refused", "store-no-bucket")  # only a person mends these

Result = TypeVar("Result")


def patiently(
    do: Callable[[], Result],
    tell: Callable[[str], None],
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """What DO gives, which is done again while a service is away. Everything that DO does may be done twice.

    A try that lasts longer than PATIENCE_SECONDS has found all services there, since each call gives up sooner: what it
    fails with is another outage, with as much patience. LONG_TRIES of them in a row are given up: the services are
    there, and DO meets the same again whenever it is done.

    Raises:
        Unavailable: it stayed away for PATIENCE_SECONDS, or LONG_TRIES came to it; one that was waited for already, or
            that is HOPELESS, at once.
    """
    began, pause, long_tries = None, FIRST_PAUSE_SECONDS, 0
    while True:
        tried = now()
        try:
            return do()
        except Unavailable as error:
            was_long = now() - tried > PATIENCE_SECONDS
            long_tries = long_tries + 1 if was_long else 0
            if began is None or was_long:
                began, pause = now(), FIRST_PAUSE_SECONDS
            if error.waited_for or error.code in HOPELESS or long_tries == LONG_TRIES:
                raise
            if now() + pause - began > PATIENCE_SECONDS:
                raise
            tell(f"{error.message}; trying again in {pause:.0f} s")
        sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
