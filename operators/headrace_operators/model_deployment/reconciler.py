"""The ModelDeployment operator: gathers what is known, lets the pure plan decide, and sees to it that more gets known.

Fronts and the registry are asked beside the reconcile: every second while a change is under way, every half minute when
all is quiet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime

import httpx
from pydantic import ValidationError

from headrace.api.model_deployment import ModelDeploymentSpec
from headrace_operators.background import Background
from headrace_operators.kinds import (
    ENDPOINT_SLICE,
    MODEL_DEPLOYMENT,
    MODEL_DEPLOYMENT_LABEL,
    POD,
    RAY_CLUSTER,
    RAY_SERVICE,
)
from headrace_operators.mlflow import MLflow
from headrace_operators.model_deployment import metrics, progress, sizing
from headrace_operators.model_deployment.front import FrontAnswers, ask_fronts, endpoints, http_client
from headrace_operators.model_deployment.keep import keep_cluster, keep_service, keep_slice
from headrace_operators.model_deployment.observed import Observed
from headrace_operators.model_deployment.plan import plan
from headrace_operators.model_deployment.resolve import Resolution, reference, resolve
from headrace_operators.model_deployment.swaps import Swaps, Which, which
from headrace_operators.pods import keep_pod
from headrace_operators.runtime.actions import Plan
from headrace_operators.runtime.cache import Caches, Watch, by_controller, by_label, by_name
from headrace_operators.runtime.conditions import find
from headrace_operators.runtime.kinds import Key, Object, key_of
from headrace_operators.settings import OperatorSettings

QUIET_SECONDS = 30.0
BUSY_SECONDS = 1.0
STUCK_SECONDS = 5.0  # of a change that has been under way for longer than
_STUCK_AFTER_SECONDS = 300.0
_SERVICE_LABEL = "kubernetes.io/service-name"
_SERVE_SERVICE = "ray.io/serve"  # KubeRay's label of the Service, which its EndpointSlices have as well


def served_by(obj: Object) -> Iterable[Key]:
    """The deployment whose Service an EndpointSlice belongs to."""
    service = (obj["metadata"].get("labels") or {}).get(_SERVICE_LABEL, "")
    name = service.removesuffix("-serve-svc")
    return (Key(key_of(obj).namespace, name),) if name and name != service else ()


class ModelDeploymentReconciler:
    """See the module.

    Args:
        settings: what whoever starts the operator has set.
        mlflow: the registry.
        transport: how fronts are reached, for tests.
        clock: seconds that only go forward.
    """

    name = "modeldeployment"
    kind = MODEL_DEPLOYMENT
    watches = (
        Watch(RAY_SERVICE, by_name, keep_service, optional=True),
        # KubeRay gives a cluster its RayService's labels; the clusters of trainings, which are many, have others.
        Watch(RAY_CLUSTER, by_controller(RAY_SERVICE), keep_cluster, MODEL_DEPLOYMENT_LABEL, optional=True),
        Watch(POD, by_label(MODEL_DEPLOYMENT_LABEL), keep_pod, label_selector=MODEL_DEPLOYMENT_LABEL),
        Watch(ENDPOINT_SLICE, served_by, keep_slice, label_selector=_SERVE_SERVICE),
    )

    def __init__(
        self,
        settings: OperatorSettings,
        mlflow: MLflow,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._mlflow = mlflow
        self._clock = clock
        self._http = http_client(transport)
        self._fronts: Background[Which, FrontAnswers] = Background(clock)
        self._registry: Background[str, Resolution] = Background(clock)
        self._swaps = Swaps(clock)
        self._caches: Caches | None = None
        metrics.count_before_scrape(self._deployments)

    async def plan(self, obj: Object, caches: Caches, now: datetime) -> Plan:
        """What to do about the ModelDeployment OBJ."""
        self._caches = caches
        key = key_of(obj)
        spec = _spec(obj)
        observed = Observed(
            obj,
            image=self._settings.runtime_image,
            ray_service=caches.get(RAY_SERVICE, key),
            ray_clusters=tuple(caches.of(RAY_CLUSTER, key)),
            pods=tuple(caches.of(POD, key)),
        )
        resolution, registry_again = self._resolution(observed, spec)
        answered = self._fronts.newest(which(obj))
        observed = replace(
            observed,
            resolution=resolution,
            answers=answered.value if answered is not None else None,
            kuberay=not caches.stores[RAY_SERVICE].missing,
            live_seconds=self._swaps.live_seconds(observed),
        )
        made = plan(observed, now)
        self._swaps.note(observed, made.status)
        fronts_again = self._ask_fronts(observed, made, spec, endpoints(caches.of(ENDPOINT_SLICE, key)))
        again = [seconds for seconds in (made.again_after_seconds, registry_again, fronts_again) if seconds is not None]
        return replace(made, again_after_seconds=min(again, default=None))

    async def close(self) -> None:
        """End what is under way."""
        await self._fronts.close()
        await self._registry.close()
        await self._http.aclose()

    async def settle(self) -> None:
        """Wait for the answers that are under way: for tests."""
        await self._registry.settle()
        await self._fronts.settle()

    def _resolution(
        self, observed: Observed, spec: ModelDeploymentSpec | None
    ) -> tuple[Resolution | None, float | None]:
        """The registry's newest answer. A version's number is asked for until it is known, an alias for ever."""
        if spec is None or (spec.model.alias is None and spec.model.version is None):
            return None, None
        model, uri = spec.model, spec.mlflow.tracking_uri
        asked = reference(uri, model)
        newest = self._registry.newest(asked)
        live = observed.live
        if model.alias is None and live is not None and live.model == asked:
            return (newest.value if newest is not None else None), None
        interval = self._settings.mlflow_interval_seconds
        again = self._registry.keep_fresh(asked, lambda: resolve(self._mlflow, uri, model), interval)
        return (newest.value if newest is not None else None), again

    def _ask_fronts(
        self, observed: Observed, made: Plan, spec: ModelDeploymentSpec | None, ingresses: list[str]
    ) -> float | None:
        if observed.service is None:
            return None if observed.kuberay else STUCK_SECONDS
        least = sizing.least_replicas(spec) if spec is not None else 1
        most = sizing.most_replicas(spec) if spec is not None else int(observed.status.get("replicas") or 1)
        known = observed.answers is not None and observed.answers.endpoints == len(ingresses)
        every = _interval(made, observed.live_seconds) if known else BUSY_SECONDS
        name = observed.key.name
        return self._fronts.keep_fresh(
            which(observed.obj), lambda: ask_fronts(self._http, ingresses, name, least=least, most=most), every
        )

    def _deployments(self) -> Iterator[Object]:
        """All there are; also the moment to forget what is gone."""
        caches = self._caches
        if caches is None:
            return
        found = [obj for key in sorted(caches.primaries()) if (obj := caches.get(MODEL_DEPLOYMENT, key)) is not None]
        self._swaps.forget_all_but({which(obj) for obj in found})
        yield from found


def _spec(obj: Object) -> ModelDeploymentSpec | None:
    try:
        return ModelDeploymentSpec.model_validate(obj["spec"])
    except ValidationError:
        return None  # the plan says so


def _interval(made: Plan, live_seconds: float) -> float:
    """How old an answer may be: a change under way is watched closely, unless it is stuck."""
    conditions = (made.status or {}).get("conditions") or ()
    going, there = find(conditions, "Progressing"), find(conditions, "Available")
    assert going is not None, "every plan says how far it is"
    assert there is not None, "every plan says what answers"
    ended = going["reason"] in progress.FAILURES
    if going["status"] == "False" and (ended or there["status"] == "True"):
        return QUIET_SECONDS
    return BUSY_SECONDS if live_seconds < _STUCK_AFTER_SECONDS else STUCK_SECONDS
