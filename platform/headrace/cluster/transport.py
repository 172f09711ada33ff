"""One request to the API server: sent again while the server is away, and every refusal an error of ours.

An API server that restarts, or is too busy, is no failure of a run that takes hours: requests are repeated with longer
and longer pauses for PATIENCE_SECONDS. All of them may be: an apply says what is wanted, as a patch of what only we
write does; any other patch carries the version that it was made from, a delete names a uid.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import urllib3

from headrace.base.errors import Unavailable
from headrace.cluster.errors import ApiError, refusal

PATIENCE_SECONDS = 300.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 30.0
_STRANGER_SECONDS = 10.0  # for which a server that knew us before may say that it does not


class Transport:
    """Requests to one API server.

    Args:
        client: `kubernetes.client.ApiClient`, configured.
        on_trouble: told when the server does not answer, and when it does again.
        patience_seconds: how long a server that is away is waited for.
    """

    def __init__(
        self,
        client: Any,
        *,
        on_trouble: Callable[[str], None] | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._pool = client.rest_client.pool_manager
        self.host = str(client.configuration.host).rstrip("/")
        self._on_trouble = on_trouble or (lambda _: None)
        self._patience = patience_seconds
        self._sleep = sleep
        self._answered = False  # ever

    def request(
        self,
        method: str,
        path: str,
        did: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: tuple[int, ...] = (),
    ) -> Any:
        """What the server answers, as JSON values, or as text where it is none.

        Args:
            did: what is asked, for people: "read TrainingRun digits".
            accept: refusals that are raised as `ApiError`, for the caller to handle.

        Raises:
            Unavailable: it did not answer for PATIENCE_SECONDS.
            RunFailed, InvalidInput: it refused.
        """
        try:
            response = self.patiently(lambda: self._send(method, path, query, body, content_type))
        except ApiError as error:
            if error.status in accept:
                raise
            raise error.headrace_error(did) from None
        text = response.data.decode("utf-8", "replace")
        return json.loads(text) if "json" in response.headers.get("content-type", "") else text

    def open_stream(self, path: str, query: Mapping[str, str], read_seconds: float) -> urllib3.BaseHTTPResponse:
        """An answer that goes on. Raises ApiError, or what urllib3 raises."""
        return self._send("GET", path, query, None, "application/json", stream=True, read_seconds=read_seconds)

    def patiently(self, do: Callable[[], Any]) -> Any:
        """What DO gives, which is done again while the server is away."""
        pauses, since = _pauses(), None
        while True:
            try:
                result = do()
                break
            except (urllib3.exceptions.HTTPError, OSError) as error:
                told, pause = f"{type(error).__name__}: {error}", next(pauses)
            except ApiError as error:
                if not self._may_pass(error, since):
                    raise
                told, pause = str(error), error.pause_seconds or next(pauses)
            since = self._wait(since, told, pause)
        self._answered = True
        if since is not None:
            self._on_trouble("the Kubernetes API server answers again")
        return result

    def _may_pass(self, error: ApiError, since: float | None) -> bool:
        """Whether ERROR, the newest since that moment, may go away by itself.

        A server that has just been restarted knows nobody's rights for a moment.
        """
        if error.status in (401, 403) and self._answered:
            return since is None or time.monotonic() - since < _STRANGER_SECONDS
        return error.temporary

    def _wait(self, since: float | None, told: str, pause: float) -> float:
        now = time.monotonic()
        if since is None:
            since = now
            self._on_trouble(f"waiting for the Kubernetes API server at {self.host}: {told}"[:500])
        if now - since + pause > self._patience:
            raise self.unavailable(told)
        self._sleep(pause)
        return since

    def unavailable(self, told: str) -> Unavailable:
        """The error for a server that stays away."""
        away = Unavailable(
            f"the Kubernetes API server at {self.host} could not be reached for {self._patience:.0f} s: {told}"[:1000],
            action="see that it runs and can be reached from here; what was begun in the cluster goes on meanwhile",
            code="kubernetes-unavailable",
        )
        away.waited_for = True
        return away

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str,
        *,
        stream: bool = False,
        read_seconds: float = _READ_SECONDS,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json, */*", "User-Agent": "headrace"}
        if body is not None:
            headers["Content-Type"] = content_type
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        url = f"{self.host}{path}?{urlencode(query)}" if query else f"{self.host}{path}"
        response: urllib3.BaseHTTPResponse = self._pool.request(
            method,
            url,
            body=None if body is None else json.dumps(body).encode(),
            headers=headers,
            retries=False,
            preload_content=not stream,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
        )
        if response.status >= 300:
            raise refusal(response.status, response.data, response.headers)
        return response


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
