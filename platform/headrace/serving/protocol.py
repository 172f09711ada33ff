"""The Open Inference Protocol (V2): requests to named arrays, named arrays to answers. Pure: bytes in, bytes out.

Specification: https://github.com/kserve/open-inference-protocol (REST), and the binary tensor data extension as Triton
publishes it: a JSON part of `Inference-Header-Content-Length` bytes, then each tensor's bytes in order.

BYTES tensors. In binary form each element has its length before it (four bytes, little-endian). In JSON each element is
a string: its UTF-8 bytes are taken, unless the input's parameter `content_type` is `base64`, or the string is base64 of
what is plainly a picture or a sound (by its first bytes); then the decoded bytes are taken. So `curl` can send a PNG.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from headrace.serving.errors import RequestError, bad_request
from headrace_models.tasks.base import Arrays

HEADER_LENGTH = b"inference-header-content-length"
DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_NUMBERS: set[type] = {int, float}
_JSON_KINDS: dict[str, set[type]] = {"BOOL": {bool}, "FP16": _NUMBERS, "FP32": _NUMBERS, "FP64": _NUMBERS}  # else int
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # made once: json.dumps makes one a call
# The first bytes of what people send as files: PNG, JPEG, GIF, WebP and WAV, TIFF, FLAC, Ogg. BMP is checked by size.
_MEDIA = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\x00", b"MM\x00*", b"fLaC", b"OggS")


@dataclass(frozen=True)
class RequestedOutput:
    """An output that the client named, and whether it wants it as bytes after the JSON."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """A decoded infer request. `datatypes` are V2's names as the client declared them."""

    inputs: Arrays
    datatypes: Mapping[str, str]
    id: str | None = None
    outputs: tuple[RequestedOutput, ...] | None = None  # None: all of them
    binary_outputs: bool = False  # for outputs that are not named


@dataclass(frozen=True)
class InferAnswer:
    """An encoded answer. `header_length` is the JSON part's size where tensors follow it, else None."""

    body: bytes
    header_length: int | None = None
    headers: Mapping[bytes, bytes] = field(default_factory=dict)


def datatype_of(dtype: np.dtype[Any]) -> str:
    """V2's name of a numpy dtype. Raises KeyError for one that V2 does not have."""
    if dtype.kind in "SU":
        return "BYTES"
    return _NAMES[dtype.newbyteorder("<") if dtype.byteorder == ">" else dtype]


# decoding


def decode_request(body: bytes | memoryview, header_length: bytes | None = None) -> InferRequest:
    """Decode an infer request's (uncompressed) BODY. Raises RequestError (400) with one sentence."""
    text, tail = _cut(body, header_length)
    try:
        record = json.loads(bytes(text))
    except (ValueError, RecursionError):
        raise bad_request("the request is not valid JSON") from None
    if not isinstance(record, dict):
        raise bad_request("the request must be a JSON object")
    parameters = _parameters(record, "the request")
    listed = record.get("inputs")
    if not isinstance(listed, list) or not listed:
        raise bad_request("the request has no 'inputs', a list of tensors with name, datatype, shape and data")
    inputs: Arrays = {}
    datatypes: dict[str, str] = {}
    for item in listed:
        name, datatype, shape, options = _tensor_head(item)
        if name in inputs:
            raise bad_request(f"the input {name!r} is given twice")
        size = options.get("binary_data_size")
        if size is None:
            inputs[name] = _json_tensor(name, datatype, shape, item, options)
        else:
            data, tail = _take(name, size, tail, item)
            inputs[name] = _binary_tensor(name, datatype, shape, data)
        datatypes[name] = datatype
    if len(tail):
        raise bad_request(f"the body has {len(tail)} bytes after its last tensor")
    binary = parameters.get("binary_data_output") is True
    return InferRequest(inputs, datatypes, _request_id(record), _requested(record, binary), binary)


def _cut(body: bytes | memoryview, header_length: bytes | None) -> tuple[memoryview, memoryview]:
    view = memoryview(body)
    if header_length is None:
        return view, view[len(view) :]
    if not header_length.isdigit() or int(header_length) > len(view):
        raise bad_request("the Inference-Header-Content-Length header is not a number within the body's length")
    length = int(header_length)
    return view[:length], view[length:]


