"""One run on a cluster, seen from outside: any machine that has the target can look on, end it, or go on with it.

A run belongs to Kubeflow, never to the command that sent it. What is known of it comes from two places that may each be
away for a while, Kubeflow's API and the store; whoever sees its end first writes it down there for all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from headrace.base.errors import HeadraceError, InvalidInput
from headrace.local.records import absent_steps, assemble, error_entry
from headrace.store.run_events import EventReader
from headrace.store.step_files import STEPS, ask_to_cancel
from headrace_pipelines.kubeflow import following, reasons
from headrace_pipelines.kubeflow.beats import beats
from headrace_pipelines.kubeflow.cluster import Cluster
from headrace_pipelines.kubeflow.submission import (
    claim,
    ended_uri,
    kubeflow_id,
    read_request,
    send,
    sent_attempts,
    sent_uri,
)
from headrace_pipelines.kubeflow.tasks import Seen, read_run
from headrace_pipelines.kubeflow.verdict import RUN_LOST, Verdict, Words, cancellation, judge, judge_unknown
from headrace_pipelines.kubeflow.watch import Event
from headrace_pipelines.kubeflow.words import step_states, words_of

SENDING_SECONDS = 60.0  # for a sender to tell Kubeflow what it has claimed; a dead one never does
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
            if verdict.error is None or verdict.error.code != RUN_LOST:  # which another target may know better
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
        """The run as Kubeflow shows it; None where it does not know it."""
        if self._identity is None:
            self._identity = kubeflow_id(self.cluster, self.run_id, self.attempt)
        if self._identity is None:
            return None
        found = self.cluster.kubeflow.run(self._identity, patience_seconds=patience_seconds)
        return None if found is None else read_run(found)

    def _verdict(self, seen: Seen | None) -> Verdict:
        words = self._words()
        if seen is None:
            host = self.cluster.kubeflow.host
            return Verdict("queued") if self.is_being_sent() else judge_unknown(self.run_id, host, words)
        verdict = judge(self.run_id, seen, words)
        if not verdict.unexplained:
            return verdict
        assert verdict.error is not None
        assert verdict.step is not None
        assert self._identity is not None
        error: HeadraceError = verdict.error
        with suppress(HeadraceError):  # pods that cannot be looked at: what is known is told
            error = reasons.explained(self.cluster, self._identity, verdict.step, error)
        return Verdict(verdict.state, error, verdict.step)

    def is_being_sent(self) -> bool:
        """Whether somebody claimed the attempt just now, to send it."""
        sent = self._sent()
        return sent is not None and time.time() - sent < SENDING_SECONDS

    def began(self) -> float:
        """When the attempt was sent, in seconds since 1970."""
        return self._sent() or datetime.fromisoformat(self.request["created"]).timestamp()

    def _sent(self) -> float | None:
        found = self.cluster.store.read_json(sent_uri(self.cluster.store, self.run_id, self.attempt))
        return datetime.fromisoformat(found["at"]).timestamp() if isinstance(found, dict) else None

    # its record

    @property
    def steps(self) -> list[str]:
        """The steps that it has, in order."""
        absent = absent_steps(self.request["spec"])
        return [step for step in STEPS if step not in absent]

    @property
    def _attempts(self) -> tuple[str, str]:
        """This attempt as steps write it: on a cluster, and where they run as on a laptop."""
        return (str(self.attempt), f"{self.attempt}.1")

    def _words(self) -> Words:
        return words_of(self.cluster.store, self.run_id, self.steps, self._attempts)

    def _record(self, verdict: Verdict, seen: Seen | None) -> dict[str, Any]:
        words, entry = self._words(), None
        if verdict.error is not None:
            entry = error_entry(verdict.error, verdict.step, f"headrace logs {self.run_id}")
        steps = step_states(words, self.events(), absent_steps(self.request["spec"]))
        record = assemble(self.run_id, self.cluster.store, self._attempts, steps, state=verdict.state, error=entry)
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
        return EventReader(self.cluster.store, self.run_id, str(self.attempt)).new()

    def logs(self) -> Iterator[str]:
        """What its pods printed, as far as that can be had from here."""
        self.seen()
        if self._identity is not None:
            yield from reasons.logs(self.cluster, self._identity)

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
        """End the run cleanly and wait for that; returns its record. One that has ended stays as it is."""
        if self.ended() is not None:
            return self.status()
        ask_to_cancel(self.cluster.store, self.run_id, str(self.attempt))
        seen = self.seen()
        if seen is None or self._identity is None:
            error = cancellation(self.run_id)
            self._write_end(self._record(Verdict("cancelled", error), None), error.exit_code)
            return self.status()
        if not seen.over:
            self.cluster.kubeflow.terminate(self._identity)
        deadline = time.monotonic() + CANCEL_SECONDS
        while seen is not None and not seen.over and time.monotonic() < deadline:
            time.sleep(following.POLL_SECONDS)
            seen = self.seen()
        return self.status()

    def give_up(self, error: HeadraceError, step: str | None) -> None:
        """End the run, which failed with ERROR as far as Headrace is concerned."""
        assert self._identity is not None
        self._write_end(self._record(Verdict("failed", error, step), self.seen()), error.exit_code)
        ask_to_cancel(self.cluster.store, self.run_id, str(self.attempt))
        self.cluster.kubeflow.terminate(self._identity)

    def resume(self) -> bool:
        """Go on with the run: nothing is done while it goes on or where it succeeded, else a new attempt is sent.

        Returns whether this call sent one.
        """
        if self.exit_code() in {None, 0}:
            return False
        self.attempt, self._identity = self.attempt + 1, None
        mine = claim(self.cluster.store, self.run_id, self.attempt)
        if mine:
            self._identity = send(self.cluster, self.run_id, self.attempt)
        return mine


def list_runs(cluster: Cluster) -> list[ClusterRun]:
    """Every run in the target's store, newest first."""
    found = []
    for name in cluster.store.names(cluster.store.uri("runs")):
        with suppress(InvalidInput):  # a run of a laptop that uses the same store
            found.append(ClusterRun(name, cluster))
    return sorted(found, key=lambda run: (run.request["created"], run.run_id), reverse=True)
