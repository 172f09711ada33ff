"""What is told of all deployments together, counted from the cache when somebody asks: no change is ever missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from headrace.monitoring import names
from headrace_operators.model_deployment import progress
from headrace_operators.runtime.conditions import find
from headrace_operators.runtime.kinds import Object, key_of
from headrace_operators.runtime.metrics import before_scrape, gauge, histogram

STATES = ("pending", "progressing", "available", "degraded", "failed", "refused")

DEPLOYMENTS = gauge(
    names.DEPLOYMENTS,
    "ModelDeployments by state: `pending` (no version yet), `progressing`, `available`, `degraded` (too few replicas "
    "answer with the version wanted), `failed` (it could not be loaded), `refused` (the spec cannot be carried out).",
    ("state",),
)
STATE = gauge(names.DEPLOYMENT_STATE, "1 for the state that each deployment is in.", ("namespace", "name", "state"))
REPLICAS = gauge(names.DEPLOYMENT_REPLICAS, "Replicas that are wanted.", ("namespace", "name"))
ANSWERING = gauge(
    names.DEPLOYMENT_ANSWERING, "Replicas that answered with the newest configuration.", ("namespace", "name")
)
VERSION = gauge(
    names.DEPLOYMENT_VERSION,
    "1 for the version that truly answers, of each deployment.",
    ("namespace", "name", "version"),
)
SWAP_SECONDS = histogram(
    names.DEPLOYMENT_SWAP_SECONDS,
    "From a configuration being in the RayService to every replica answering with it.",
    buckets=(0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600),
)


def state_of(status: Mapping[str, Any]) -> str:
    """The one word for a deployment's conditions."""
    conditions = status.get("conditions") or ()
    if _says(conditions, "Accepted", "False"):
        return "refused"
    going = find(conditions, "Progressing")
    if going is not None and going["reason"] in progress.FAILURES:
        return "failed"
    if going is None or not status.get("wantedVersion"):
        return "pending"
    if going["status"] == "True":
        return "progressing"
    return "available" if _says(conditions, "Available", "True") else "degraded"


def count_before_scrape(deployments: Callable[[], Iterable[Object]]) -> None:
    """Set the gauges from DEPLOYMENTS whenever the metrics are read."""

    def count() -> None:
        states: Counter[str] = Counter(dict.fromkeys(STATES, 0))
        for each in (STATE, REPLICAS, ANSWERING, VERSION):
            each.clear()
        for obj in deployments():
            state = _show(obj)
            states[state] += 1
        for state, number in states.items():
            DEPLOYMENTS.labels(state).set(number)

    before_scrape(count)


def _show(obj: Object) -> str:
    """Set what is told of one deployment; its state."""
    status, (namespace, name) = obj.get("status") or {}, key_of(obj)
    state = state_of(status)
    STATE.labels(namespace, name, state).set(1)
    REPLICAS.labels(namespace, name).set(status.get("replicas") or 0)
    ANSWERING.labels(namespace, name).set(status.get("answeringReplicas") or 0)
    if status.get("servingVersion"):
        VERSION.labels(namespace, name, status["servingVersion"]).set(1)
    return state


def _says(conditions: Iterable[Mapping[str, Any]], type_: str, status: str) -> bool:
    found = find(conditions, type_)
    return found is not None and bool(found["status"] == status)
