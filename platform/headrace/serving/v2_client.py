"""A small client of the Open Inference Protocol, for `headrace predict` and for tests: arrays in, arrays out.

It sends and asks for binary tensors, which costs neither side a conversion. Needs numpy and httpx, nothing of Ray.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from headrace.base.errors import HeadraceError, InvalidInput, RunFailed, Unavailable
from headrace.serving.errors import RequestError
from headrace.serving.protocol import DATATYPES, datatype_of, tensor_bytes, tensor_from_bytes
from headrace_models.tasks.base import Arrays

_HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Inference:
    """An answer: the model and version that gave it, and its arrays."""

    model: str
    version: str
    outputs: Arrays


def metadata(url: str, *, timeout_seconds: float = 10.0) -> dict[str, Any]:
    """V2's metadata of the model at endpoint URL (`http://HOST:PORT/<deployment>`). Raises as `infer` does."""
    response = _send("GET", f"{url}/v2/models/{_model_name(url)}", timeout_seconds=timeout_seconds)
    found: dict[str, Any] = response.json()
    return found


def infer(url: str, inputs: Arrays, *, version: str | None = None, timeout_seconds: float = 60.0) -> Inference:
    """Ask the endpoint URL for its answer to INPUTS, named arrays with the batch along axis 0 (BYTES as dtype object).

    Raises:
        InvalidInput: the endpoint refused the request (4xx), in its own words.
        Unavailable: it cannot be reached, or has no room (503).
        RunFailed: it failed (5xx).
    """
    body, header_length = encode_inputs(inputs)
    suffix = f"/versions/{version}" if version else ""
    response = _send(
        "POST",
        f"{url}/v2/models/{_model_name(url)}{suffix}/infer",
        content=body,
        headers={_HEADER_LENGTH: str(header_length), "Content-Type": "application/octet-stream"},
        timeout_seconds=timeout_seconds,
    )
    return decode_answer(response.content, response.headers.get(_HEADER_LENGTH))


def encode_inputs(inputs: Arrays) -> tuple[bytes, int]:
    """An infer request's body with binary tensors, and the size of its JSON part."""
    tails = {name: tensor_bytes(array) for name, array in inputs.items()}
    record = {
        "inputs": [
            {
                "name": name,
                "datatype": datatype_of(array.dtype),
                "shape": list(array.shape),
                "parameters": {"binary_data_size": len(tails[name])},
            }
            for name, array in inputs.items()
        ],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"".join((text, *tails.values())), len(text)


def decode_answer(body: bytes, header_length: str | None) -> Inference:
    """An infer answer's arrays, from JSON, binary tensors or both. Raises RunFailed for what is not V2."""
    try:
        cut = len(body) if header_length is None else int(header_length)
        record = json.loads(body[:cut])
        tail = memoryview(body)[cut:]
        outputs: Arrays = {}
        for tensor in record["outputs"]:
            size = (tensor.get("parameters") or {}).get("binary_data_size")
            data = tail[: size or 0]
            tail = tail[size or 0 :]
            outputs[tensor["name"]] = _tensor(tensor, None if size is None else data)
        return Inference(record["model_name"], record.get("model_version", ""), outputs)
    except (ValueError, KeyError, TypeError, RequestError) as error:
        raise RunFailed("the endpoint's answer is not of the V2 protocol", code="endpoint-failed") from error


def _tensor(tensor: Mapping[str, Any], data: memoryview | None) -> np.ndarray:
    shape = tensor["shape"]
    if data is not None:
        return tensor_from_bytes(tensor["name"], tensor["datatype"], shape, data)
    if tensor["datatype"] == "BYTES":
        array = np.empty(len(tensor["data"]), dtype=object)
        array[:] = [text.encode() for text in tensor["data"]]
        return array.reshape(shape)
    return np.array(tensor["data"], dtype=DATATYPES[tensor["datatype"]]).reshape(shape)


def _model_name(url: str) -> str:
    return url.rstrip("/").rsplit("/", 1)[-1]


def _send(method: str, url: str, *, timeout_seconds: float, **rest: Any) -> httpx.Response:
    try:
        response = httpx.request(method, url, timeout=timeout_seconds, trust_env=False, **rest)
    except httpx.HTTPError as error:
        raise Unavailable(
            f"the endpoint {url} cannot be reached: {error or type(error).__name__}",
            action="headrace deployments shows what is served; headrace up brings it back",
        ) from error
    if response.status_code == 200:
        return response
    raise _failure(url, response)


def _failure(url: str, response: httpx.Response) -> HeadraceError:
    try:
        sentence = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        sentence = response.text.strip()[:300] or f"status {response.status_code}"
    if response.status_code == 503:
        return Unavailable(f"{url}: {sentence}", action="try again in a few seconds")
    if response.status_code < 500:
        return InvalidInput(
            f"{url}: {sentence}", action="headrace deployments shows what is served", code="request-refused"
        )
    return RunFailed(f"{url}: {sentence}", action="look into the replica's log", code="endpoint-failed")
