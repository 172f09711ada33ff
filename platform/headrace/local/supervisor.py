"""What a runner owes the processes below it: to end them when it is told to, and to leave none behind.

A runner leads a session of its own, and every step lives in it. kfp.local blocks in the running step and hears no
signal, so the steps are told from here; a step that starts in the meantime is told as well.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from headrace.base.errors import Cancelled
from headrace.base.processes import ProcessRef, end_session, session_members

GRACE_SECONDS = 15.0  # for a step to end by itself: Ray Train needs some seconds to give its workers back


class Supervisor:
    """Signals and children of this process, which must lead a session. Main thread only."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.me = ProcessRef.current()
        self.cancelled = False
        self._steps_run = False
        self._ended = threading.Event()

    def listen(self) -> None:
        """From now on SIGINT and SIGTERM cancel the run."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def stop_listening(self) -> None:
        """From now on signals change nothing: what is left to do is to say how the run ended."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def cancellation(self) -> Cancelled:
        """The error of a run that was told to end."""
        return Cancelled(f"run {self.run_id} was cancelled", action=f"`headrace resume {self.run_id}` goes on with it")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.cancelled:
            return
        self.cancelled = True
        if not self._steps_run:
            raise self.cancellation()
        threading.Thread(target=self._end_steps, name="headrace-end-steps", daemon=True).start()

    @contextmanager
    def running_steps(self) -> Iterator[None]:
        """For the block that runs steps: a signal ends them instead of raising here; none outlives the block."""
        if self.cancelled:
            raise self.cancellation()
        self._steps_run = True
        try:
            yield
        finally:
            self._ended.set()  # from here on a signal comes too late
            self.end_children()

    def _end_steps(self) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        told: set[ProcessRef] = set()
        while not self._ended.wait(0.1):
            for member in list(session_members(self.me.pid)):
                if member != self.me and member not in told and self._in_our_group(member):
                    told.add(member)
                    member.send(signal.SIGINT)
            if time.monotonic() > deadline:
                end_session(self.me, grace_seconds=2.0)

    def _in_our_group(self, member: ProcessRef) -> bool:
        """Whether MEMBER would hear a Ctrl-C: a step puts what it wants to end itself into a group of its own."""
        try:
            return os.getpgid(member.pid) == self.me.pid
        except ProcessLookupError:
            return False

    def end_children(self) -> None:
        """End every process of this session but this one."""
        end_session(self.me, grace_seconds=3.0)
