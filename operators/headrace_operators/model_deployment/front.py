"""What the fronts themselves say: the only proof of a version that Headrace believes.

Each ingress behind the deployment's Service gives a new connection to the next replica, so asking over and over reaches
all of them. Addresses come from EndpointSlices: no DNS, no token, no Secret.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import httpx

from headrace.serving.contract import STATUS_PATH, FrontStatus
from headrace_operators.ray_pods import SERVE_PORT
from headrace_operators.runtime.kinds import Object

LIMIT_SECONDS = 5.0  # of one round of questions
_ONE_SECONDS = 2.0  # of one question
_LONGEST, _LONGEST_ERROR = 256, 2000  # characters: what answers ends up in a status


@dataclass(frozen=True)
class FrontAnswers:
    """One round of questions.

    Args:
        statuses: the newest answer of each replica, by its name.
        endpoints: how many ingresses there were to ask.
        problem: why the last question that had no answer had none.
    """

    statuses: tuple[FrontStatus, ...] = ()
    endpoints: int = 0
    problem: str = ""


def http_client(transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client that opens a connection for each question, so that each reaches another replica."""
    return httpx.AsyncClient(
        timeout=_ONE_SECONDS,
        trust_env=False,
        headers={"Connection": "close"},
        limits=httpx.Limits(max_keepalive_connections=0),
        transport=transport,
    )


def endpoints(slices: Iterable[Object]) -> list[str]:
    """Base addresses of the ingresses that are ready, in order, at the port that their slice names `serve`."""
    found: set[tuple[str, int]] = set()
    for each in slices:
        port = next((port["port"] for port in each.get("ports") or () if port.get("name") == "serve"), SERVE_PORT)
        for endpoint in each.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                found.update((address, port) for address in endpoint.get("addresses") or ())
    return [f"http://{f'[{address}]' if ':' in address else address}:{port}" for address, port in sorted(found)]


async def ask_fronts(
    http: httpx.AsyncClient, ingresses: Sequence[str], name: str, *, least: int, most: int
) -> FrontAnswers:
    """Ask in turn until MOST distinct replicas have answered, or LEAST have and nobody new turns up, or time is over.

    Args:
        http: made by `http_client`.
        ingresses: base addresses, made by `endpoints`.
        name: the deployment's, which is its route.
        least: replicas that must be there.
        most: replicas that may be there.
    """
    found: dict[str, FrontStatus] = {}
    problem, without_new = "", 0
    deadline = time.monotonic() + LIMIT_SECONDS
    for question in range(8 * max(1, most) if ingresses else 0):
        try:
            status = await _ask(http, f"{ingresses[question % len(ingresses)]}/{name}{STATUS_PATH}")
            without_new = without_new + 1 if status.replica in found else 0
            found[status.replica] = status
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            problem, without_new = _words(error), without_new + 1
        searched = len(found) >= least and without_new >= 2 * (len(found) + len(ingresses))
        if len(found) >= most or searched or time.monotonic() > deadline:
            break
    return FrontAnswers(tuple(found[replica] for replica in sorted(found)), len(ingresses), problem)


async def _ask(http: httpx.AsyncClient, url: str) -> FrontStatus:
    response = await http.get(url)
    response.raise_for_status()
    status = FrontStatus.from_record(response.json())
    said = (status.config_id, status.stable, status.loading, status.wanted)
    if len(status.replica) > _LONGEST or not all(word is None or _short(word) for word in said):
        raise ValueError("its words are none that a front says")
    return replace(status, error=None if status.error is None else str(status.error)[:_LONGEST_ERROR])


def _short(word: object) -> bool:
    return isinstance(word, str) and len(word) <= _LONGEST


def _words(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.request.url} answered {error.response.status_code}"
    if isinstance(error, httpx.HTTPError):
        return f"{error.request.url} did not answer ({type(error).__name__})"
    return f"it did not answer as a front does ({type(error).__name__})"
