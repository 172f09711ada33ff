"""All that a plan for one ModelDeployment looks at, as plain values: nothing of it is asked for while planning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace_operators.model_deployment.front import FrontAnswers
from headrace_operators.model_deployment.rayservice import Live, live_of
from headrace_operators.model_deployment.resolve import Resolution
from headrace_operators.runtime.conditions import Truth, find
from headrace_operators.runtime.kinds import Key, Object, controller_of, key_of


@dataclass(frozen=True)
class Judgement:
    """What one condition says."""

    status: Truth
    reason: str
    message: str


@dataclass(frozen=True)
class Observed:
    """What is known.

    Args:
        obj: the ModelDeployment.
        image: the operator's `--runtime-image`, for pods that name none.
        ray_service: the RayService of its name.
        ray_clusters: the Ray clusters of that RayService.
        pods: their pods.
        resolution: the registry's newest answer to this spec's question; None before there is one.
        answers: the fronts' newest answers; None before they were asked.
        kuberay: whether the cluster knows RayServices.
        live_seconds: for how long the RayService is known to have its present configuration.
    """

    obj: Object
    image: str = ""
    ray_service: Object | None = None
    ray_clusters: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    resolution: Resolution | None = None
    answers: FrontAnswers | None = None
    kuberay: bool = True
    live_seconds: float = 0.0

    @property
    def key(self) -> Key:
        """The deployment's namespace and name."""
        return key_of(self.obj)

    @property
    def status(self) -> Mapping[str, Any]:
        """The status as it was written last."""
        return self.obj.get("status") or {}

    @property
    def service(self) -> Object | None:
        """The RayService, if it is this very deployment's."""
        return None if self.taken else self.ray_service

    @property
    def taken(self) -> str:
        """Whose the RayService of our name is, where it is not ours; "" where it is or there is none."""
        if self.ray_service is None:
            return ""
        owner = controller_of(self.ray_service)
        if owner is None:
            return "nobody"
        return "" if owner["uid"] == self.obj["metadata"]["uid"] else f"{owner['kind']} {owner['name']}"

    @property
    def live(self) -> Live | None:
        """The front's configuration in the RayService."""
        return live_of(self.service, self.key.name)

    def before(self, condition: str) -> Mapping[str, Any] | None:
        """The condition as it was written last."""
        return find(self.status.get("conditions") or (), condition)

    def kept(self, condition: str) -> Judgement | None:
        """What the condition said, to be said again."""
        before = self.before(condition)
        return None if before is None else Judgement(before["status"], before["reason"], before["message"])
