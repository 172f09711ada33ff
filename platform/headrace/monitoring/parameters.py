"""What an installation may set of the rules, each with its unit and the reason for its default.

The files in the chart hold placeholders, `$(name)`, which the chart's template fills from its values; tests fill them
here. Numbers are text, as that is what stands in an expression.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Parameters:
    """Values of the placeholders.

    Args:
        namespace: where the operator is; the others' metrics may be in the same Prometheus.
        watched: a pattern of the namespaces whose runs and endpoints are judged: those that the operator looks at.
        availabilityObjective: share of requests that must not be answered 5xx, over 30 days. Not below 0.94: of a lower
            one, not even an endpoint that fails always would burn the budget 14.4 times as fast as it may.
        latencyObjective: share of requests that must be answered within latencyThresholdSeconds, over 30 days.
        latencyThresholdSeconds: one of the fronts' bucket bounds (`headrace.serving.measures.SECONDS`).
        minRequests: in a window, below which nothing is judged: one failure of three requests is no trend.
        waitingSeconds: a run may wait for pods, nodes and images. An attempt gives up after 900 s as it comes.
        queuedSeconds: a run may wait for its turn in Kueue's queue; that is what queues are for.
        noProgressSeconds: a run that trains may report nothing new: longer than its longest epoch.
        failingAttempts: failed attempts of one namespace in an hour that are no accident any more.
        queueDepth: keys that wait for a worker; 10,000 objects at a cold start are through in a minute.
        queueWindow: for so long the queue must not have been shorter.
        backupSeconds: age of the last good backup; a day and two hours for one that is made daily.
        downWindow: for how long it is remembered that an endpoint has answered while nobody tells of it: the operator
            or Prometheus is away.
    """

    namespace: str = "headrace-system"
    watched: str = ".*"
    availabilityObjective: str = "0.999"  # noqa: N815 the chart's names of values
    latencyObjective: str = "0.99"  # noqa: N815
    latencyThresholdSeconds: str = "0.5"  # noqa: N815
    minRequests: str = "20"  # noqa: N815
    waitingSeconds: str = "1200"  # noqa: N815
    queuedSeconds: str = "43200"  # noqa: N815
    noProgressSeconds: str = "3600"  # noqa: N815
    failingAttempts: str = "3"  # noqa: N815
    queueDepth: str = "100"  # noqa: N815
    queueWindow: str = "10m"  # noqa: N815
    backupSeconds: str = "93600"  # noqa: N815
    downWindow: str = "6h"  # noqa: N815


NAMES = tuple(field.name for field in fields(Parameters))


def placeholder(name: str) -> str:
    """What stands for the parameter NAME in the chart's files."""
    if name not in NAMES:
        raise KeyError(f"no parameter {name!r}; there are {', '.join(NAMES)}")
    return f"$({name})"


WATCHED = f'namespace=~"{placeholder("watched")}"'  # selects series of runs and endpoints


def filled(value: Any, parameters: Parameters) -> Any:
    """VALUE (text, or lists and mappings of it) with every placeholder replaced."""
    if isinstance(value, str):
        for name, given in asdict(parameters).items():
            value = value.replace(f"$({name})", given)
        return value
    if isinstance(value, list):
        return [filled(each, parameters) for each in value]
    if isinstance(value, dict):
        return {key: filled(each, parameters) for key, each in value.items()}
    return value
