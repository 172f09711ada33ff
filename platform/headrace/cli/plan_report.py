"""`headrace plan` in a person's words. What cannot be known on this install says what to install to know it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from headrace.cli.output import size, table

INSTALL = "pip install 'headrace[train]'"


def render_plan(record: Mapping[str, Any]) -> str:
    """The plan: steps, then what they would work on and change."""
    steps = [(step["name"], _known(step["state"]), step["why"]) for step in record["steps"]]
    rows = [
        ("data", _data(record["data"])),
        ("model", _model(record["model"])),
        ("workers", _workers(record["workers"])),
    ]
    if alias := record["alias"]:
        rows.append(("alias", f"{alias['alias']} of {alias['name']}: {_change(alias)}"))
    if endpoint := record["endpoint"]:
        url = f"  ({endpoint['url']})" if endpoint["url"] else ""
        rows.append(("endpoint", f"{endpoint['name']}: {_change(endpoint)}{url}"))
    return "\n".join([table(("step", "state", "why"), steps), "", *(f"{name:10}{text}" for name, text in rows)])


def _unknown() -> str:
    return "unknown" if find_spec("mlflow") is not None and find_spec("pyarrow") is not None else f"unknown ({INSTALL})"


def _known(value: object) -> str:
    return _unknown() if value is None else str(value)


def _data(data: Mapping[str, Any]) -> str:
    if data["samples"] is None and data["bytes"] is None:
        return f"{data['source']} ({data['format']}): {_unknown()}"
    held = [] if data["bytes"] is None else [size(data["bytes"])]
    held.append(f"samples {_unknown()}" if data["samples"] is None else f"{data['samples']:,} samples")
    return f"{data['source']} ({data['format']}): {', '.join(held)}"


def _model(model: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value}" for name, value in model["args"].items())
    return f"{model['name']}({arguments})"


def _workers(workers: Mapping[str, Any]) -> str:
    least, most = workers["asked"]["min"], workers["asked"]["max"]
    asked = f"{most}" if least == most else f"{least} to {most}"
    each = f"{workers['cpus_per_worker']:g} CPUs and {workers['gpus_per_worker']:g} GPUs each"
    there = f"{workers['cpus']:g} CPUs and {workers['gpus']:g} GPUs are there, enough for {workers['there']}"
    return f"{asked} asked, {each}; {there}"


def _change(part: Mapping[str, Any]) -> str:
    return f"{_version(part['before'])} -> {_version(part['after'])}"


def _version(version: str | None) -> str:
    if version is None:
        return _unknown()
    return {"none": "nothing", "new": "a new version"}.get(version, f"version {version}")
