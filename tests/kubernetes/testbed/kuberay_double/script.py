"""What is to happen to a job or a service: written by the test, carried by the object's own pods.

The script is JSON in the head container's environment variable KUBERAY_DOUBLE, which a TrainingRun or ModelDeployment
passes on (`spec.pods.environment`), so it needs no channel of its own and survives whoever is killed. A RayJob's
attempt is its label `headrace.dev/attempt` plus what KubeRay itself has retried.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

VARIABLE = "KUBERAY_DOUBLE"
ATTEMPT_LABEL = "headrace.dev/attempt"
_ANY = "*"

Ending = Literal["succeeds", "fails", "loses-head", "never-ready", "runs-on"]


@dataclass(frozen=True)
class Behaviour:
    """One attempt.

    Args:
        ending: how it ends; `loses-head` half-way loses its head pod, `never-ready` has no image.
        pods_seconds: from a pod's creation until it is ready.
        run_seconds: how long the entrypoint runs.
        message: the end of the log of an entrypoint that fails.
        rerun: what the entrypoint does when a lost head makes KubeRay run it again. Our driver `fails` at once, as
            another head holds the claim; a plain one `succeeds` (KUBERAY.md).
        deploy_seconds: how long a Serve application takes to start.
        deploys: whether it does.
    """

    ending: Ending = "succeeds"
    pods_seconds: float = 0.1
    run_seconds: float = 0.3
    message: str = ""
    rerun: Literal["fails", "succeeds"] = "fails"
    deploy_seconds: float = 0.2
    deploys: Literal["succeeds", "fails"] = "succeeds"


@dataclass(frozen=True)
class Script:
    """Behaviour by attempt; an attempt that is not named behaves as `otherwise`."""

    otherwise: Behaviour = Behaviour()
    attempts: Mapping[int, Behaviour] = field(default_factory=dict)

    def behaviour(self, attempt: int) -> Behaviour:
        """What the attempt does."""
        return self.attempts.get(attempt, self.otherwise)

    def to_variable(self) -> dict[str, str]:
        """The script as an environment variable; only what differs from `otherwise`, which is short."""
        told = {_ANY: _difference(self.otherwise, Behaviour())}
        told |= {str(number): _difference(each, self.otherwise) for number, each in self.attempts.items()}
        return {"name": VARIABLE, "value": json.dumps(told, separators=(",", ":"))}

    @classmethod
    def from_text(cls, text: str, default: Behaviour) -> Script:
        """The inverse of `to_variable`; DEFAULT is what the text leaves out."""
        told = json.loads(text or "{}")
        otherwise = replace(default, **told.pop(_ANY, {}))
        return cls(otherwise, {int(number): replace(otherwise, **each) for number, each in told.items()})


def _difference(behaviour: Behaviour, base: Behaviour) -> dict[str, Any]:
    theirs = asdict(base)
    return {name: value for name, value in asdict(behaviour).items() if value != theirs[name]}


def script_of(cluster_spec: Mapping[str, Any], default: Behaviour) -> Script:
    """The script in a RayCluster's spec."""
    head = cluster_spec["headGroupSpec"]["template"]["spec"]["containers"][0]
    for variable in head.get("env") or ():
        if variable["name"] == VARIABLE:
            return Script.from_text(variable.get("value", ""), default)
    return Script(default)


def attempt_of(job: Mapping[str, Any]) -> int:
    """The number of the attempt that the RayJob now is."""
    labels = job["metadata"].get("labels") or {}
    return int(labels.get(ATTEMPT_LABEL, "1")) + int((job.get("status") or {}).get("failed") or 0)
