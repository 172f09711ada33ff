"""What the four steps have in common: who they act for, how they tell what they do, and how they end.

A step's body is one function of a `Step`; `run_step` is what a component calls. It writes `result.json` or `error.json`
last, and turns every end without a result into a non-zero exit: Ray's signal handler, for one, leaves with exit code 0.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TypeVar

from headrace.base import events
from headrace.base.errors import Cancelled, HeadraceError, RunFailed, Unavailable
from headrace.base.home import SITE_VARIABLE
from headrace.base.jsonfile import canonical
from headrace.store import Store
from headrace.store.run_events import told_in_store
from headrace.store.step_files import forget_error, is_cancelled, read_note, result_uri, step_uri

if TYPE_CHECKING:
    from headrace.api.site import Site

AT_RUN = "at-run"  # the value of a parameter that the step finds out by itself (scheduled runs)
LOST_EXIT_CODE = 70  # of a step that ended without a word (EX_SOFTWARE)

Done = TypeVar("Done")


class Artifact(Protocol):
    """An output artifact of Kubeflow."""

    path: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a step did: `values` are its facts, `why` says for people why it was cached or had nothing to do."""

    values: Mapping[str, Any]
    state: Literal["succeeded", "cached"] = "succeeded"
    why: str = ""


@dataclass(frozen=True)
class Step:
    """One step of one attempt of a run.

    `attempt` is what every write carries: the run's own and the training's, as "2.1" on a laptop. A step on a cluster
    acts for the run's alone, "2": the training makes attempts of its own meanwhile.
    """

    name: str
    run_id: str
    attempt: str
    store: Store = field(default_factory=Store)

    def check(self) -> None:
        """Raise Superseded if a newer attempt owns the run."""
        self.store.check_attempt(self.run_id, self.attempt)

    def check_wanted(self) -> None:
        """Raise Superseded or Cancelled where nobody wants this attempt any more."""
        self.check()
        if is_cancelled(self.store, self.run_id, self.attempt):
            raise Cancelled(
                f"attempt {self.attempt} of run {self.run_id} was cancelled",
                action=f"`headrace resume {self.run_id}` goes on with it",
            )

    def ends_by_wish(self) -> bool:
        """Whether a step that is being ended was cancelled, and not only moved; a store that is away does not tell."""
        with suppress(Unavailable):
            return is_cancelled(self.store, self.run_id, self.attempt)
        return False

    def message(self, text: str) -> None:
        """Tell people what it is doing."""
        events.emit("message", step=self.name, text=text)

    def finding(self, text: str) -> None:
        """Tell people what they should still see when the run is over; the log has it too."""
        events.emit("finding", step=self.name, text=text)
        print(text, flush=True)

    def waiting(self, names: Sequence[str]) -> None:
        """Tell people for whom it waits."""
        events.emit("waiting", step=self.name, text=f"waiting for {', '.join(names)}")

    def recall(self, key: str) -> dict[str, Any] | None:
        """What this step gave for KEY, or None; a run that was told to look nothing up knows only what it made."""
        found = self.store.recall(self.name, key)
        if found is not None and not self.uses_cache and found.get("run_id") != self.run_id:
            return None
        return found

    def remember(self, key: str, values: Mapping[str, Any]) -> None:
        """Record what this step gave for KEY."""
        self.check()
        self.store.remember(self.name, key, {**values, "run_id": self.run_id})

    @property
    def uses_cache(self) -> bool:
        """Whether the run may take what other runs made."""
        options = read_note(self.store, self.run_id, "options") or {}
        return bool(options.get("cache", True))

    def part(self, uri: str) -> dict[str, Any]:
        """The part of the spec that this step reads. Raises RunFailed where it is gone."""
        found = self.store.read_json(uri)
        if not isinstance(found, dict):
            raise RunFailed(f"{uri} is not in the store", action="run the spec again", code="store-incomplete")
        return found


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal to end wait until the block is through: for writes that only make sense together."""
    waiting: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _: waiting.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting:
            signal.raise_signal(waiting[0])


def describe(artifact: Artifact | None, uri: str, **metadata: Any) -> None:
    """Say in Kubeflow's artifact where the store has the real thing; nothing reads through it."""
    if artifact is None:
        return
    artifact.metadata.update({"uri": uri, **{key: value for key, value in metadata.items() if value is not None}})
    with open(artifact.path, "w", encoding="utf-8") as file:
        file.write(canonical({"uri": uri}))


