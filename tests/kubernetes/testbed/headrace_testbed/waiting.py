"""Waiting for what a controller does later: one way for all tests, which says what it saw last when time runs out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")


def eventually(look: Callable[[], Seen], seconds: float = 120, pause_seconds: float = 0.1) -> Seen:
    """What LOOK returns once that is true. An AssertionError of its own counts as "not yet".

    SECONDS are what a busy machine may take where nothing is promised: only a test that fails waits for so long.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen: object
        try:
            seen = result = look()
            if result:
                return result
        except AssertionError as error:
            seen = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {seconds:g} s; last seen: {seen!r}")
        time.sleep(pause_seconds)
