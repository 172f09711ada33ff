"""Locks between processes of one machine that a killed holder cannot leave behind.

`flock` on a file: the kernel releases it with the process. The file also says who holds it, so that a waiter can tell
a person for whom it waits.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.base.errors import HeadraceError


class LockHeld(HeadraceError):
    """The lock is held by someone else, and waiting was not asked for or took too long."""

    code = "lock-held"

    def __init__(self, holder: str) -> None:
        super().__init__(f"held by {holder}", action="wait until it ends, or cancel it")
        self.holder = holder


@contextmanager
def file_lock(
    path: str | os.PathLike[str],
    *,
    holder: str,
    timeout_seconds: float | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold the lock PATH for the length of the block.

    Args:
        path: the lock file, created if need be and never removed.
        holder: what others are told while they wait ("run digits-k3v7q2ma").
        timeout_seconds: None waits for ever, 0 does not wait.
        on_wait: called once with the present holder's name when there is one.

    Raises:
        LockHeld: the time is over and someone else still holds it.
    """
    target = Path(path)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    with open(target, "a+", encoding="utf-8") as file:
        told: str | None = None
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                present = lock_holder(target) or "another process"
                if deadline is not None and time.monotonic() >= deadline:
                    raise LockHeld(present) from None
                if on_wait is not None and present != told:
                    told = present
                    on_wait(present)
                time.sleep(0.1)
        file.seek(0)
        file.truncate()
        json.dump({"holder": holder, "pid": os.getpid()}, file)
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()
            file.flush()


def lock_holder(path: str | os.PathLike[str]) -> str | None:
    """Who wrote its name into the lock file last (informational: only `file_lock` knows whether it is held)."""
    try:
        return str(json.loads(Path(path).read_text(encoding="utf-8"))["holder"])
    except (OSError, ValueError, KeyError):
        return None
