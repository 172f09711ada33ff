"""What is told as Events: changes that a person would want to have seen, each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headrace.serving.contract import FrontConfig
from headrace_operators.model_deployment import progress
from headrace_operators.model_deployment.observed import Observed
from headrace_operators.model_deployment.rayservice import attempt_of
from headrace_operators.runtime.actions import Tell
from headrace_operators.runtime.conditions import find

_WARNINGS = {
    "Accepted": ("InvalidSpec",),
    "Resolved": ("NotFound",),
    "MLflowReachable": ("Unreachable",),
    "Progressing": (*progress.FAILURES, "NameTaken", "KubeRayMissing", "WaitingForPods", "WaitingForKubeRay"),
}


def changes(observed: Observed, config: FrontConfig | None, status: Mapping[str, Any]) -> Iterator[Tell]:
    """The Events of going over from the status that was written last to STATUS."""
    yield from _deploying(observed, config)
    for type_, reasons in _WARNINGS.items():
        before, after = observed.before(type_), find(status["conditions"], type_)
        if after is not None and after["reason"] in reasons and _told(before) != _told(after):
            yield Tell(after["reason"], after["message"], "Warning")
    before, after = observed.before("Progressing"), find(status["conditions"], "Progressing")
    done = after is not None and after["reason"] == progress.COMPLETE
    if after is not None and done and (before is None or before["reason"] != progress.COMPLETE):
        yield Tell("Deployed", after["message"])


def _deploying(observed: Observed, config: FrontConfig | None) -> Iterator[Tell]:
    live = observed.live
    if config is None or observed.taken or (live is not None and live.config.config_id == config.config_id):
        return
    if live is None:
        yield Tell("Deploying", f"version {config.stable.version} is deployed")
    elif live.config.stable == config.stable and live.attempt < attempt_of(config.config_id):
        yield Tell("Retrying", f"version {config.stable.version} is tried again")
    elif live.config.stable == config.stable:
        yield Tell("Deploying", f"version {config.stable.version} is deployed anew")
    else:
        yield Tell("Deploying", f"version {config.stable.version} replaces version {live.config.stable.version}")


def _told(condition: Mapping[str, Any] | None) -> tuple[Any, Any] | None:
    return None if condition is None else (condition["reason"], condition["message"])
