"""Runs on this machine: to make one, start its runner, look at it from outside, end it, and go on with it.

A run belongs to its runner process, never to the command that started it: everything here reads files and sends
signals, so any number of commands may look on, and killing one changes nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.base import events, ids
from headrace.base.errors import Cancelled, HeadraceError, MissingExtra, RunFailed
from headrace.base.home import home
from headrace.base.locks import LockHeld, file_lock
from headrace.base.processes import ProcessRef, end_session
from headrace.local.records import build_record, error_entry, state_of
from headrace.local.run_files import RunFiles
from headrace.local.supervisor import GRACE_SECONDS
from headrace.store import Store

if TYPE_CHECKING:
    from headrace.spec import RunSpec

RUNNER = "headrace_pipelines.runner"
START_SECONDS = 30.0  # for a runner to write its name; until then a run counts as queued
POLL_SECONDS = 0.05  # between looks at the events: what a follower lags behind
_started: list[subprocess.Popen[bytes]] = []  # kept, as Python complains of a child that nobody waits for

GIT_SECONDS = 5.0  # a folder on a slow disk must not hold up a run for the sake of a tag


def create_run(spec: RunSpec, *, no_cache: bool = False, spec_file: str | os.PathLike[str] | None = None) -> str:
    """Make a run of SPEC, not started yet; returns its id.

    Args:
        no_cache: look nothing up; what this run makes is remembered all the same.
        spec_file: where SPEC was read from; its folder's git commit is kept with the model.

    Raises:
        MissingExtra: nothing on this machine could carry it out.
    """
    _require_pipelines()
    run_id = ids.new_run_id(spec.name)
    path = None if spec_file is None else Path(spec_file).absolute()
    RunFiles.of(run_id).write_run(
        {
            "run_id": run_id,
            "name": spec.name,
            "target": "local",
            "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "headrace": version("headrace"),
            "store": Store().url,
            "spec": spec.to_record(),
            "spec_file": None if path is None else str(path),
            "git": git_state(path.parent) if path is not None else None,
            "no_cache": no_cache,
        }
    )
    return run_id


def git_state(folder: Path) -> dict[str, Any] | None:
    """`{"commit", "dirty"}` of the repository that FOLDER is in, or None."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=GIT_SECONDS,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def start_runner(run_id: str) -> ProcessRef:
    """Start the run's runner, in a session of its own, its output in the run's log."""
    files = RunFiles.of(run_id)
    run = files.read_run()
    _require_pipelines()  # a resumed run may meet another installation than it was made with
    environment = {
        **os.environ,
        "HEADRACE_HOME": str(home()),
        "HEADRACE_STORE": run["store"],
        events.VARIABLE: str(files.events),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # no file of the working directory hides a module
    }
    with open(files.log, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", RUNNER, run_id],
            cwd=files.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )
    _started.append(process)
    runner = ProcessRef.of(process.pid)
    if runner is None:
        raise RunFailed(
            "the runner ended at once", action=f"look at {files.log}", code="runner-lost", log=str(files.log)
        )
    files.write_runner(runner)
    return runner


def _require_pipelines() -> None:
    from importlib.util import find_spec

    if find_spec("kfp") is None:
        raise MissingExtra("all", "running a spec on this machine")


