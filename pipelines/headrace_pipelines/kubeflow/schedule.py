"""Runs by the clock: a spec that Kubeflow runs again and again, each time on the data as it then is.

Everything but the data is pinned when it is scheduled: the spec, own code, first weights. The steps find out the rest
when they run, the run's id included (`headrace.steps.scheduled`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headrace.base.errors import InvalidInput
from headrace.steps.first_weights import with_stored_weights
from headrace.steps.prepare import champion_reference, stored_parts
from headrace.steps.step import AT_RUN
from headrace_pipelines.kubeflow.cluster import Cluster
from headrace_pipelines.kubeflow.ir import check_arguments, ir_for
from headrace_pipelines.kubeflow.submission import request_of

if TYPE_CHECKING:
    from headrace.spec import RunSpec

NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_FIELDS = (("second", 0, 59), ("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))
_NAMES = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "weekday": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_WORDS = re.compile(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly)")
_ITEM = re.compile(r"(\*|\?|(?P<low>\d+|[A-Za-z]{3})(-(?P<high>\d+|[A-Za-z]{3}))?)(/(?P<step>\d+))?")


def schedule(
    cluster: Cluster,
    spec: RunSpec,
    cron: str,
    *,
    name: str | None = None,
    spec_file: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Run SPEC on CLUSTER whenever CRON says; the schedule's record.

    Args:
        cron: five fields as crontab has them, or Kubeflow's six with the second first, or @daily and the like. The
            clock is Kubeflow's, which is UTC unless it was set up otherwise.
        name: what the schedule is called; the spec's name by default.

    Raises:
        InvalidInput: CRON or NAME cannot be used, or there is a schedule of that name.
    """
    from headrace.tracking.registry import resolve

    named, when = _checked_name(name or spec.name), cron_of(cron)
    if any(one["name"] == named for one in schedules(cluster)):
        raise InvalidInput(
            f"there is a schedule {named} on {cluster.name}",
            action=f"give another --name, or end that: headrace unschedule {named} --on {cluster.name}",
        )
    ir = ir_for(cluster.target.image)
    pipeline, version = cluster.kubeflow.version_of(ir)
    record = with_stored_weights(spec.to_record(), cluster.store, resolve, pods=True)
    parts = {
        **stored_parts(record, cluster.store),
        "champion": champion_reference(record),
        "source_fingerprint": AT_RUN,
    }
    request = request_of(cluster, spec, no_cache=False, spec_file=spec_file)
    arguments = {**parts, "request": cluster.store.put_spec({**request, "schedule": named, "arguments": parts})}
    check_arguments(ir, arguments)
    made = cluster.kubeflow.create_recurring_run(
        named,
        when,
        experiment=cluster.kubeflow.experiment(spec.name),
        pipeline=pipeline,
        version=version,
        arguments=arguments,
    )
    return _record(made)


def schedules(cluster: Cluster) -> list[dict[str, Any]]:
    """The schedules of Headrace's runs on CLUSTER, by name."""
    found = (_record(one) for one in cluster.kubeflow.recurring_runs() if _is_ours(one))
    return sorted(found, key=lambda record: str(record["name"]))


def find_schedule(cluster: Cluster, name: str) -> dict[str, Any]:
    """The schedule NAME. Raises InvalidInput naming those there are."""
    known = {one["name"]: one for one in schedules(cluster)}
    if name in known:
        return known[name]
    raise InvalidInput(
        f"there is no schedule {name!r} on {cluster.name}; there is: {', '.join(known) or 'none'}",
        action=f"`headrace schedules --on {cluster.name}` lists them",
    )


def unschedule(cluster: Cluster, name: str) -> None:
    """Run NAME's spec no more. Runs that go on are left alone."""
    cluster.kubeflow.delete_recurring_run(find_schedule(cluster, name)["id"])


def pause(cluster: Cluster, name: str) -> None:
    """Begin no run of NAME until it is continued."""
    cluster.kubeflow.pause_recurring_run(find_schedule(cluster, name)["id"])


def unpause(cluster: Cluster, name: str) -> None:
    """Begin runs of NAME again; those that were missed are not made up for."""
    cluster.kubeflow.continue_recurring_run(find_schedule(cluster, name)["id"])


def cron_of(text: str) -> str:
    """TEXT as Kubeflow reads it: six fields, the second first. Raises InvalidInput for what it cannot be."""
    if _WORDS.fullmatch(text.strip()):
        return text.strip()
    fields = text.split()
    fields = ["0", *fields] if len(fields) == 5 else fields
    if len(fields) != len(_FIELDS):
        raise _bad_cron(text, f"{len(text.split())} fields")
    for field, (name, low, high) in zip(fields, _FIELDS, strict=True):
        if not all(_fits(item, low, high, _NAMES.get(name, ())) for item in field.split(",")):
            raise _bad_cron(text, f"{field!r} for the {name}, which is {low} to {high}")
    return " ".join(fields)


def _fits(item: str, low: int, high: int, names: Sequence[str]) -> bool:
    """Whether ITEM is a value, a range or a step of a field from LOW to HIGH, whose values may have NAMES."""
    match = _ITEM.fullmatch(item)
    if match is None or match["step"] == "0":
        return False
    values = [value.lower() for value in (match["low"], match["high"]) if value is not None]
    if not all(value.isdigit() or value in names for value in values):
        return False
    numbers = [int(value) if value.isdigit() else low + names.index(value) for value in values]
    return all(low <= number <= high for number in numbers) and numbers == sorted(numbers)


def _bad_cron(text: str, what: str) -> InvalidInput:
    return InvalidInput(
        f"--cron {text!r} cannot be read: {what}",
        action='write minute, hour, day, month, weekday, as --cron "30 2 * * *" for half past two every night',
        code="usage",
    )


def _checked_name(name: str) -> str:
    if NAME.fullmatch(name) is None:
        raise InvalidInput(
            f"{name!r} cannot be a schedule's name", action="use small letters, digits and `-`, a letter first"
        )
    return name


def _is_ours(recurring: dict[str, Any]) -> bool:
    parameters = (recurring.get("runtime_config") or {}).get("parameters") or {}
    return "request" in parameters and "train_spec" in parameters


def _record(recurring: dict[str, Any]) -> dict[str, Any]:
    trigger = (recurring.get("trigger") or {}).get("cron_schedule") or {}
    paused = recurring.get("status") == "DISABLED" or (
        recurring.get("status") is None and recurring.get("mode") == "DISABLE"
    )
    return {
        "name": recurring.get("display_name"),
        "cron": trigger.get("cron"),
        "state": "paused" if paused else "active",
        "created": recurring.get("created_at"),
        "id": recurring.get("recurring_run_id"),
    }
