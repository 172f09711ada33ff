"""Which version is served, by what the registry said: its newest answer, or without one its last. Pure.

The registry being down is a condition, never a failure: what is served goes on, and changes that need no answer too.
"""

from __future__ import annotations

from headrace.api.model_deployment import ModelDeploymentSpec
from headrace.serving.contract import StableVersion
from headrace_operators.model_deployment.observed import Judgement, Observed
from headrace_operators.model_deployment.resolve import reference

Judged = dict[str, Judgement]


def resolved(observed: Observed, spec: ModelDeploymentSpec | None) -> tuple[StableVersion | None, Judged]:
    """The version to serve if it is known, and the conditions Resolved and MLflowReachable."""
    reachable = _reachable(observed)
    if spec is None:
        kept = observed.kept("Resolved") or Judgement("Unknown", "NotAccepted", "the spec cannot be carried out")
        return None, {"Resolved": kept, "MLflowReachable": reachable}
    version, judgement = _version(observed, reference(spec.mlflow.tracking_uri, spec.model))
    return version, {"Resolved": judgement, "MLflowReachable": reachable}


def _version(observed: Observed, asked: str) -> tuple[StableVersion | None, Judgement]:
    live, said = observed.live, observed.resolution
    known = live.config.stable if live is not None and live.model == asked else None
    if said is not None and said.missing:
        serving = f"; version {known.version} is served still" if known is not None else ""
        return known, Judgement("False", "NotFound", f"{said.missing}{serving}")
    version = said.version if said is not None and said.version is not None else known
    if version is not None:
        return version, Judgement("True", "Resolved", f"{asked} is version {version.version}")
    if said is not None:
        return None, Judgement("Unknown", "MLflowUnreachable", said.unreachable)
    return None, Judgement("Unknown", "Asking", f"the registry is being asked for {asked}")


def _reachable(observed: Observed) -> Judgement:
    said = observed.resolution
    if said is None:
        unknown = Judgement("Unknown", "NotAskedYet", "the registry has not been asked yet")
        return observed.kept("MLflowReachable") or unknown
    if said.unreachable:
        return Judgement("False", "Unreachable", said.unreachable)
    return Judgement("True", "Answers", "")