def _request_id(record: Mapping[str, Any]) -> str | None:
    given = record.get("id")
    if given is not None and not isinstance(given, str):
        raise bad_request("the request's 'id' must be a string")
    return given


def _parameters(record: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    given = record.get("parameters")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise bad_request(f"the 'parameters' of {where} must be an object")
    if "shared_memory_region" in given:
        raise bad_request("shared memory is not supported; send the tensor's data")
    return given


def _requested(record: Mapping[str, Any], binary: bool) -> tuple[RequestedOutput, ...] | None:
    listed = record.get("outputs")
    if listed is None:
        return None
    if not isinstance(listed, list):
        raise bad_request("the request's 'outputs' must be a list of objects with a name")
    wanted: list[RequestedOutput] = []
    for item in listed:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            raise bad_request("the request's 'outputs' must be a list of objects with a name")
        parameters = _parameters(item, f"output {item['name']!r}")
        if parameters.get("classification"):
            raise bad_request("the classification extension is not supported; the outputs hold the classes already")
        wanted.append(RequestedOutput(item["name"], bool(parameters.get("binary_data", binary))))
    return tuple(wanted) or None


def _tensor_head(item: Any) -> tuple[str, str, tuple[int, ...], Mapping[str, Any]]:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise bad_request("every input must be an object with name, datatype, shape and data")
    name = item["name"]
    datatype = item.get("datatype")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise bad_request(f"the datatype of input {name!r} is {datatype!r}; allowed: {', '.join(DATATYPES)}")
    shape = item.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise bad_request(f"the shape of input {name!r} must be a list of whole numbers")
    return name, datatype, tuple(shape), _parameters(item, f"input {name!r}")


def _take(name: str, size: Any, tail: memoryview, item: Mapping[str, Any]) -> tuple[memoryview, memoryview]:
    if type(size) is not int or size < 0:
        raise bad_request(f"the binary_data_size of input {name!r} must be a whole number")
    if "data" in item:
        raise bad_request(f"the input {name!r} has both 'data' and 'binary_data_size'")
    if size > len(tail):
        raise bad_request(f"the input {name!r} should have {size} bytes after the JSON, but {len(tail)} are left")
    return tail[:size], tail[size:]


def _shape_mismatch(name: str, shape: Sequence[int], count: int) -> RequestError:
    return bad_request(
        f"the input {name!r} has {count} elements, but its shape {list(shape)} needs {prod(shape)}",
    )


def _binary_tensor(name: str, datatype: str, shape: tuple[int, ...], data: memoryview) -> np.ndarray:
    if datatype == "BYTES":
        elements = _split_bytes(name, data)
        if len(elements) != prod(shape):
            raise _shape_mismatch(name, shape, len(elements))
        return _objects(elements, shape)
    dtype = DATATYPES[datatype]
    if len(data) != prod(shape) * dtype.itemsize:
        raise bad_request(
            f"the input {name!r} has {len(data)} bytes, but its shape {list(shape)} of {datatype} needs "
            f"{prod(shape) * dtype.itemsize}"
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _split_bytes(name: str, data: memoryview) -> list[bytes]:
    elements: list[bytes] = []
    position, end = 0, len(data)
    while position < end:
        if position + 4 > end:
            break
        (length,) = struct.unpack_from("<I", data, position)
        position += 4
        if position + length > end:
            break
        elements.append(bytes(data[position : position + length]))
        position += length
    else:
        return elements
    raise bad_request(f"the BYTES of input {name!r} end in the middle of an element")


def _objects(elements: Sequence[bytes], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(elements), dtype=object)
    for index, element in enumerate(elements):  # assignment of a list would look into the elements
        array[index] = element
    return array.reshape(shape)


def _flatten(data: list[Any]) -> list[Any]:
    while data and isinstance(data[0], list):
        try:
            data = [element for part in data for element in part]
        except TypeError:
            return [None]
    return data


def _json_tensor(
    name: str, datatype: str, shape: tuple[int, ...], item: Mapping[str, Any], options: Mapping[str, Any]
) -> np.ndarray:
    data = item.get("data")
    if not isinstance(data, list):
        raise bad_request(f"the input {name!r} has no 'data', a list of its elements in row-major order")
    flat = _flatten(data)
    if len(flat) != prod(shape):
        raise _shape_mismatch(name, shape, len(flat))
    if datatype == "BYTES":
        decode = _base64_element if options.get("content_type") == "base64" else _text_element
        return _objects([decode(name, element) for element in flat], shape)
    kinds: set[type] = {type(element) for element in flat}
    if not kinds <= _JSON_KINDS.get(datatype, {int}):
        raise bad_request(f"the data of input {name!r} must be {datatype} values only")
    try:
        with np.errstate(over="ignore"):  # 1e300 as FP32 is infinity, as IEEE 754 has it
            return np.array(flat, dtype=DATATYPES[datatype]).reshape(shape)
    except (OverflowError, ValueError):
        raise bad_request(f"the data of input {name!r} has a value that {datatype} cannot hold") from None


def _text_element(name: str, element: Any) -> bytes:
    if not isinstance(element, str):
        raise bad_request(f"the elements of BYTES input {name!r} must be strings")
    return _media_in_base64(element) or element.encode("utf-8", "surrogatepass")


def _base64_element(name: str, element: Any) -> bytes:
    if not isinstance(element, str):
        raise bad_request(f"the elements of BYTES input {name!r} must be strings")
    try:
        return base64.b64decode(element, validate=True)
    except (binascii.Error, ValueError):
        raise bad_request(f"an element of input {name!r} is not valid base64, as its content_type says") from None


def _media_in_base64(text: str) -> bytes | None:
    """The picture or sound that TEXT is base64 of, or None."""
    try:
        head = base64.b64decode(text[:16], validate=True)
        if not head.startswith(_MEDIA) and not head.startswith(b"BM"):
            return None
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if head.startswith(b"BM") and int.from_bytes(data[2:6], "little") != len(data):
        return None
    return data


# encoding


def encode_answer(model: str, version: str, request: InferRequest, outputs: Arrays) -> InferAnswer:
    """The answer to REQUEST: the outputs it named (or all), each as JSON or as bytes, as it asked.

    Raises RequestError: 400 for an output that the model does not have, 500 for values that JSON cannot hold.
    """
    wanted = request.outputs or tuple(RequestedOutput(name, request.binary_outputs) for name in outputs)
    tensors: list[dict[str, Any]] = []
    tails: list[bytes] = []
    for output in wanted:
        if output.name not in outputs:
            raise bad_request(f"the model has no output {output.name!r}; it has {', '.join(sorted(outputs))}")
        array = outputs[output.name]
        tensor: dict[str, Any] = {
            "name": output.name,
            "datatype": datatype_of(array.dtype),
            "shape": list(array.shape),
        }
        if output.binary:
            tails.append(tensor_bytes(array))
            tensor["parameters"] = {"binary_data_size": len(tails[-1])}
        else:
            tensor["data"] = _json_elements(array)
        tensors.append(tensor)
    record: dict[str, Any] = {"model_name": model, "model_version": version}
    if request.id is not None:
        record["id"] = request.id
    record["outputs"] = tensors
    try:
        text = _ENCODER.encode(record).encode()
    except ValueError:
        raise RequestError(500, "the model's answer is not finite, which JSON cannot hold; ask for binary") from None
    if not tails:
        return InferAnswer(text)
    return InferAnswer(b"".join((text, *tails)), len(text))


def tensor_bytes(array: np.ndarray) -> bytes:
    """ARRAY in the binary extension's form."""
    if array.dtype.kind in "OSU":
        pieces: list[bytes] = []
        for element in array.ravel():
            data = element.encode() if isinstance(element, str) else bytes(element)
            pieces += (struct.pack("<I", len(data)), data)
        return b"".join(pieces)
    return np.ascontiguousarray(array, dtype=DATATYPES[datatype_of(array.dtype)]).tobytes()


def tensor_from_bytes(name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview) -> np.ndarray:
    """The inverse of `tensor_bytes`. Raises RequestError where the bytes do not fit."""
    return _binary_tensor(name, datatype, tuple(shape), memoryview(data))


def _json_elements(array: np.ndarray) -> list[Any]:
    flat = array.ravel()
    if array.dtype.kind in "OSU":
        return [e if isinstance(e, str) else bytes(e).decode("utf-8", "replace") for e in flat]
    listed: list[Any] = flat.tolist()
    return listed