def run_step(name: str, run_id: str, attempt: str, body: Callable[[Step], Outcome]) -> dict[str, Any]:
    """Do BODY as the step NAME and leave word of how it ended.

    Returns what `result.json` holds. Any other end leaves the process with the error's exit code.
    """
    step = Step(name, run_id, _acting(attempt))
    ended = _refuse_silence()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # kfp logs at INFO; a line a request tells nobody anything
    signal.signal(signal.SIGTERM, _interrupt)
    with told_in_store(step.store, step.run_id, name, step.attempt):
        return _carry_out(step, body, ended)


def uri_of(result: Mapping[str, Any], store: Store | None = None) -> str:
    """The URI of RESULT, which `run_step` returned."""
    return result_uri(store or Store(), result["run_id"], result["step"], result["attempt"])


def _acting(attempt: str) -> str:
    """The attempt that the step writes with, of the run's ATTEMPT."""
    return attempt if "." in attempt or on_cluster() else f"{attempt}.1"


def on_cluster() -> bool:
    """Whether this process is a step in a cluster."""
    return bool(os.environ.get(SITE_VARIABLE))


def site_here() -> Site | None:
    """The site that this step is at; None on a laptop. Raises SpecInvalid where it cannot be read."""
    if not on_cluster():
        return None
    from headrace.api.site import read_site  # pydantic, which a laptop's steps can do without

    return read_site()


def _carry_out(step: Step, body: Callable[[Step], Outcome], ended: list[bool]) -> dict[str, Any]:
    began = time.monotonic()
    events.emit("step", step=step.name, state="running")
    try:
        _patiently(step, lambda: _begin(step))
        outcome = _patiently(step, lambda: body(step))
        result = _result(step, outcome, time.monotonic() - began)
        _patiently(step, lambda: _conclude(step, result))
    except BaseException as error:
        ended.append(True)
        _fail(step, error, time.monotonic() - began)
    ended.append(True)
    events.emit("step", step=step.name, state=outcome.state, seconds=result["seconds"], why=outcome.why)
    return result


def _patiently(step: Step, do: Callable[[], Done]) -> Done:
    """What DO gives; on a cluster, where nobody sees to it, a service that is away is waited for."""
    if not on_cluster():
        return do()
    from headrace.steps.patience import patiently

    return patiently(do, step.message)


def _conclude(step: Step, result: Mapping[str, Any]) -> None:
    step.check()
    step.store.write_json(uri_of(result, step.store), result)


def _begin(step: Step) -> None:
    """Take the run over from its earlier attempts, and this attempt from a pod that was lost.

    A laptop's runner has done that already.
    """
    step.check()
    if on_cluster():
        step.store.claim_attempt(step.run_id, step.attempt)
        forget_error(step.store, step.run_id, step.name, step.attempt)


def _result(step: Step, outcome: Outcome, seconds: float) -> dict[str, Any]:
    return {
        **outcome.values,
        "step": step.name,
        "run_id": step.run_id,
        "attempt": step.attempt,
        "state": outcome.state,
        "why": outcome.why,
        "seconds": round(seconds, 3),
    }


def _refuse_silence() -> list[bool]:
    """Make the process's exit a failure unless the returned list has been filled by then."""
    ended: list[bool] = []

    def judge() -> None:
        if not ended:
            sys.stderr.write("the step ended without a result\n")
            sys.stderr.flush()
            os._exit(LOST_EXIT_CODE)

    atexit.register(judge)
    return ended


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _fail(step: Step, error: BaseException, seconds: float) -> NoReturn:
    failure = as_error(step, error)
    traceback.print_exception(error)
    sys.stderr.flush()
    where = step_uri(step.store, step.run_id, step.name, step.attempt, "error.json")
    try:
        step.store.write_json(where, failure.to_record())
    except HeadraceError as lost:  # mostly the very failure that is to be told: then log and exit code must do
        print(f"{where} is not written: {lost.message}", file=sys.stderr, flush=True)
    events.emit("step", step=step.name, state="failed", seconds=round(seconds, 3), why=failure.message)
    raise SystemExit(failure.exit_code) from error


def as_error(step: Step, error: BaseException) -> HeadraceError:
    """ERROR as one of our own: what was not raised on purpose is a failure whose traceback stands in the log."""
    if isinstance(error, HeadraceError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled(f"step {step.name} was told to end", action=f"`headrace resume {step.run_id}` goes on with it")
    if isinstance(error, SystemExit):
        return RunFailed(
            f"step {step.name} was left in the middle (exit code {error.code})",
            action=f"`headrace resume {step.run_id}` goes on where it was",
            code="step-lost",
        )
    return RunFailed(
        f"step {step.name} failed: {type(error).__name__}: {error}".splitlines()[0],
        action="the log has the traceback; if it is not your model or data, please report it",
        code="step-failed",
    )
