"""What `headrace backup` and `restore` say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.cli.output import seconds, size

if TYPE_CHECKING:
    from headrace.steps.restore import Plan


def render_backup(record: Mapping[str, Any]) -> str:
    """A backup that was made."""
    lines = [
        f"{record['uri']}: {_counted(record['counts'])}",
        f"{size(record['bytes'])} in files, of which {size(record['new_bytes'])} are new; {seconds(record['seconds'])}",
    ]
    if record.get("verified"):
        lines.append(f"verified: {record['verified']['files']:,} files, {size(record['verified']['bytes'])}")
    if record["removed"]:
        lines.append(f"removed: {', '.join(record['removed'])}")
    return "\n".join([*lines, *(f"note: {note}" for note in record["notes"])])


def render_plan(plan: Plan) -> str:
    """A restore that would be possible."""
    notes = [f"note: {note}" for note in plan.manifest.notes]
    return "\n".join([*plan.lines(), *notes, "nothing was changed"])


def render_restore(record: Mapping[str, Any], *, local: bool) -> str:
    """What was restored, and what a person does next."""
    lines = [f"restored {record['uri']}: {_counted(record['restored'])}"]
    lines += [f"not restored: {what}" for what in record["left_out"]]
    lines += [f"note: {note}" for note in record["notes"]]
    for name in record["waiting"]:
        namespace, _, run = name.partition("/")
        words = f'kubectl patch trainingrun {run} -n {namespace} --type merge -p \'{{"spec":{{"suspend":false}}}}\''
        lines.append(f"{name} was under way and stands suspended; it goes on by: {words}")
    return "\n".join([*lines, "next: headrace up, which brings the endpoints back"] if local else lines)


def _counted(counts: Mapping[str, int]) -> str:
    told = [size(count) if word == "bytes" else f"{count:,} {word}" for word, count in counts.items()]
    return ", ".join(told) or "nothing"
