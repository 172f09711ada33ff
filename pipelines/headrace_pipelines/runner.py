"""The process a local run belongs to: `python -m headrace_pipelines.runner RUN_ID`.

It leads a session of its own and holds the run's lock while it lives; it claims the next attempt, runs the pipeline
with kfp.local, and says how it ended in result.json as its last act. What takes long and does not depend on the data
(the Ray head, the MLflow service) is started while the data is split.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any

from headrace.base import events
from headrace.base.errors import HeadraceError, RunFailed, Unavailable, error_from_record
from headrace.base.locks import LockHeld
from headrace.local import alias_lock
from headrace.local.records import absent_steps, build_record, error_entry, state_of
from headrace.local.run_files import RunFiles
from headrace.local.runs import taken_over
from headrace.local.supervisor import Supervisor
from headrace.store import Store
from headrace.store.step_files import STEPS, read_error, read_result


class Runner:
    """One attempt of one run."""

    def __init__(self, files: RunFiles) -> None:
        self.files = files
        self.request = files.read_run()
        self.store = Store(self.request["store"])
        self.supervisor = Supervisor(files.run_id)
        self.attempt = 0

    @property
    def step_attempt(self) -> str:
        """What the steps' writes carry."""
        return f"{self.attempt}.1"

    def run(self) -> int:
        """Run the attempt; returns the exit code that the run ended with."""
        self.supervisor.listen()
        error: HeadraceError | None = None
        step: str | None = None
        try:
            self._begin()
            arguments = self._prepare()
            error, step = self._run_pipeline(arguments)
        except HeadraceError as raised:
            traceback.print_exc()
            error = raised
        except BaseException as raised:
            traceback.print_exc()
            error = RunFailed(
                f"the runner failed: {type(raised).__name__}: {raised}".splitlines()[0],
                action="the log has the traceback; please report it",
                code="internal",
            )
        return self._finish(error, step)

    def _begin(self) -> None:
        self.files.forget_result()
        self.files.write_runner(self.supervisor.me)
        self.attempt = 1 + int((self.store.current_attempt(self.files.run_id) or "0").split(".")[0])
        self.store.claim_attempt(self.files.run_id, self.step_attempt)
        events.emit("attempt", attempt=self.attempt)
        os.environ[alias_lock.OWNER_VARIABLE] = alias_lock.owner_text(self.supervisor.me)

    def _prepare(self) -> dict[str, str]:
        from headrace import tracking
        from headrace.local.ray_head import find_head
        from headrace.local.resources import check_resources
        from headrace.steps.prepare import prepare
        from headrace.tracking.registry import resolve

        head = find_head()
        check_resources(self.request["spec"], head)
        tracking.prepare()
        if head is None:
            threading.Thread(target=_start_head, name="headrace-start-head", daemon=True).start()
        return prepare(self.request, self.store, str(self.attempt), resolve)

    def _run_pipeline(self, arguments: Mapping[str, str]) -> tuple[HeadraceError | None, str | None]:
        """Run the steps; returns why and where they failed, if they did."""
        self.files.temporary.mkdir(mode=0o700, exist_ok=True)
        os.environ["TMPDIR"] = str(self.files.temporary)  # kfp leaves a folder there for each step
        from kfp import local

        from headrace_pipelines.pipeline import headrace_pipeline

        local.init(
            runner=local.SubprocessRunner(use_venv=False),
            pipeline_root=str(self.files.pipeline_root),
            workspace_root=str(self.files.temporary / "workspace"),
            raise_on_error=True,
        )
        do_each_step_once(headrace_pipeline)
        failed = False
        with self.supervisor.running_steps():
            try:
                headrace_pipeline(**arguments)
            except Exception:
                traceback.print_exc()
                failed = True
        return self._judge(failed)

    def _judge(self, failed: bool) -> tuple[HeadraceError | None, str | None]:
        """What the steps' own words say; kfp only knows that one of them failed."""
        run_id, attempt = self.files.run_id, self.step_attempt
        for step in STEPS:
            if step in absent_steps(self.request["spec"]) or read_result(self.store, run_id, step, attempt) is not None:
                continue
            if self.supervisor.cancelled:
                return self.supervisor.cancellation(), step
            said = read_error(self.store, run_id, step, attempt)
            return (error_from_record(said) if said is not None else self._silent(step)), step
        return (self._silent(None), None) if failed else (None, None)

    def _silent(self, step: str | None) -> RunFailed:
        return RunFailed(
            f"step {step} ended without a word: was it killed?" if step else "kfp failed after the last step",
            action=f"`headrace resume {self.files.run_id}` goes on where it was",
            code="step-lost",
        )

    def _finish(self, error: HeadraceError | None, step: str | None) -> int:
        spec = self.request["spec"]
        self.supervisor.stop_listening()
        self.supervisor.end_children()
        if spec["register"] is not None:
            alias_lock.give_back_alias(spec["register"]["name"], spec["register"]["alias"])
        try:
            record = self._record(error, step, self.store)
        except Unavailable as lost:  # what the steps said cannot be read; why it ended is known all the same
            error = error or lost
            record = self._record(error, step, Store("memory://unreachable"))
        exit_code = 0 if error is None else error.exit_code
        self.files.write_result(record, exit_code)
        return exit_code

    def _record(self, error: HeadraceError | None, step: str | None, store: Store) -> dict[str, Any]:
        entry = None if error is None else error_entry(error, step, self.files.log)
        spec, run_events = self.request["spec"], self.files.events
        return build_record(self.files.run_id, spec, run_events, store, state=state_of(error), error=entry)


def do_each_step_once(pipeline: Any) -> None:
    """Take the steps' retries out of PIPELINE: they are for lost pods, and kfp.local would do again whatever fails."""
    spec = pipeline.pipeline_spec
    for graph in (spec.root.dag, *(part.dag for part in spec.components.values())):
        for task in graph.tasks.values():
            task.ClearField("retry_policy")


def _start_head() -> None:
    """Start the Ray head; whoever needs it and finds none meets the error again, in a step that can tell it."""
    from headrace.local.ray_head import ensure_head

    try:
        ensure_head(lambda text: events.emit("message", step=None, text=text))
    except Exception:
        traceback.print_exc()


def main(arguments: list[str]) -> int:
    """Run the run that the one argument names."""
    files = RunFiles.of(arguments[0])
    try:
        with taken_over(files, timeout_seconds=15.0):
            return Runner(files).run()
    except LockHeld as held:
        print(f"another runner has this run: {held.message}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
