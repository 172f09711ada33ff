"""HTTP to MLflow servers: addresses, credentials, and what each kind of answer means.

Whose credentials go where is decided here and nowhere else: they are for the server that the operator's environment
names. Whoever may write a TrainingRun could else have them sent to a server of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import httpx

from headrace.base.errors import InvalidInput, Unavailable
from headrace_operators import mlflow_up

# An object may name any server, also one that means ill: neither its time nor its size is without end.
TIMEOUT_SECONDS = 10.0  # of one request; a server that is slower than this is as good as down
MOST_BYTES = 8 * 1024 * 1024  # of one answer
_LONGEST_CODE = 100
_GONE = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # the latter is MLflow's answer for an unknown alias


class Unreachable(Unavailable):
    """MLflow cannot be read now: it is down, slow, or refuses us. Temporary."""


class NotThere(InvalidInput):
    """MLflow answers, and does not have what was asked for. Stays so until somebody changes it."""


class Rest:
    """MLflow's REST API at any address; holds the connections.

    Args:
        environment: where MLFLOW_TRACKING_URI and the credentials for it stand (MLFLOW_TRACKING_TOKEN, or
            MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD).
        transport: instead of the network, for tests.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._own = _address(environment.get("MLFLOW_TRACKING_URI", ""))
        self._token = environment.get("MLFLOW_TRACKING_TOKEN", "")
        self._login = (
            environment.get("MLFLOW_TRACKING_USERNAME", ""),
            environment.get("MLFLOW_TRACKING_PASSWORD", ""),
        )
        self._transport = transport
        self._http: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Give the connections back."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def get(self, tracking_uri: str, path: str, asked: Mapping[str, str], what: str) -> dict[str, Any]:
        """Read one thing, WHAT. Raises NotThere, Unreachable."""
        with self._counted(tracking_uri):
            response = await self._request(tracking_uri, "GET", path, params=dict(asked))
            if response.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST) and _code(response) in _GONE:
                raise NotThere(
                    f"MLflow has no {what}", action="register it, or name one that is there", code="not-there"
                )
            return _answer(response, tracking_uri)

    async def post(self, tracking_uri: str, path: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Search. Raises Unreachable."""
        with self._counted(tracking_uri):
            return _answer(await self._request(tracking_uri, "POST", path, json=dict(asked)), tracking_uri)

    async def _request(self, tracking_uri: str, method: str, path: str, **rest: Any) -> httpx.Response:
        address = _address(tracking_uri)
        if address is None:
            raise Unreachable(f"{shown(tracking_uri)} is no address of an MLflow server: give http:// or https://")
        if self._http is None:
            self._http = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, transport=self._transport)
        url = f"{tracking_uri.rstrip('/')}/api/2.0/mlflow/{path}"
        place = f"MLflow at {shown(tracking_uri)}"
        try:
            async with (
                asyncio.timeout(TIMEOUT_SECONDS),
                self._http.stream(method, url, **self._credentials(address), **rest) as response,
            ):
                return httpx.Response(response.status_code, content=await _body(response, place))
        except TimeoutError:
            raise Unreachable(f"{place} does not answer within {TIMEOUT_SECONDS:.0f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            words = str(error) or type(error).__name__
            raise Unreachable(f"{place} does not answer: {words}") from error

    @contextlib.contextmanager
    def _counted(self, tracking_uri: str) -> Iterator[None]:
        """Note whether the server that is asked within answered."""
        address = _address(tracking_uri)
        if address is None:
            yield  # to fail: nobody can be asked
            return
        server = mlflow_up.Server("{}://{}:{}".format(*_origin(address)), self._is_own(address))
        try:
            yield
        except Unreachable:
            mlflow_up.failed(server)
            raise
        except NotThere:
            mlflow_up.answered(server)
            raise
        mlflow_up.answered(server)

    def _is_own(self, address: httpx.URL) -> bool:
        return self._own is not None and _origin(address) == _origin(self._own)

    def _credentials(self, address: httpx.URL) -> dict[str, Any]:
        """What a request to ADDRESS may carry."""
        if not self._is_own(address):
            return {}
        if self._token:
            return {"headers": {"Authorization": f"Bearer {self._token}"}}
        return {"auth": self._login} if self._login[0] else {}


def shown(uri: str) -> str:
    """URI as it may stand in a message: without credentials."""
    scheme, separator, rest = uri.partition("://")
    return f"{scheme}{separator}{rest.rsplit('@', 1)[-1]}"


def _address(uri: str) -> httpx.URL | None:
    try:
        url = httpx.URL(uri)
    except httpx.InvalidURL:
        return None
    return url if url.scheme in ("http", "https") and url.host else None


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}[url.scheme]


async def _body(response: httpx.Response, place: str) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            raise Unreachable(f"{place} answers with more than {MOST_BYTES} bytes: is it an MLflow server?")
    return bytes(body)


def _code(response: httpx.Response) -> str:
    try:
        return str(response.json().get("error_code", ""))[:_LONGEST_CODE]
    except (ValueError, AttributeError):
        return ""


def _answer(response: httpx.Response, tracking_uri: str) -> dict[str, Any]:
    place = f"MLflow at {shown(tracking_uri)}"
    if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise Unreachable(
            f"{place} refuses the operator (HTTP {response.status_code})",
            action="give the operator MLFLOW_TRACKING_URI and MLFLOW_TRACKING_TOKEN (or _USERNAME and _PASSWORD)",
        )
    if response.status_code != HTTPStatus.OK:
        raise Unreachable(f"{place} answers HTTP {response.status_code} {_code(response)}".rstrip())
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Unreachable(f"{place} answers with something else than JSON: is it an MLflow server?")
    return answer
