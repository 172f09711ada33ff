"""How far a wish has come: in force, failed, or on its way and what it waits for.

The fronts' answers decide. KubeRay's status is read only for what it alone can know: an application that Serve could
not even start, and only after KubeRay had time to report of the present configuration and not of the one before. That
it calls a RayService ready is never believed: so it does while a broken version has left the old one serving.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from headrace.serving.contract import FrontConfig
from headrace.serving.verdict import judge_answers, serve_reason
from headrace_operators.kinds import MODEL_DEPLOYMENT
from headrace_operators.model_deployment.observed import Judgement, Observed
from headrace_operators.model_deployment.waiting import why_waiting
from headrace_operators.runtime.conditions import find
from headrace_operators.runtime.kinds import Object

COMPLETE, LOAD_FAILED, DEPLOY_FAILED, INVALID = "Complete", "LoadFailed", "DeployFailed", "RayServiceInvalid"
FAILURES = (LOAD_FAILED, DEPLOY_FAILED, INVALID)
# KubeRay reads Serve's status before it tells Serve of a change, every 2 s: at first it tells of the old configuration.
_BELIEVE_KUBERAY_AFTER_SECONDS = 10.0
_KUBERAY_IS_LATE_AFTER_SECONDS = 30.0


def progressing(observed: Observed, config: FrontConfig, least: int) -> Judgement:
    """Progressing: whether CONFIG is in force in at least LEAST replicas, and in all that answer."""
    if observed.taken:
        return _taken(observed)
    answers = observed.answers
    if answers is not None:
        verdict = judge_answers(config.config_id, config.stable.version, least, answers.statuses)
        if verdict.proven and all(status.config_id == config.config_id for status in answers.statuses):
            return Judgement("False", COMPLETE, _answer(config, len(answers.statuses)))
        if verdict.error:
            return Judgement("False", LOAD_FAILED, verdict.error)
    before = observed.kept("Progressing") if observed.status.get("configID") == config.config_id else None
    if before is not None and before.reason in FAILURES:
        return before  # until it is proven, or wished anew
    if before is not None and before.reason == COMPLETE and answers is None:
        return before  # an operator that has just started knows no better
    return _failed(observed) or _waiting(observed, config, least)


def available(observed: Observed, version: str | None, least: int) -> Judgement:
    """Available: whether VERSION answers from every replica, at least LEAST."""
    answers = observed.answers
    if answers is None:
        return observed.kept("Available") or Judgement("Unknown", "NotAskedYet", "the endpoint has not been asked yet")
    if not answers.statuses:
        none = f": {answers.problem}" if answers.problem else ""
        reason = "NothingAnswers" if answers.endpoints else "NoEndpoints"
        return Judgement("False", reason, f"no replica answers behind {answers.endpoints} endpoints{none}")
    serving = [status.stable for status in answers.statuses]
    if version is None or set(serving) != {version}:
        named = ", ".join(sorted({each or "no version" for each in serving}))
        return Judgement("False", "OtherVersionAnswers", f"wanted is version {version or 'unknown'}; {named} answers")
    if len(serving) < least:
        return Judgement(
            "False", "TooFewReplicas", f"version {version} answers from {len(serving)} of {least} replicas"
        )
    return Judgement("True", "AllReplicasAnswer", f"version {version} answers from {len(serving)} replicas")


def _answer(config: FrontConfig, replicas: int) -> str:
    return f"version {config.stable.version} answers from {replicas} replica{'s' if replicas > 1 else ''}"


def _taken(observed: Observed) -> Judgement:
    """Our name is another's: of a deployment that is being deleted, or of somebody who must give way."""
    name = observed.key.name
    if observed.taken == f"{MODEL_DEPLOYMENT.kind} {name}":
        return Judgement("True", "WaitingForDeletion", f"RayService {name} of a deployment before is being deleted")
    message = f"RayService {name} is there and belongs to {observed.taken}: delete it, or use another name"
    return Judgement("False", "NameTaken", message)


def _failed(observed: Observed) -> Judgement | None:
    """What only KubeRay knows of a failure."""
    service = observed.service
    if service is None or _late(service) or observed.live_seconds < _BELIEVE_KUBERAY_AFTER_SECONDS:
        return None
    ready = find((service.get("status") or {}).get("conditions") or (), "Ready")
    if ready is not None and ready.get("reason") == "ValidationFailed":
        return Judgement("False", INVALID, f"KubeRay refuses the RayService: {ready.get('message', '')}")
    for application in _applications(service, observed.key.name):
        if application.get("status") == "DEPLOY_FAILED":
            return Judgement("False", DEPLOY_FAILED, serve_reason(str(application.get("message") or "")))
    return None


def _waiting(observed: Observed, config: FrontConfig, least: int) -> Judgement:
    """What a wish that has neither failed nor come into force waits for."""
    version, service, answers = config.stable.version, observed.service, observed.answers
    if not observed.kuberay:
        return Judgement("True", "KubeRayMissing", "the cluster knows no RayServices: install KubeRay")
    if service is None or observed.live is None or observed.live.config.config_id != config.config_id:
        return Judgement("True", "Applying", f"version {version} is being told to KubeRay")
    if _late(service) and observed.live_seconds > _KUBERAY_IS_LATE_AFTER_SECONDS:
        message = "KubeRay has not taken up the RayService's newest configuration: look whether its operator runs"
        return Judgement("True", "WaitingForKubeRay", message)
    if why := why_waiting(observed.pods, observed.ray_clusters):
        return Judgement("True", "WaitingForPods", why)
    if answers is None or not answers.endpoints:
        return Judgement("True", "Starting", "the Ray cluster and its ingress are starting")
    if any(status.loading == version for status in answers.statuses):
        return Judgement("True", "LoadingVersion", f"version {version} is being loaded")
    verdict = judge_answers(config.config_id, version, least, answers.statuses)
    more = f"; {answers.problem}" if answers.problem and not answers.statuses else ""
    waiting_for = verdict.waiting_for or "replicas of the configuration before to go"
    return Judgement("True", "WaitingForReplicas", f"waiting for {waiting_for}{more}")


def _late(service: Object) -> bool:
    """Whether KubeRay has not seen the newest RayService, or could not parse its configuration."""
    observed = int((service.get("status") or {}).get("observedGeneration") or 0)
    return observed < int(service["metadata"].get("generation") or 0)


def _applications(service: Object, name: str) -> Iterator[Mapping[str, Any]]:
    """What KubeRay says of the front: of the pending cluster's, where there is one, else of the active one's."""
    status = service.get("status") or {}
    for cluster in ("pendingServiceStatus", "activeServiceStatus"):
        found = ((status.get(cluster) or {}).get("applicationStatuses") or {}).get(name)
        if found is not None:
            yield found
            return
