"""What is told of one ModelMonitor's newest measurement. Pure.

No data is never health: what cannot be measured, or rests on too few requests, is Unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from headrace.api.model_monitor import ModelMonitorSpec, ModelMonitorStatus, Objectives
from headrace_operators.model_monitor.prometheus import Measurement
from headrace_operators.runtime.actions import Plan, Tell
from headrace_operators.runtime.conditions import Truth, condition, find, rfc3339
from headrace_operators.runtime.kinds import Object

SIGNIFICANT_DIGITS = 4  # more is noise, and noise is a write
Judged = tuple[Truth, str, str]


@dataclass(frozen=True)
class Observed:
    """What a plan looks at.

    Args:
        obj: the ModelMonitor.
        deployment_there: whether the ModelDeployment is there.
        measurement: the newest; None before there is one.
    """

    obj: Object
    deployment_there: bool
    measurement: Measurement | None = None


def plan(observed: Observed, now: datetime) -> Plan:
    """What to tell of OBSERVED."""
    spec, refused = accepted(observed.obj)
    before = observed.obj.get("status") or {}
    if spec is None:
        judged = _unknown(("False", "InvalidSpec", refused), "NotAccepted")
    elif not observed.deployment_there:
        words = f"there is no ModelDeployment {spec.deployment_name} in this namespace: make it, or name another"
        judged = _unknown(("False", "DeploymentNotFound", words), "NotAccepted")
    elif observed.measurement is None:
        judged = _unknown(("True", "Accepted", ""), "NotMeasuredYet") | _kept(before)
    else:
        measured = _measured(spec, observed.measurement)
        healthy = _healthy(spec, observed.measurement) if measured[0] == "True" else ("Unknown", "NoData", measured[2])
        judged = {"Accepted": ("True", "Accepted", ""), "Measured": measured, "Healthy": healthy}
    status = _status(observed, judged, now)
    return Plan(tuple(_changes(before, status)), status)


def accepted(obj: Object) -> tuple[ModelMonitorSpec | None, str]:
    """The spec, or why it is none."""
    try:
        return ModelMonitorSpec.model_validate(obj["spec"]), ""
    except ValidationError as error:
        first = error.errors()[0]
        return None, f"spec.{'.'.join(map(str, first['loc']))}: {first['msg']}"


def rounded(value: float | None) -> float | None:
    """VALUE with four significant digits."""
    return None if value is None else float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _measured(spec: ModelMonitorSpec, measurement: Measurement) -> Judged:
    if measurement.problem is not None:
        reason, words = measurement.problem
        return "False", reason, words
    if measurement.requests is None:
        words = (
            f"Prometheus has no requests of {spec.deployment_name} in the last {spec.window_seconds} s: nobody asked, "
            "or its pods are not scraped"
        )
        return "False", "NoData", words
    return "True", "Measured", f"over the last {spec.window_seconds} s"


def _healthy(spec: ModelMonitorSpec, measurement: Measurement) -> Judged:
    requests = measurement.requests or 0.0
    if spec.objectives == Objectives():
        return "Unknown", "NoObjectives", "no objective is set: measured and not judged"
    if requests < spec.min_requests:
        return "Unknown", "TooFewRequests", f"{requests:.4g} requests are fewer than {spec.min_requests}"
    limits = (
        ("error ratio", measurement.error_ratio, spec.objectives.max_error_ratio, ""),
        ("p50", measurement.p50_seconds, spec.objectives.max_p50_seconds, " s"),
        ("p99", measurement.p99_seconds, spec.objectives.max_p99_seconds, " s"),
    )
    asked = [(name, value, limit, unit) for name, value, limit, unit in limits if limit is not None]
    broken = [
        f"{name} {value:.4g}{unit} is above {limit:.4g}{unit}"
        for name, value, limit, unit in asked
        if value is not None and limit is not None and value > limit
    ]
    if broken:
        return "False", "ObjectivesBroken", "; ".join(broken)
    if missing := [name for name, value, _, _ in asked if value is None]:
        return "Unknown", "NoData", f"Prometheus has no {' and no '.join(missing)}"
    return "True", "ObjectivesKept", "every objective is kept"


def _kept(before: Mapping[str, Any]) -> dict[str, Judged]:
    """What was measured before this process began, to be said again until there is a new measurement."""
    found = [find(before.get("conditions") or (), type_) for type_ in ("Measured", "Healthy")]
    told = [entry for entry in found if entry is not None and entry["reason"] != "NotAccepted"]
    return {entry["type"]: (entry["status"], entry["reason"], entry["message"]) for entry in told}


def _unknown(first: Judged, reason: str) -> dict[str, Judged]:
    words = first[2] or "nothing has been measured yet"
    return {"Accepted": first, "Measured": ("Unknown", reason, words), "Healthy": ("Unknown", reason, words)}


def _status(observed: Observed, judged: Mapping[str, Judged], now: datetime) -> dict[str, Any]:
    before, measurement = observed.obj.get("status") or {}, observed.measurement
    generation = int(observed.obj["metadata"].get("generation") or 0)
    record = dict(before) | {"observedGeneration": generation}
    if measurement is not None:
        record |= {
            "measuredTime": rfc3339(measurement.at),
            "requests": rounded(measurement.requests),
            "errorRatio": rounded(measurement.error_ratio),
            "p50Seconds": rounded(measurement.p50_seconds),
            "p99Seconds": rounded(measurement.p99_seconds),
        }
    record["conditions"] = [
        condition(before.get("conditions") or (), type_, *judged[type_], generation=generation, now=now)
        for type_ in ("Accepted", "Measured", "Healthy")
    ]
    troubles = [judged[type_][2] for type_ in ("Accepted", "Measured", "Healthy") if judged[type_][0] != "True"]
    record["message"] = troubles[0] if troubles else ""
    return ModelMonitorStatus.model_validate(record).to_record()


def _changes(before: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[Tell]:
    """Events: a condition's turn, not each new number."""
    for type_ in ("Accepted", "Measured", "Healthy"):
        old, new = find(before.get("conditions") or (), type_), find(status["conditions"], type_)
        assert new is not None, "every condition is told each time"
        if old is not None and (old["status"], old["reason"]) == (new["status"], new["reason"]):
            continue
        if new["status"] == "False":
            yield Tell(new["reason"], new["message"], "Warning")
        elif type_ == "Healthy" and new["status"] == "True":
            yield Tell("ObjectivesKept", new["message"])
