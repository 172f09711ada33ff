"""One run on a cluster, seen from outside: any machine that has the target can look on, end it, or go on with it.

A run belongs to Kubeflow, never to the command that sent it. What is known of it comes from two places that may each be
away for a while, Kubeflow's API and the store; whoever sees its end first writes it down there for all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headrace.base.errors import HeadraceError, InvalidInput, Unavailable, error_from_record
from headrace.local.records import absent_steps, assemble, error_entry
from headrace.store.run_events import EventReader
from headrace.store.step_files import STEPS, ask_to_cancel
from headrace_pipelines.kubeflow import following, reasons
from headrace_pipelines.kubeflow.beats import beats
from headrace_pipelines.kubeflow.cluster import Cluster
from headrace_pipelines.kubeflow.submission import (
    UNKNOWN_RUN,
    claim,
    ended_uri,
    given_up_uri,
    kubeflow_id,
    read_request,
    send,
    sent_attempts,
    sent_uri,
    write_down,
)
from headrace_pipelines.kubeflow.tasks import Seen, read_run
from headrace_pipelines.kubeflow.verdict import RUN_LOST, Verdict, Words, cancellation, judge, judge_unknown
from headrace_pipelines.kubeflow.watch import Event
from headrace_pipelines.kubeflow.words import step_states, words_of

if TYPE_CHECKING:
    from headrace.spec import RunSpec

SENDING_SECONDS = 60.0  # for a sender to tell Kubeflow what it has claimed; a dead one never does
NOT_ENDED_YET = "not-ended-yet"
CANCEL_SECONDS = 120.0  # Kubeflow takes 2 to 3


class ClusterRun:
    """One run of a target. Raises InvalidInput where its store knows none of that id."""

    def __init__(self, run_id: str, cluster: Cluster) -> None:
        self.run_id = run_id
        self.cluster = cluster
        self.request = read_request(cluster.store, run_id)
        self.attempt = sent_attempts(cluster.store, run_id)[-1]
        self._identity: str | None = None

    # how it stands

    def status(self) -> dict[str, Any]:
        """The run's record as the command line prints it."""
        return self._look()[0]

    def exit_code(self) -> int | None:
        """The exit code that the run ended with; None while it goes on."""
        return self._look()[1]

    def _look(self) -> tuple[dict[str, Any], int | None]:
        ended = self.ended()
        if ended is not None:
            return ended
        seen = self.seen()
        verdict = self._verdict(seen)
        record = self._record(verdict, seen)
        if verdict.exit_code is not None:
            if verdict.error is None or verdict.error.code != RUN_LOST:  # a slow sender may still send it
                self._write_end(record, verdict.exit_code)
        elif (late := following.overdue(self, seen)) is not None:
            action = f"headrace cancel {self.run_id}"
            record["findings"] = [{"where": "kubeflow", "given": late, "allowed": "", "action": action}]
        return record, verdict.exit_code

    def ended(self) -> tuple[dict[str, Any], int] | None:
        """Its record and its exit code, if somebody saw its end."""
        found = self.cluster.store.read_json(ended_uri(self.cluster.store, self.run_id, self.attempt))
        return (found["record"], int(found["exit_code"])) if isinstance(found, dict) else None

    def _write_end(self, record: Mapping[str, Any], exit_code: int) -> None:
        uri = ended_uri(self.cluster.store, self.run_id, self.attempt)
        self.cluster.store.create_json(uri, {"record": dict(record), "exit_code": exit_code})

    def seen(self, patience_seconds: float | None = None) -> Seen | None:
        """The run as Kubeflow shows it; None where it does not know it.

        Raises:
            InvalidInput: it does not know it, and the run was sent to another Kubeflow.
        """
        identity = self._kubeflow_id()
        found = None if identity is None else self.cluster.kubeflow.run(identity, patience_seconds=patience_seconds)
        if found is None and not self.is_at_home:
            raise self._elsewhere()
        return None if found is None else read_run(found)

    def _kubeflow_id(self) -> str | None:
        if self._identity is None:
            self._identity = kubeflow_id(self.cluster, self.run_id, self.attempt)
        return self._identity

    @property
    def is_at_home(self) -> bool:
        """Whether the target names the very Kubeflow that it was sent to; one Kubeflow can have two addresses."""
        return self._sent_to() == self.cluster.address

    def _elsewhere(self) -> InvalidInput:
        there = self._sent_to()
        space = f", namespace {there['namespace']}" if there["namespace"] else ""
        return InvalidInput(
            f"Kubeflow at {self.cluster.kubeflow.host} does not know run {self.run_id}, "
            f"which was sent to {there['host']}{space}",
            action=f"name the target that has this address: headrace status {self.run_id} --on TARGET",
            code="wrong-target",
        )

    def _verdict(self, seen: Seen | None) -> Verdict:
        words = self._words()
        if seen is None:
            host = self.cluster.kubeflow.host
            return Verdict("queued") if self.is_being_sent() else judge_unknown(self.run_id, host, words)
        verdict = judge(self.run_id, seen, words)
        if verdict.state == "cancelled" and (given_up := self._given_up(verdict.step)) is not None:
            return Verdict("failed", given_up, verdict.step)
        if not verdict.unexplained:
            return verdict
        assert verdict.error is not None
        assert verdict.step is not None
        assert self._identity is not None
        since = seen.began(verdict.step)
        error = reasons.explained(self.cluster, self._identity, verdict.step, verdict.error, since=since)
        return Verdict(verdict.state, error, verdict.step)

    def _given_up(self, step: str | None) -> HeadraceError | None:
        """Why a follower ended the run as STEP did not start, though Kubeflow has it as cancelled."""
        note = self.cluster.store.read_json(given_up_uri(self.cluster.store, self.run_id, self.attempt)) or {}
        return error_from_record(note["error"]) if note and note["step"] == step else None

    def is_being_sent(self) -> bool:
        """Whether somebody claimed the attempt just now, to send it."""
        at = self._sent().get("at")
        return at is not None and time.time() - datetime.fromisoformat(at).timestamp() < SENDING_SECONDS

    def began(self) -> float:
        """When the attempt was sent, in seconds since 1970."""
        return datetime.fromisoformat(self._sent().get("at") or self.request["created"]).timestamp()

    def _sent(self) -> Mapping[str, Any]:
        """What its sender left; nothing of a run that Kubeflow itself sent, by its clock."""
        return self.cluster.store.read_json(sent_uri(self.cluster.store, self.run_id, self.attempt)) or {}

    def _sent_to(self) -> Mapping[str, Any]:
        """The address of the Kubeflow that it was sent to."""
        return (self._sent() or self.request)["kubeflow"]  # type: ignore[no-any-return]

    # its record

    @property
    def steps(self) -> list[str]:
        """The steps that it has, in order."""
        absent = absent_steps(self.request["spec"])
        return [step for step in STEPS if step not in absent]

    @property
    def step_attempt(self) -> str:
        """What the steps' writes carry; a training's own tries, "1.2", are not the step's word."""
        return str(self.attempt)

    def _words(self) -> Words:
        return words_of(self.cluster.store, self.run_id, self.steps, self.step_attempt)

    def _record(self, verdict: Verdict, seen: Seen | None) -> dict[str, Any]:
        words, entry = self._words(), None
        if verdict.error is not None:
            entry = error_entry(verdict.error, verdict.step, f"headrace logs {self.run_id}")
        steps = step_states(words, self.events(), absent_steps(self.request["spec"]))
        record = assemble(self.run_id, self.cluster.store, self.step_attempt, steps, state=verdict.state, error=entry)
        where = {"target": self.cluster.name, "host": self.cluster.kubeflow.host, "run_id": self._identity}
        took = {step: float(result.get("seconds") or 0.0) for step, result in words.results.items()}
        spent = {} if seen is None else beats(seen, took)
        return {**record, "kubeflow": {**where, "attempt": self.attempt, **spent}}

    # what it tells

    def follow(self) -> Iterator[Event]:
        """What its steps and Kubeflow tell, from the first on, until it has ended; then `status` tells how.

        Raises:
            Unavailable: Kubeflow or the store is away for longer than one would wait; the run goes on.
        """
        return following.Follower(self).events()

    def events(self) -> list[Event]:
        """What its steps have told so far."""
        return EventReader(self.cluster.store, self.run_id, self.step_attempt).new()

    def logs(self, tell: Callable[[str], None]) -> Iterator[str]:
        """What its pods printed, as far as that can be had from here; TELL is given why the rest cannot."""
        try:
            identity = self._kubeflow_id()
        except HeadraceError as error:
            tell(error.message)
        else:
            yield from () if identity is None else reasons.logs(self.cluster, identity, tell)

    def why_waiting(self) -> str | None:
        """What keeps its pods from starting, in words; None where nothing is known."""
        try:
            return None if self._identity is None else reasons.why_waiting(self.cluster, self._identity)
        except HeadraceError as error:
            return error.message

    @property
    def start_deadline_seconds(self) -> int:
        """How long a step may take to start."""
        return self.cluster.target.kubeflow.start_deadline_seconds

    # acting

    def cancel(self) -> dict[str, Any]:
        """End the run cleanly and wait for that; returns its record. One that has ended stays as it is.

        Raises:
            Unavailable: Kubeflow was told, and has not ended it yet; or it is away, and only the steps know.
        """
        if self.ended() is not None:
            return self.status()
        if not self.is_at_home:
            self.seen()  # before anything is said of a run that is elsewhere
        # before Kubeflow is asked: steps see it without Kubeflow, and whoever sends the run finds it after having sent
        ask_to_cancel(self.cluster.store, self.run_id, str(self.attempt))
        try:
            return self._end()
        except Unavailable as away:
            if away.code == NOT_ENDED_YET:
                raise
            raise Unavailable(
                f"{away.message}; Kubeflow was not told to end run {self.run_id}, but its train and deploy steps are",
                action=f"headrace cancel {self.run_id} again once Kubeflow answers",
                code=away.code,
            ) from away

    def _end(self) -> dict[str, Any]:
        seen = self.seen()
        if seen is None or self._identity is None:
            error = cancellation(self.run_id)
            self._write_end(self._record(Verdict("cancelled", error), None), error.exit_code)
            return self.status()
        if not seen.over:
            self.cluster.store.remove(given_up_uri(self.cluster.store, self.run_id, self.attempt))
            self.cluster.kubeflow.terminate(self._identity)
        deadline = time.monotonic() + CANCEL_SECONDS
        while seen is not None and not seen.over:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"Kubeflow was told to end run {self.run_id}, and has not done so for {CANCEL_SECONDS:.0f} s",
                    action=f"headrace status {self.run_id} shows how it goes on",
                    code=NOT_ENDED_YET,
                )
            time.sleep(following.POLL_SECONDS)
            seen = self.seen()
        return self.status()

    def give_up(self, error: HeadraceError, step: str | None) -> None:
        """End the run, which failed with ERROR as far as Headrace is concerned."""
        assert self._identity is not None
        store, record = self.cluster.store, self._record(Verdict("failed", error, step), self.seen())
        note = {"error": error.to_record(), "step": step}
        store.write_json(given_up_uri(store, self.run_id, self.attempt), note)  # lest what follows look like a wish
        self.cluster.kubeflow.terminate(self._identity)  # where this cannot be told, a pod that starts goes on
        ask_to_cancel(store, self.run_id, str(self.attempt))
        self._write_end(record, error.exit_code)

    def resume(self) -> bool:
        """Go on with the run: nothing is done while it goes on or where it succeeded, else a new attempt is sent.

        Returns whether this call sent one.
        """
        if self.exit_code() in {None, 0}:
            return False
        self.attempt, self._identity = self.attempt + 1, None
        return self.send()

    def send(self) -> bool:
        """Send the attempt, unless somebody else does; whether this call sent it.

        Raises:
            Unavailable: Kubeflow is away; it may have heard of the run all the same.
        """
        if not claim(self.cluster, self.run_id, self.attempt):
            return False
        try:
            self._identity = send(self.cluster, self.run_id, self.attempt)
        except Unavailable as lost:
            action = f"headrace status {self.run_id} tells whether it came there; headrace resume sends it again"
            raise Unavailable(lost.message, action=action, code=lost.code) from lost
        except KeyboardInterrupt:  # as when it is followed; Kubeflow may have heard of it
            self.cancel()
        return True


def submit(
    cluster: Cluster, spec: RunSpec, *, no_cache: bool = False, spec_file: str | os.PathLike[str] | None = None
) -> ClusterRun:
    """Send a run of SPEC. Raises what `write_down` and `ClusterRun.send` do."""
    run = ClusterRun(write_down(cluster, spec, no_cache=no_cache, spec_file=spec_file), cluster)
    run.send()
    return run


def runs_of(cluster: Cluster, run_ids: Iterable[str]) -> list[ClusterRun]:
    """Those of RUN_IDS that the target's store knows: others are gone from it, or a laptop's that uses the same one."""
    found = []
    for run_id in run_ids:
        try:
            found.append(ClusterRun(run_id, cluster))
        except InvalidInput as error:
            if error.code != UNKNOWN_RUN:
                raise
    return found


def list_runs(cluster: Cluster) -> list[ClusterRun]:
    """Every run in the target's store, whoever sent it."""
    return runs_of(cluster, cluster.store.names(cluster.store.uri("runs")))
