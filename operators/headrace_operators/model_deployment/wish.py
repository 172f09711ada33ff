"""A wish: what is to be in force, and which try of it. A version that failed is tried again, less and less often.

The failure may be the store's and not the version's, and nobody may be awake. A try is another configuration id and
nothing else, so the front takes it up and the version that answers is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from headrace.api.model_deployment import ModelDeploymentSpec
from headrace.serving.contract import FrontConfig, StableVersion
from headrace_operators.model_deployment import rayservice
from headrace_operators.model_deployment.observed import Observed
from headrace_operators.model_deployment.resolve import reference
from headrace_operators.runtime.conditions import parse_time

RETRY_SECONDS = 60.0  # after the first failure; doubled at each try
LONGEST_RETRY_SECONDS = 1800.0


@dataclass(frozen=True)
class Wish:
    """A spec that can be carried out, with its version, as the RayService that carries it."""

    spec: ModelDeploymentSpec
    stable: StableVersion
    manifest: dict[str, Any]
    config: FrontConfig


def wish_of(observed: Observed, spec: ModelDeploymentSpec, stable: StableVersion, now: datetime) -> Wish:
    """What is to be in force at NOW."""
    first = _made(observed, spec, stable, 1)
    live = observed.live
    if live is None or not rayservice.same_wish(live.config.config_id, first.config.config_id):
        return first
    same = first if live.attempt == 1 else _made(observed, spec, stable, live.attempt)
    told_of_it = observed.status.get("configID") == live.config.config_id
    due = retry_at(observed.status, same) if told_of_it else None
    return same if due is None or due > now else _made(observed, spec, stable, live.attempt + 1)


def retry_at(status: Mapping[str, Any], wish: Wish | None) -> datetime | None:
    """When WISH is to be tried again, if STATUS tells that it failed."""
    if wish is None or not status.get("failedTime"):
        return None
    doublings = min(rayservice.attempt_of(wish.config.config_id) - 1, 10)
    wait = min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * 2**doublings)
    return parse_time(status["failedTime"]) + timedelta(seconds=wait)


def _made(observed: Observed, spec: ModelDeploymentSpec, stable: StableVersion, attempt: int) -> Wish:
    manifest = rayservice.manifest(
        observed.obj,
        spec,
        stable,
        image=spec.pods.image or observed.image,
        model=reference(spec.mlflow.tracking_uri, spec.model),
        attempt=attempt,
    )
    live = rayservice.live_of(manifest, observed.key.name)
    assert live is not None, "what was just made can be read"
    return Wish(spec, stable, manifest, live.config)
