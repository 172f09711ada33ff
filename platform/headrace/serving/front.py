"""The front: the ASGI application that answers for one deployment. It knows HTTP and V2, and neither Ray nor torch.

Written straight on ASGI: a router and a request object would cost as much as a small model's answer. Paths below the
deployment's route prefix:

    /v2, /v2/health/live, /v2/health/ready
    /v2/models/<name>[/versions/<version>][/ready | /infer]
    /headrace/v1/status
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from typing import Any

from headrace.serving import bodies, protocol
from headrace.serving.admission import Admission, Admitted
from headrace.serving.autoscaling import MeanInside
from headrace.serving.batching import Batcher
from headrace.serving.contract import STATUS_PATH
from headrace.serving.errors import RequestError, bad_request
from headrace.serving.measures import Measures
from headrace.serving.packages import ServedModel, answer_example
from headrace.serving.settings import FrontSettings
from headrace.serving.signature_check import check_inputs
from headrace.serving.versions import Live, Versions
from headrace_models.tasks.base import BadInput

logger = logging.getLogger("headrace.serving")

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
BINARY = (b"content-type", b"application/octet-stream")
VERSION_HEADER = b"headrace-model-version"
# Bodies from this size on are decoded in a thread: 256 KiB of JSON are 2 ms, in which nobody else would be answered.
_DECODE_IN_THREAD_FROM_BYTES = 256 * 1024


@dataclass(frozen=True)
class Served:
    """A loaded model with the batches that wait for it."""

    model: ServedModel
    batcher: Batcher


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    headers: Headers


class Front:
    """One replica's ASGI application.

    Args:
        versions: what answers; its models are `Served`, made by `serve`.
        settings: limits and batching.
        measures: where requests and batches are counted.
    """

    def __init__(self, versions: Versions[Served], settings: FrontSettings, measures: Measures) -> None:
        self.versions = versions
        self.settings = settings
        self.measures = measures
        self.admission = Admission(settings)
        self.inside = MeanInside()
        self._seconds_each = 0.0

    async def __call__(self, scope: Scope, receive: bodies.Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            answer = await self._route(scope, receive)
        except bodies.Disconnected:
            return
        except RequestError as error:
            answer = self._refusal(error)
        except Exception:
            logger.exception("a request failed")
            answer = self._refusal(RequestError(500, "the server failed on this request; its log says why"))
        live = self.versions.live
        headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode())]
        if live is not None and not any(name == VERSION_HEADER for name, _ in headers):
            headers.append((VERSION_HEADER, live.config.stable.version.encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _route(self, scope: Scope, receive: bodies.Receive) -> _Answer:
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if root and path.startswith(root):
            path = path[len(root) :]
        method: str = scope["method"]
        parts = path.strip("/").split("/")
        if parts[0] == "v2":
            if parts[-1] == "infer" and len(parts) > 3:
                _allow(method, "POST")
                return await self._infer(_model_path(parts[:-1], path), dict(scope["headers"]), receive)
            _allow(method, "GET", "HEAD")
            return self._describe(parts, path)
        if path == STATUS_PATH:
            _allow(method, "GET", "HEAD")
            return _json(200, self.versions.status().to_record())
        raise RequestError(404, f"there is nothing at {path}; the V2 protocol is under /v2")

    # what there is

    def _describe(self, parts: list[str], path: str) -> _Answer:
        if len(parts) == 1:
            about = {"name": "headrace", "version": installed_version("headrace"), "extensions": ["binary_tensor_data"]}
            return _json(200, about)
        if parts[1:] == ["health", "live"]:
            return _json(200, {"live": True})
        if parts[1:] == ["health", "ready"]:
            return _json(200 if self.versions.live else 503, {"ready": self.versions.live is not None})
        if parts[-1] == "ready":
            live = self._live(*_model_path(parts[:-1], path))
            return _json(200, {"name": live.config.model, "ready": True})
        live = self._live(*_model_path(parts, path))
        signature = live.model.model.signature
        return _json(
            200,
            {
                "name": live.config.model,
                "versions": [live.config.stable.version],
                "platform": "headrace_pytorch",
                "inputs": [spec.to_record() for spec in signature.inputs],
                "outputs": [spec.to_record() for spec in signature.outputs],
                "model_version": live.config.stable.version,
            },
        )

    def _live(self, name: str, version: str | None) -> Live[Served]:
        live = self.versions.live
        if live is None:
            error = self.versions.status().error
            sentence = error or "the model is still being loaded; try again in a few seconds"
            raise RequestError(503, sentence, retry_after_seconds=5)
        if name != live.config.model:
            raise RequestError(404, f"there is no model {name!r} here; this endpoint serves {live.config.model!r}")
        if version is not None and version != live.config.stable.version:
            served = live.config.stable.version
            raise RequestError(404, f"version {version!r} of {name!r} is not served; version {served!r} is")
        return live

    # inference

    async def _infer(
        self, model: tuple[str, str | None], headers: Mapping[bytes, bytes], receive: bodies.Receive
    ) -> _Answer:
        started = time.perf_counter()
        version, status = "", 500
        try:
            live = self._live(*model)
            version = live.config.stable.version
            length = bodies.declared_length(headers, self.settings.max_body_bytes)
            with self.admission.enter(self._seconds_each) as admitted:
                if length is not None and not self.admission.room_for(length):
                    admitted.hold(length)
                body = await bodies.read_body(receive, self.settings.max_body_bytes, admitted.hold)
                started = time.perf_counter()
                answer = await self._compute(live, body, headers, admitted)
            status = answer.status
            return answer
        except RequestError as error:
            status = error.status
            raise
        except bodies.Disconnected:
            status = 499
            raise
        finally:
            seconds = time.perf_counter() - started
            self._seconds_each += 0.05 * (seconds / max(1, self.admission.requests) - self._seconds_each)
            self.inside.add(seconds)
            self.measures.request(version, status, seconds)

    async def _compute(
        self, live: Live[Served], body: bytes, headers: Mapping[bytes, bytes], admitted: Admitted
    ) -> _Answer:
        request = await self._decode(body, headers, admitted)
        served, config = live.model, live.config
        rows = check_inputs(served.model.signature, request.inputs, request.datatypes)
        try:
            outputs = await served.batcher.submit(request.inputs, rows)
        except BadInput as problem:
            raise bad_request(str(problem)) from None
        encoded = protocol.encode_answer(config.model, config.stable.version, request, outputs)
        answer_headers: Headers = [(VERSION_HEADER, config.stable.version.encode())]
        if encoded.header_length is None:
            answer_headers.append(JSON)
        else:
            answer_headers += [BINARY, (protocol.HEADER_LENGTH, str(encoded.header_length).encode())]
        payload = encoded.body
        wanted = bodies.accepted_encoding(headers.get(b"accept-encoding", b"").decode("latin-1"))
        if wanted and len(payload) >= bodies.COMPRESS_FROM_BYTES:
            payload = bodies.compress(payload, wanted)
            answer_headers.append((b"content-encoding", wanted.encode()))
        return _Answer(200, payload, answer_headers)

    async def _decode(self, body: bytes, headers: Mapping[bytes, bytes], admitted: Admitted) -> protocol.InferRequest:
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        json_length = headers.get(protocol.HEADER_LENGTH)

        def decode() -> tuple[protocol.InferRequest, int]:
            plain = bodies.decompress(body, encoding, self.settings.max_body_bytes)
            return protocol.decode_request(plain, json_length), len(plain) - len(body)

        if len(body) < _DECODE_IN_THREAD_FROM_BYTES and not encoding:
            return decode()[0]
        request, more = await asyncio.to_thread(decode)
        if more > 0:
            admitted.hold(more)
        return request

    def _refusal(self, error: RequestError) -> _Answer:
        answer = _json(error.status, {"error": error.sentence})
        if error.retry_after_seconds is not None:
            answer.headers.append((b"retry-after", str(error.retry_after_seconds).encode()))
        if error.status == 413:  # the rest of the body is still on its way
            answer.headers.append((b"connection", b"close"))
        return answer


def serve(
    model: ServedModel, version: str, settings: FrontSettings, measures: Measures, executor: ThreadPoolExecutor
) -> Served:
    """MODEL, warm, with a batcher of its own that knows what a batch takes."""

    def observe(rows: int, seconds: float) -> None:
        measures.batch(version, rows, seconds)

    return Served(model, Batcher(model, settings, executor, observe, expected_seconds=answer_example(model)))


def _model_path(parts: list[str], path: str) -> tuple[str, str | None]:
    """Name and version of `v2/models/<name>[/versions/<version>]`."""
    if len(parts) == 3 and parts[1] == "models":
        return parts[2], None
    if len(parts) == 5 and parts[1] == "models" and parts[3] == "versions":
        return parts[2], parts[4]
    raise RequestError(404, f"there is nothing at {path}; models are at /v2/models/<name>")


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise RequestError(405, f"{method} is not allowed here; use {allowed[0]}")


def _json(status: int, value: Any) -> _Answer:
    return _Answer(status, json.dumps(value).encode(), [JSON])


async def _lifespan(receive: bodies.Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