class LocalRun:
    """One run of this machine, seen from outside. Raises InvalidInput where there is none of that id."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.files = RunFiles.of(run_id)
        self.request = self.files.read_run()

    @property
    def folder(self) -> Path:
        """Where its process side lies."""
        return self.files.folder

    def running(self) -> bool:
        """Whether its runner lives, or has just been started."""
        runner = self.files.read_runner()
        return runner is not None and runner.alive()

    def _young(self) -> bool:
        age = time.time() - datetime.fromisoformat(self.request["created"]).timestamp()
        return self.files.read_runner() is None and age < START_SECONDS

    def status(self) -> dict[str, Any]:
        """The run's record as the command line prints it. Never waits."""
        live = self.running()
        ended = self.files.read_result()  # after looking for life: the runner's last act is to write it
        if ended is not None:
            return ended[0]
        if live or self._young():
            return self._record("running" if self._begun() else "queued")
        return self._record("failed", self._lost())

    def exit_code(self) -> int | None:
        """The exit code that the run ended with; None while it goes on."""
        live = self.running()
        ended = self.files.read_result()
        if ended is not None:
            return ended[1]
        return None if live or self._young() else self._lost().exit_code

    def _begun(self) -> bool:
        try:
            return self.files.events.stat().st_size > 0
        except FileNotFoundError:
            return False

    def _lost(self) -> HeadraceError:
        return RunFailed(
            "the run's runner process is gone: killed, or the machine was restarted",
            action=f"`headrace resume {self.run_id}` goes on where it was",
            code="runner-lost",
        )

    def _record(self, state: str, error: HeadraceError | None = None) -> dict[str, Any]:
        entry = None if error is None else error_entry(error, None, self.files.log)
        spec, store = self.request["spec"], Store(self.request["store"])
        return build_record(self.run_id, spec, self.files.events, store, state=state, error=entry)

    def follow(self) -> Iterator[Mapping[str, Any]]:
        """Its events from the first on, as they come, until it has ended; then `status` tells how."""
        rest, position = b"", 0
        while True:
            over = self.exit_code() is not None  # looked at before reading: nothing comes after the end
            with suppress(FileNotFoundError), open(self.files.events, "rb") as file:
                file.seek(position)
                rest += file.read()
                position = file.tell()
            *lines, rest = rest.split(b"\n")
            for line in lines:
                event = events.parse(line.decode("utf-8", "replace"))
                if event is not None:
                    yield event
            if over:
                return
            time.sleep(POLL_SECONDS)

    def cancel(self) -> dict[str, Any]:
        """End the run cleanly and wait for that; returns its record. One that has ended stays as it is."""
        runner = self.files.read_runner()
        if runner is not None and runner.send(signal.SIGINT) and not runner.wait(GRACE_SECONDS + 15.0):
            end_session(runner, grace_seconds=2.0)
        if self.files.read_result() is None:
            with taken_over(self.files):
                error = Cancelled(
                    f"run {self.run_id} was cancelled", action=f"`headrace resume {self.run_id}` goes on with it"
                )
                self.files.write_result(self._record(state_of(error), error), error.exit_code)
        return self.status()

    def resume(self) -> bool:
        """Go on with the run: nothing is done where its runner lives, else a new attempt begins.

        Returns whether a new runner was started. A run that succeeded is not started again.
        """
        live = self.running()
        ended = self.files.read_result()
        if (live and ended is None) or (ended is not None and ended[1] == 0):
            return False
        try:
            with taken_over(self.files):
                self.files.forget_result()
                start_runner(self.run_id)
        except LockHeld:
            return False
        return True


@contextmanager
def taken_over(files: RunFiles, *, timeout_seconds: float = 5.0) -> Iterator[None]:
    """Hold the run's lock for the length of the block, what an earlier runner left behind having been ended.

    Raises:
        LockHeld: a runner holds it.
    """
    earlier = files.read_runner()
    if earlier is not None and files.read_result() is not None:
        earlier.wait(timeout_seconds)  # it has said its last word and is leaving
    with file_lock(files.lock, holder=f"process {os.getpid()}", timeout_seconds=timeout_seconds):
        present = files.read_runner()
        if present is not None and present != ProcessRef.current():
            if present.alive():  # another command was quicker
                raise LockHeld(f"process {present.pid}")
            end_session(present)
        yield


def list_runs() -> list[LocalRun]:
    """Every run of this machine, newest first."""
    found = []
    for folder in (home() / "runs").glob("*/run.json"):
        with suppress(HeadraceError):
            found.append(LocalRun(folder.parent.name))
    return sorted(found, key=lambda run: (run.request["created"], run.run_id), reverse=True)
