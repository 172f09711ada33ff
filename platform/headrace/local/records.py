"""What people and programs are told of a run: the one JSON record of the command line, made of what its files say.

Everything is read from files that outlive their writers: the steps' words in the store, the events, the runner's last
act. So the record is right while the run goes on, after it ended, and after anything of it was killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headrace.base import events
from headrace.base.errors import Cancelled, GateRefused, HeadraceError
from headrace.store import Store
from headrace.store.step_files import STEPS, read_note, read_result

SCHEMA_VERSION = 1


def read_events(path: Path) -> Iterator[Mapping[str, Any]]:
    """The events of a run so far, oldest first."""
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                event = events.parse(line)
                if event is not None:
                    yield event
    except FileNotFoundError:
        return


def step_states(path: Path, absent: frozenset[str]) -> list[dict[str, Any]]:
    """What `steps_told` makes of the events in the file PATH."""
    return steps_told(read_events(path), absent)


def steps_told(told: Iterable[Mapping[str, Any]], absent: frozenset[str]) -> list[dict[str, Any]]:
    """`{"name", "state", "seconds"}` of each step in the newest attempt; steps that the spec has not are skipped."""
    found = {name: _untouched(name, absent) for name in STEPS}
    for event in told:
        if event["type"] == "attempt":
            found = {name: _untouched(name, absent) for name in STEPS}
        elif event["type"] == "step" and event.get("step") in found:
            found[event["step"]].update(state=event.get("state"), seconds=event.get("seconds"))
    return list(found.values())


def _untouched(name: str, absent: frozenset[str]) -> dict[str, Any]:
    return {"name": name, "state": "skipped" if name in absent else "pending", "seconds": None}


def absent_steps(spec: Mapping[str, Any]) -> frozenset[str]:
    """The steps that a run of the canonical SPEC does not have."""
    absent = set()
    if not spec["gate"] and spec["register"] is None:
        absent.add("register")
    if spec["deploy"] is None:
        absent.add("deploy")
    return frozenset(absent)


def build_record(
    run_id: str,
    spec: Mapping[str, Any],
    events_path: Path,
    store: Store,
    *,
    state: str,
    error: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of a run of this machine in STATE; ERROR is an error's own record with `step` and `log` beside."""
    attempt = store.current_attempt(run_id) or "0.1"
    steps = step_states(events_path, absent_steps(spec))
    return assemble(run_id, store, attempt, steps, state=state, error=error)


def assemble(
    run_id: str,
    store: Store,
    attempt: str,
    steps: list[dict[str, Any]],
    *,
    state: str,
    error: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of any run in STATE, of what its STEPS said in ATTEMPT."""
    results = {step: read_result(store, run_id, step, attempt) or {} for step in STEPS}
    verdict = _verdict(store, run_id, attempt)
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "state": state,
        "steps": _settled(steps, state),
        "mlflow": results["train"].get("mlflow") or read_note(store, run_id, "mlflow"),
        "model": _model(results) or verdict.get("model"),
        "metrics": results["train"].get("metrics"),
        "gate": results["register"].get("gate") or verdict.get("gate"),
        "endpoint": results["deploy"].get("endpoint"),
        "error": None if error is None else {k: error.get(k) for k in ("code", "step", "message", "action", "log")},
        "findings": list((error or {}).get("findings") or ()) or None,
    }


def _verdict(store: Store, run_id: str, attempt: str) -> Mapping[str, Any]:
    """What this attempt's gate said: known also where the register step then failed, as it does when it refuses."""
    note = read_note(store, run_id, "gate")
    return note if note is not None and note.get("attempt") == attempt else {}


def _model(results: Mapping[str, Mapping[str, Any]]) -> Any:
    return results["deploy"].get("model") or results["register"].get("model")


def _settled(steps: list[dict[str, Any]], state: str) -> list[dict[str, Any]]:
    """Steps as they stand in STATE: in a run that has ended nothing runs, and what a refusal cut off is skipped."""
    for step in steps:
        if state in {"failed", "cancelled", "refused"} and step["state"] == "running":
            step["state"] = "failed"
        if state == "refused" and step["state"] == "pending":
            step["state"] = "skipped"
    return steps


def state_of(error: HeadraceError | None) -> str:
    """The state of a run that ended with ERROR."""
    if error is None:
        return "succeeded"
    if isinstance(error, GateRefused):
        return "refused"
    return "cancelled" if isinstance(error, Cancelled) else "failed"


def error_entry(error: HeadraceError, step: str | None, log: Path | str) -> dict[str, Any]:
    """ERROR as the record has it; the log is the run's own where the error names no better one."""
    record = error.to_record()
    return {**record, "step": step, "log": record["log"] or str(log)}
