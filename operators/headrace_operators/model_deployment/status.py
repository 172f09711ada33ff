"""The status of a ModelDeployment: what truly answers, how far the wish has come, and one sentence. Pure.

It changes only when something has happened; times of looking are not in it.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from headrace.api.model_deployment import ModelDeploymentSpec, ModelDeploymentStatus
from headrace_operators.model_deployment import progress, rayservice, sizing
from headrace_operators.model_deployment.front import FrontAnswers
from headrace_operators.model_deployment.observed import Judgement, Observed
from headrace_operators.model_deployment.wish import Wish
from headrace_operators.runtime.conditions import condition, rfc3339

_LONGEST_MESSAGE = 4096
ORDER = ("Accepted", "Resolved", "Progressing", "Available", "MLflowReachable")


def status_of(
    observed: Observed,
    spec: ModelDeploymentSpec | None,
    wish: Wish | None,
    judged: dict[str, Judgement],
    now: datetime,
) -> dict[str, Any]:
    """The whole new status; what is not known now stays as it was."""
    generation = int(observed.obj["metadata"].get("generation") or 0)
    live = observed.live
    config_id = wish.config.config_id if wish is not None else live.config.config_id if live is not None else None
    record = dict(observed.status) | {
        "observedGeneration": generation,
        "url": rayservice.url(observed.key),
        "configID": config_id,
        "message": _message(judged)[:_LONGEST_MESSAGE],
        "conditions": _conditions(observed, judged, generation, now),
    }
    if (wish is not None and not observed.taken) or observed.service is not None:
        record["rayServiceName"] = observed.key.name
    if wish is not None:
        record |= _wanted(observed, wish, now)
    if spec is not None:
        record["replicas"] = _replicas(spec, observed.answers)
    if observed.answers is not None:
        record |= _answering(observed.answers, config_id)
    record["failedTime"] = _failed_time(observed, judged["Progressing"], config_id, now)
    return ModelDeploymentStatus.model_validate(record).to_record()


def _failed_time(observed: Observed, progressing: Judgement, config_id: str | None, now: datetime) -> str | None:
    """Since when CONFIG_ID is known to have failed. The condition's own time is no measure of it: that stays where one
    False follows another."""
    if progressing.reason not in progress.FAILURES:
        return None
    before = observed.kept("Progressing")
    known = before is not None and before.reason in progress.FAILURES and observed.status.get("configID") == config_id
    return (observed.status.get("failedTime") if known else None) or rfc3339(now)


def _wanted(observed: Observed, wish: Wish, now: datetime) -> dict[str, Any]:
    found = {
        "wantedVersion": wish.stable.version,
        "wantedPackageURI": wish.stable.package_uri,
        "wantedPackageSha256": wish.stable.sha256,
    }
    new = any(observed.status.get(name) != value for name, value in found.items())
    return found | ({"resolvedTime": rfc3339(now)} if new else {})


def _replicas(spec: ModelDeploymentSpec, answers: FrontAnswers | None) -> int:
    """As many as are asked for; where Serve chooses, as many as answer within its bounds."""
    there = len(answers.statuses) if answers is not None else 0
    return min(sizing.most_replicas(spec), max(sizing.least_replicas(spec), there))


def _answering(answers: FrontAnswers, config_id: str | None) -> dict[str, Any]:
    versions = Counter(status.stable for status in answers.statuses if status.stable)
    return {
        "servingVersion": min(versions, key=lambda version: (-versions[version], version)) if versions else None,
        "answeringReplicas": sum(status.config_id == config_id for status in answers.statuses),
    }


def _conditions(observed: Observed, judged: dict[str, Judgement], generation: int, now: datetime) -> list[Any]:
    previous = observed.status.get("conditions") or ()
    return [
        condition(
            previous,
            type_,
            judged[type_].status,
            judged[type_].reason,
            judged[type_].message,
            generation=generation,
            now=now,
        )
        for type_ in ORDER
    ]


def _message(judged: dict[str, Judgement]) -> str:
    """The one sentence that a person reads first."""
    if judged["Accepted"].status == "False":
        return judged["Accepted"].message
    if judged["Resolved"].status != "True":
        return judged["Resolved"].message
    if judged["Progressing"].reason != progress.COMPLETE:
        return judged["Progressing"].message
    return "" if judged["Available"].status == "True" else judged["Available"].message
