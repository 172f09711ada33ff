"""Prometheus' HTTP API as a monitor uses it: a few instant queries, all at one moment.

The token stands in the operator's environment and goes to the server that is named there and to no other: whoever may
write a ModelMonitor could else have it sent to a server of their own.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from headrace_operators.mlflow import shown
from headrace_operators.model_monitor.queries import Queries

URL_VARIABLE = "HEADRACE_OPERATOR_PROMETHEUS_URL"
TOKEN_VARIABLE = "HEADRACE_OPERATOR_PROMETHEUS_TOKEN"  # noqa: S105 a variable's name
TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Measurement:
    """What Prometheus answered at one moment.

    Args:
        at: the moment.
        requests: in the window; None where there are no series.
        error_ratio: share of them that was answered 5xx; None without requests.
        p50_seconds, p99_seconds: latency; None without requests.
        problem: why there is no answer, as a reason and a sentence.
    """

    at: datetime
    requests: float | None = None
    error_ratio: float | None = None
    p50_seconds: float | None = None
    p99_seconds: float | None = None
    problem: tuple[str, str] | None = None


class _Refused(Exception):
    """Prometheus answered, and not with a result."""


class Prometheus:
    """Any Prometheus; holds the connections.

    Args:
        environment: where the token and the address that it is for stand.
        transport: instead of the network, for tests.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._own = environment.get(URL_VARIABLE, "")
        self._token = environment.get(TOKEN_VARIABLE, "")
        self._transport = transport
        self._http: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Give the connections back."""
        if self._http is not None:
            await self._http.aclose()

    async def measure(self, url: str, queries: Queries, at: datetime) -> Measurement:
        """Ask all QUERIES of the Prometheus at URL as of AT."""
        asked = (queries.requests, queries.errors, queries.p50, queries.p99)
        try:
            requests, errors, p50, p99 = await asyncio.gather(*(self._query(url, query, at) for query in asked))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            words = f"Prometheus at {shown(url)} does not answer: {error or type(error).__name__}"
            return Measurement(at, problem=("PrometheusUnreachable", words))
        except (_Refused, ValueError, KeyError, TypeError, IndexError) as error:
            words = f"Prometheus at {shown(url)} did not answer as one: {error or type(error).__name__}"
            return Measurement(at, problem=("QueryFailed", words))
        ratio = min(1.0, (errors or 0.0) / requests) if requests else None
        return Measurement(at, requests, ratio, p50, p99)

    async def _query(self, url: str, query: str, at: datetime) -> float | None:
        if self._http is None:
            self._http = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, transport=self._transport)
        address = f"{url.rstrip('/')}/api/v1/query"
        headers = {"Authorization": f"Bearer {self._token}"} if self._token and _same(url, self._own) else {}
        asked = {"query": query, "time": f"{at.timestamp():.3f}"}
        response = await self._http.post(address, data=asked, headers=headers)
        if response.status_code != httpx.codes.OK:
            raise _Refused(f"status {response.status_code}: {_error(response)}")
        return _number(response.json())


def _number(answer: Mapping[str, Any]) -> float | None:
    """The one number of an instant vector; None where there is none, or where it is none (0 divided by 0)."""
    result = answer["data"]["result"]
    if not result:
        return None
    value = float(result[0]["value"][1])
    return value if math.isfinite(value) else None


def _error(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])[:500]
    except (ValueError, KeyError, TypeError):
        return response.text[:200]


def _same(one: str, other: str) -> bool:
    try:
        first, second = httpx.URL(one), httpx.URL(other)
    except httpx.InvalidURL:
        return False
    return bool(other) and (first.scheme, first.host, first.port) == (second.scheme, second.host, second.port)
