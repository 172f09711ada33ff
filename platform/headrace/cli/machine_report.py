"""What the commands on this machine say to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headrace.cli.output import size, table

if TYPE_CHECKING:
    from headrace.steps.doctor import Check
    from headrace.steps.gc import Findings

MARKS = {"ok": "ok", "note": "note", "missing": "MISSING", "broken": "BROKEN"}


def render_up(record: Mapping[str, Any]) -> str:
    """What runs now."""
    head = record["head"]
    told = [f"ray head  {head['address']}  {head['cpus']} CPUs, {head['gpus']} GPUs"]
    told.append(f"mlflow    {record['mlflow']['tracking_uri']}")
    for endpoint in record["endpoints"]:
        error = f": {endpoint['error']}" if endpoint["error"] else ""
        told.append(f"endpoint  {endpoint['url']}  version {endpoint['version']}  {endpoint['state']}{error}")
    return "\n".join(told)


def render_down(record: Mapping[str, Any]) -> str:
    """What was stopped."""
    names = {"head": "the Ray head", "ui": "MLflow's UI", "tracking": "the tracking service"}
    stopped = [f"run {run}" for run in record["runs"]] + [name for key, name in names.items() if record[key]]
    return f"stopped: {', '.join(stopped)}" if stopped else "nothing of Headrace was running"


def render_doctor(checks: Sequence[Check]) -> str:
    """Every check, each lack with the command that mends it."""
    width = max(len(check.name) for check in checks)
    told = []
    for check in checks:
        told.append(f"{MARKS[check.state]:8}{check.name.ljust(width)}  {check.detail}")
        if check.mend:
            told.append(f"{' ' * (width + 10)}do: {check.mend}")
    return "\n".join(told)


def render_garbage(found: Findings, *, removed: bool) -> str:
    """What can go, or went."""
    told = []
    if found.garbage:
        rows = [(item.kind, size(item.bytes), item.why, item.path) for item in found.garbage]
        told += [table(("kind", "size", "why", "path"), rows), ""]
    told += [f"left out: {reason}" for reason in found.left_out]
    if not found.garbage:
        told.append("nothing to remove")
    elif removed:
        told.append(f"removed {size(found.bytes)}")
    else:
        told.append(f"{size(found.bytes)} could go: headrace gc --yes")
    return "\n".join(told)
