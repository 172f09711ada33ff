"""The split step: data to a manifest, unless the same data was split in the same way before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.steps.keys import split_key
from headrace.steps.step import AT_RUN, Artifact, Outcome, Step, describe, run_step
from headrace.store import Store

MARKER = "split.json"  # a split's folder is whole once it is there


def split(split_spec: str, run_id: str, attempt: str, source_fingerprint: str, dataset: Artifact | None = None) -> str:
    """Split the data that the part at SPLIT_SPEC names; returns the split's fingerprint.

    Args:
        split_spec: URI of the canonical JSON.
        source_fingerprint: of the source's listing when the run started; "at-run": list it now.
        dataset: Kubeflow's output artifact.
    """

    def body(step: Step) -> Outcome:
        outcome = split_once(step, split_spec, source_fingerprint)
        describe(dataset, outcome.values["uri"], fingerprint=outcome.values["fingerprint"])
        return outcome

    return str(run_step("split", run_id, attempt, body)["fingerprint"])


def split_once(step: Step, split_spec: str, source_fingerprint: str) -> Outcome:
    """The step's body."""
    part = step.part(split_spec)
    if source_fingerprint == AT_RUN:
        from headrace.data import fingerprint_source

        source_fingerprint = fingerprint_source(part)
    key = split_key(part, source_fingerprint)
    known = step.recall(key)
    if known is not None and is_whole(step.store, known):
        tell_findings(step, known["summary"])
        return Outcome(known, "cached", "the same data was split in this way before")
    from headrace.data import split_data

    found = split_data(part, store=step.store, source_fingerprint=source_fingerprint, tell=step.message)
    values: dict[str, Any] = {"fingerprint": found.fingerprint, "uri": found.uri, "summary": dict(found.summary)}
    step.remember(key, values)
    tell_findings(step, values["summary"])
    return Outcome(values)


def tell_findings(step: Step, summary: Mapping[str, Any]) -> None:
    """Name what was left out, dropped or ignored, also where the split is an old one: the data still has it."""
    from headrace.data import findings_of

    for finding in findings_of(summary):
        step.finding(str(finding))


def is_whole(store: Store, known: dict[str, object]) -> bool:
    """Whether the split that the cache knows is still there."""
    return store.exists(f"{known.get('uri')}/{MARKER}")
