"""A run's record in a person's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.cli.output import number, seconds, table


def render_end(record: Mapping[str, Any]) -> str:
    """What a run came to: its metrics, gate, version and endpoint, and what can be done next."""
    took = sum(step["seconds"] or 0.0 for step in record["steps"] or ())
    rows = [(f"run {record['state']}", f"{record['run_id']}  {seconds(took) if took else ''}".rstrip())]
    rows += _facts(record)
    rows += _kubeflow(record)
    width = max(len(title) for title, _ in rows)
    return "\n".join(f"{title.ljust(width)}  {text}" for title, text in rows)


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if metrics := record["metrics"]:
        values = "  ".join(f"{name} {number(value)}" for name, value in metrics.items())
        rows.append(("test metrics", values))
    for index, check in enumerate((record["gate"] or {}).get("checks", ())):
        value = "not measured" if check["value"] is None else number(check["value"])
        note = f"  ({check['note']})" if check.get("note") else ""
        verdict = "passed" if check["passed"] else "failed"
        rows.append(("" if index else "gate", f"{verdict}  {check['check']}  {value}{note}"))
    if (model := record["model"]) and model.get("name"):
        alias = f", alias {model['alias']}" if model.get("alias") else ""
        rows.append(("model", f"{model['name']} version {model['version']}{alias}"))
    if endpoint := record["endpoint"]:
        rows.append(("endpoint", f"{endpoint['url']}  (version {endpoint['version']})"))
        if record["state"] == "succeeded":
            rows.append(("next", f"headrace predict {endpoint['url'].rsplit('/', 1)[-1]} FILE..."))
    return rows


def _kubeflow(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run on a cluster spent beside its steps."""
    kubeflow = record.get("kubeflow")
    if not kubeflow:
        return []
    spent = kubeflow.get("own_seconds")
    beats = "" if spent is None else f"; {seconds(spent)} of {seconds(kubeflow['seconds'])} were Kubeflow's own"
    return [("kubeflow", f"{kubeflow['target']}: run {kubeflow['run_id'] or 'not known'}{beats}")]


def render_status(record: Mapping[str, Any]) -> str:
    """A run as it stands: its steps, then what it came to so far."""
    steps = table(("step", "state", "seconds"), [(s["name"], s["state"], s["seconds"]) for s in record["steps"] or ()])
    told = [render_end(record), "", steps]
    told += [f"note  {finding['given']}: {finding['action']}" for finding in _notes(record)]
    if mlflow := record["mlflow"]:
        told += ["", f"mlflow  {mlflow.get('tracking_uri')}  run {mlflow.get('run_id')}"]
    return "\n".join(told)


def _notes(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is found of a run that goes on; of one that ended badly its error tells."""
    return list(record["findings"] or ()) if record["error"] is None else []


def run_row(record: Mapping[str, Any], target: str, created: str) -> tuple[object, ...]:
    """One line of `headrace runs`."""
    metrics = record["metrics"] or {}
    first = next(iter(metrics.items()), None)
    model = record["model"] or {}
    return (
        record["run_id"],
        target,
        record["state"],
        created[:19].replace("T", " "),
        None if first is None else f"{first[0]} {number(first[1])}",
        f"{model['name']}/{model['version']}" if model.get("name") else None,
        (record["endpoint"] or {}).get("url"),
    )
