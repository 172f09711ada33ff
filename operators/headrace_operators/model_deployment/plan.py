"""The plan for one ModelDeployment: what its RayService must be, and what is told of it. Pure.

Nothing is written that stands there already, so a quiet deployment costs no write. What a plan must remember is in the
cluster: the registry's answer and the try in the RayService, the time of a failure in the status.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from headrace.api.model_deployment import ModelDeploymentSpec
from headrace_operators.kinds import RAY_SERVICE
from headrace_operators.model_deployment import progress, rayservice, sizing
from headrace_operators.model_deployment.accept import problems
from headrace_operators.model_deployment.observed import Judgement, Observed
from headrace_operators.model_deployment.resolved import resolved
from headrace_operators.model_deployment.status import status_of
from headrace_operators.model_deployment.telling import changes
from headrace_operators.model_deployment.wish import Wish, retry_at, wish_of
from headrace_operators.runtime.actions import Action, Apply, Delete, Plan, Tell
from headrace_operators.runtime.conditions import find
from headrace_operators.runtime.kinds import Object


def plan(observed: Observed, now: datetime) -> Plan:
    """What to do about OBSERVED."""
    spec, refused = accepted(observed)
    stable, judged = resolved(observed, spec)
    judged["Accepted"] = Judgement("False", "InvalidSpec", refused) if refused else Judgement("True", "Accepted", "")
    wish = wish_of(observed, spec, stable, now) if spec is not None and stable is not None else None
    judged["Progressing"] = _progressing(observed, wish, judged)
    version = stable.version if stable is not None else observed.status.get("wantedVersion")
    judged["Available"] = progress.available(observed, version, _least(observed, spec))
    status = status_of(observed, spec, wish, judged, now)
    again = retry_at(status, wish)
    return Plan(
        actions=(*_actions(observed, wish), *changes(observed, None if wish is None else wish.config, status)),
        status=status,
        again_after_seconds=None if again is None else max(0.0, (again - now).total_seconds()),
    )


def accepted(observed: Observed) -> tuple[ModelDeploymentSpec | None, str]:
    """The spec, if it can be carried out; else None and why not."""
    try:
        spec = ModelDeploymentSpec.model_validate(observed.obj["spec"])
    except ValidationError as error:
        first = error.errors()[0]
        return None, f"spec.{'.'.join(map(str, first['loc']))}: {first['msg']}"
    found = problems(observed.key.name, spec, spec.pods.image or observed.image)
    return (None, "; ".join(found)) if found else (spec, "")


def _progressing(observed: Observed, wish: Wish | None, judged: dict[str, Judgement]) -> Judgement:
    if wish is not None:
        return progress.progressing(observed, wish.config, sizing.least_replicas(wish.spec))
    if judged["Accepted"].status == "False":
        return Judgement("False", "NotAccepted", judged["Accepted"].message)
    if judged["Resolved"].reason == "Asking":
        return Judgement("True", "Resolving", judged["Resolved"].message)
    return Judgement("False", "NotResolved", judged["Resolved"].message)


def _least(observed: Observed, spec: ModelDeploymentSpec | None) -> int:
    return sizing.least_replicas(spec) if spec is not None else int(observed.status.get("replicas") or 1)


def _actions(observed: Observed, wish: Wish | None) -> list[Action]:
    """What makes the RayService as it is wished for."""
    service = observed.service
    if service is not None and _given_up(service):
        namespace, name = observed.key
        message = "KubeRay gave the RayService up (InitializingTimeout), which is final: it is made anew"
        uid = str(service["metadata"]["uid"])
        return [Tell("RayServiceGivenUp", message, "Warning"), Delete(RAY_SERVICE, namespace, name, uid)]
    if wish is None or observed.taken or not observed.kuberay or not rayservice.differs(wish.manifest, service):
        return []
    return [Apply(RAY_SERVICE, wish.manifest, force=True)]


def _given_up(service: Object) -> bool:
    ready = find((service.get("status") or {}).get("conditions") or (), "Ready")
    return ready is not None and ready.get("reason") == "InitializingTimeout"
