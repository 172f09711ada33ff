"""How a run stands or ended, of what Kubeflow says and what its steps said: a function of values.

Kubeflow's API never says why a run failed, and calls a cancelled one FAILED; a step's own word is in the store. Where
a step left none, it was ended from outside, and only its pod can tell (`reasons`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.base.errors import Cancelled, HeadraceError, RunFailed, error_from_record
from headrace_pipelines.kubeflow.tasks import Seen

RUN_LOST = "run-lost"
RESUME = "`headrace resume {run_id}` goes on where it was"


@dataclass(frozen=True)
class Words:
    """What the steps of one attempt said: the run's steps in order, who ended well, and who failed with which error."""

    steps: Sequence[str]
    results: Mapping[str, Mapping[str, Any]]
    errors: Mapping[str, Mapping[str, Any]]

    @property
    def silent(self) -> str | None:
        """The first step without a result."""
        return next((step for step in self.steps if step not in self.results), None)


@dataclass(frozen=True)
class Verdict:
    """`state` as records have it. `error` and `step` say why and where it failed; `unexplained`: its pod may know."""

    state: str
    error: HeadraceError | None = None
    step: str | None = None
    unexplained: bool = False

    @property
    def exit_code(self) -> int | None:
        """Of a command that waited for it; None while it goes on."""
        if self.error is not None:
            return self.error.exit_code
        return 0 if self.state == "succeeded" else None


def judge(run_id: str, seen: Seen, words: Words) -> Verdict:
    """The verdict on a run that Kubeflow knows."""
    if not seen.over:
        return Verdict("queued" if seen.state in {"PENDING", ""} and not words.results else "running")
    step = words.silent
    if step is None:  # also where it was told to end when the last step had just done its part
        return Verdict("succeeded")
    if seen.cancelled:
        return Verdict("cancelled", cancellation(run_id), step)
    if step in words.errors:
        return _failed(error_from_record(words.errors[step]), step)
    if seen.state == "SUCCEEDED":
        return _failed(_nothing_in_store(run_id, step), step)
    error = RunFailed(
        f"step {step} ended without a word: was its pod killed?",
        action=RESUME.format(run_id=run_id),
        code="step-lost",
    )
    return Verdict("failed", error, step, unexplained=True)


def judge_unknown(run_id: str, host: str, words: Words) -> Verdict:
    """The verdict on a run that Kubeflow does not know, or no more: its steps' words are all there is."""
    step = words.silent
    if step is None:
        return Verdict("succeeded")
    if step in words.errors:
        return _failed(error_from_record(words.errors[step]), step)
    error = RunFailed(
        f"Kubeflow at {host} does not know the run: deleted there, or never sent",
        action=RESUME.format(run_id=run_id),
        code=RUN_LOST,
    )
    return Verdict("failed", error, step)


def cancellation(run_id: str) -> Cancelled:
    """The error of a run that somebody ended."""
    return Cancelled(f"run {run_id} was cancelled", action=f"`headrace resume {run_id}` goes on with it")


def _failed(error: HeadraceError, step: str) -> Verdict:
    from headrace.local.records import state_of

    return Verdict(state_of(error), error, step)


def _nothing_in_store(run_id: str, step: str) -> RunFailed:
    return RunFailed(
        f"Kubeflow says that the run succeeded, but step {step} left no result in the store",
        action="compare the target's store with HEADRACE_STORE of the ConfigMap headrace-site; then headrace resume "
        + run_id,
        code="result-missing",
    )
