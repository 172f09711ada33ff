"""The client of Serve's declarative REST API, and the one who asks fronts whether a change is in force.

`PUT /api/serve/applications/` is what a RayService's `serveConfigV2` becomes too, so a laptop and a cluster change what
is served in the same way. It replaces all applications; whoever calls it holds the whole desired state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from headrace.base.errors import RunFailed, Unavailable
from headrace.serving.autoscaling import ReplicaRange
from headrace.serving.contract import STATUS_PATH, FrontConfig, FrontStatus

IMPORT_PATH = "headrace.serving.application:application"
FRONT = "front"  # the Serve deployment's name within its application


@dataclass(frozen=True)
class FrontReplicas:
    """What Serve says of one application."""

    status: str  # NOT_STARTED | DEPLOYING | RUNNING | DEPLOY_FAILED | DELETING | UNHEALTHY
    message: str
    wanted: int
    running: int

    @property
    def settled(self) -> bool:
        """All the replicas that are wanted run, and no others."""
        return self.running == self.wanted > 0


def application_record(
    name: str, config: FrontConfig, replicas: int | ReplicaRange, resources: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One front as it stands in `applications` of a Serve configuration.

    Args:
        name: the deployment's name: application, route prefix and V2's model name.
        config: the front's `user_config`.
        replicas: how many, or between how many Serve may choose.
        resources: `cpus`, `gpus`, `memory_bytes` of each replica; left out, a replica reserves nothing.
    """
    asked = resources or {}
    options: dict[str, Any] = {"num_cpus": asked.get("cpus") or 0}
    if asked.get("gpus"):
        options["num_gpus"] = asked["gpus"]
    if asked.get("memory_bytes"):
        options["memory"] = asked["memory_bytes"]
    scale: dict[str, Any] = (
        {"num_replicas": replicas} if isinstance(replicas, int) else {"autoscaling_config": replicas.to_record()}
    )
    return {
        "name": name,
        "route_prefix": f"/{name}",
        "import_path": IMPORT_PATH,
        "deployments": [
            {
                "name": FRONT,
                **scale,
                "user_config": config.to_record(),
                "ray_actor_options": options,
                # A new user_config reaches every replica at once, not only after a starting one runs.
                "rolling_update_percentage": 1.0,
                # The front has admission of its own, which says when to come again.
                "max_ongoing_requests": 100_000,
                "max_queued_requests": -1,
                "health_check_period_s": 2,
                "health_check_timeout_s": 30,
                "graceful_shutdown_timeout_s": 10,
                "graceful_shutdown_wait_loop_s": 0.5,
            }
        ],
    }


def serve_record(
    applications: Sequence[Mapping[str, Any]],
    *,
    host: str,
    port: int,
    ingresses: Literal["HeadOnly", "EveryNode"] = "HeadOnly",
) -> dict[str, Any]:
    """A whole Serve configuration; host, port and ingresses take effect when Serve starts, later ones are ignored.

    Args:
        applications: all of them, made by `application_record`.
        host: address that the ingresses listen on.
        port: their port.
        ingresses: on the head only, or on every node that has a replica, so that a lost head closes no door.
    """
    return {
        "proxy_location": ingresses,
        "http_options": {"host": host, "port": port, "keep_alive_timeout_s": 90},
        "logging_config": {"enable_access_log": False},
        "applications": list(applications),
    }


class ServeClient:
    """Serve's REST API on a Ray head's dashboard. The token file is read at each request, as it may be rotated."""

    def __init__(self, dashboard_url: str, token: str | None = None, *, timeout_seconds: float = 60.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=dashboard_url, headers=headers, timeout=timeout_seconds, trust_env=False)

    def __enter__(self) -> ServeClient:
        return self

    def __exit__(self, *details: object) -> None:
        self._http.close()

    def put(self, record: Mapping[str, Any]) -> None:
        """Make RECORD the whole of what is served. Raises RunFailed (refused), Unavailable (not reached)."""
        self._request("PUT", json=record)

    def details(self) -> dict[str, Any]:
        """Everything Serve tells. Raises Unavailable."""
        found = self._request("GET").json()
        return found if isinstance(found, dict) else {}

    def replicas(self, name: str) -> FrontReplicas | None:
        """What Serve says of the application NAME, or None where it has none. Raises Unavailable."""
        return replicas_of(self.details(), name)

    def _request(self, method: str, **rest: Any) -> httpx.Response:
        try:
            response = self._http.request(method, "/api/serve/applications/", **rest)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"Ray Serve's API at {self._http.base_url} did not answer: {error or type(error).__name__}",
                action="look whether the Ray head runs: headrace doctor",
            ) from error
        if response.status_code in (401, 403):
            raise Unavailable(
                f"the Ray head at {self._http.base_url} does not accept this token",
                action="another Ray head may have taken its port: headrace down, then headrace up",
            )
        if response.status_code >= 500:
            raise Unavailable(f"Ray Serve's API failed: {_last_line(response.text)}", action="look into the head's log")
        if response.status_code >= 400:
            raise RunFailed(f"Ray Serve refused the configuration: {_last_line(response.text)}", code="serve-refused")
        return response


def replicas_of(details: Mapping[str, Any], name: str) -> FrontReplicas | None:
    """What Serve's DETAILS say of the application NAME."""
    application = (details.get("applications") or {}).get(name)
    if application is None:
        return None
    deployments = application.get("deployments") or {}
    front = deployments.get(FRONT) or {}
    states = [replica.get("state") for replica in front.get("replicas") or ()]
    wanted = front.get("target_num_replicas") or (front.get("deployment_config") or {}).get("num_replicas") or 0
    message = application.get("message") or front.get("message") or ""
    return FrontReplicas(
        status=str(application.get("status")),
        message=str(message),
        wanted=int(wanted) if isinstance(wanted, int) else 0,
        running=states.count("RUNNING"),
    )


def front_statuses(
    url: str, replicas: int, *, timeout_seconds: float = 5.0, transport: httpx.BaseTransport | None = None
) -> dict[str, FrontStatus]:
    """The statuses of the replicas behind URL, by replica name, asked until REPLICAS distinct ones have answered.

    Each question goes over a new connection, which the ingress gives to the replicas in turn. Fewer than REPLICAS come
    back where the time was too short or nothing answers; a caller asks again.
    """
    found: dict[str, FrontStatus] = {}
    deadline = time.monotonic() + timeout_seconds
    with httpx.Client(
        timeout=timeout_seconds,
        trust_env=False,
        headers={"Connection": "close"},
        limits=httpx.Limits(max_keepalive_connections=0),
        transport=transport,
    ) as http:
        for _ in range(8 * max(1, replicas)):
            try:
                response = http.get(f"{url}{STATUS_PATH}")
                if response.status_code == 200:
                    status = FrontStatus.from_record(response.json())
                    found[status.replica] = status
            except (httpx.HTTPError, ValueError, KeyError):
                pass
            if len(found) >= replicas or time.monotonic() > deadline:
                break
    return found


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:500] if lines else "no reason given"
