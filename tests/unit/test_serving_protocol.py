"""The V2 protocol's codec: what can be sent comes back the same, everything else is refused in a sentence."""

from __future__ import annotations

import base64
import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from headrace.serving.errors import RequestError
from headrace.serving.protocol import (
    DATATYPES,
    InferRequest,
    RequestedOutput,
    datatype_of,
    decode_request,
    encode_answer,
    tensor_bytes,
    tensor_from_bytes,
)
from headrace.serving.signature_check import check_inputs
from headrace.serving.v2_client import decode_answer, encode_inputs
from headrace_models.tasks.base import Signature, TensorSpec

few = settings(max_examples=25, deadline=None)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(40))
numbers = st.sampled_from([dtype for dtype in DATATYPES.values() if dtype.kind != "O"])
shapes = arrays_of.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
tensors = numbers.flatmap(lambda dtype: arrays_of.arrays(dtype, shapes))
byte_tensors = arrays_of.arrays(object, shapes, elements=st.binary(max_size=9))


def request_of(*inputs: dict, **rest: object) -> bytes:
    return json.dumps({"inputs": list(inputs), **rest}).encode()


def refusal(body: bytes, header_length: bytes | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        decode_request(body, header_length)
    assert caught.value.status == 400
    assert "\n" not in caught.value.sentence
    return caught.value.sentence


ONE = {"name": "x", "datatype": "INT64", "shape": [2], "data": [1, 2]}


@few
@given(st.one_of(tensors, byte_tensors))
def test_a_tensor_comes_back_the_same_through_the_binary_form(array: np.ndarray) -> None:
    back = tensor_from_bytes("x", datatype_of(array.dtype), array.shape, tensor_bytes(array))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@few
@given(st.dictionaries(st.text(min_size=1, max_size=5), st.one_of(tensors, byte_tensors), min_size=1, max_size=3))
def test_what_the_client_sends_is_what_the_front_decodes(inputs: dict[str, np.ndarray]) -> None:
    body, length = encode_inputs(inputs)
    request = decode_request(body, str(length).encode())
    assert request.binary_outputs
    assert set(request.inputs) == set(inputs)
    for name, array in inputs.items():
        assert request.datatypes[name] == datatype_of(array.dtype)
        np.testing.assert_array_equal(request.inputs[name], array)


@few
@given(st.dictionaries(st.text(min_size=1, max_size=5), st.one_of(tensors, byte_tensors), min_size=1), st.booleans())
def test_what_the_front_answers_is_what_the_client_reads(outputs: dict[str, np.ndarray], binary: bool) -> None:
    request = InferRequest({}, {}, binary_outputs=binary)
    if not binary and not all(np.isfinite(a).all() for a in outputs.values() if a.dtype.kind == "f"):
        with pytest.raises(RequestError, match="not finite"):  # JSON has no infinities and no NaN
            encode_answer("m", "3", request, outputs)
        return
    answer = encode_answer("m", "3", request, outputs)
    length = None if answer.header_length is None else str(answer.header_length)
    inference = decode_answer(answer.body, length)
    assert (inference.model, inference.version) == ("m", "3")
    for name, array in outputs.items():
        if array.dtype == object and not binary:
            array = np.array([e.decode("utf-8", "replace").encode() for e in array.ravel()], object).reshape(
                array.shape
            )
        np.testing.assert_array_equal(inference.outputs[name], array)


@few
@given(st.binary(max_size=60), st.one_of(st.none(), st.integers(0, 80).map(lambda n: str(n).encode())))
def test_no_body_whatsoever_makes_the_decoder_fail_otherwise_than_with_a_sentence(
    body: bytes, length: bytes | None
) -> None:
    refusal(body, length)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=8,
)


@few
@given(json_values, json_values, json_values, json_values)
def test_no_json_whatsoever_makes_the_decoder_fail_otherwise_than_with_a_sentence(
    name: object, datatype: object, shape: object, data: object
) -> None:
    for head in ({"datatype": datatype}, {"datatype": "FP32"}, {"datatype": "BYTES"}):
        body = request_of({"name": name, "shape": shape, "data": data, **head}, outputs=data, parameters=shape)
        with contextlib.suppress(RequestError):
            decode_request(body)


def test_nested_data_is_taken_in_row_major_order() -> None:
    request = decode_request(request_of({"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}))
    np.testing.assert_array_equal(request.inputs["x"], np.array([[1, 2], [3, 4]], np.float32))


def test_the_id_and_the_named_outputs_are_taken() -> None:
    outputs = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": True}}]
    request = decode_request(request_of(ONE, id="7", outputs=outputs))
    assert request.id == "7"
    assert request.outputs == (RequestedOutput("a", False), RequestedOutput("b", True))


def test_json_strings_are_the_utf8_of_bytes() -> None:
    request = decode_request(request_of({"name": "x", "datatype": "BYTES", "shape": [2], "data": ["grün", "Qk0="]}))
    assert request.inputs["x"].tolist() == ["grün".encode(), b"Qk0="]


def test_a_picture_in_base64_is_decoded_and_other_base64_is_left_alone() -> None:
    text = base64.b64encode(PNG).decode()
    other = base64.b64encode(b"not a picture at all").decode()
    request = decode_request(request_of({"name": "x", "datatype": "BYTES", "shape": [2], "data": [text, other]}))
    assert request.inputs["x"].tolist() == [PNG, other.encode()]


def test_a_bitmap_in_base64_is_known_by_its_size() -> None:
    bitmap = b"BM" + (20).to_bytes(4, "little") + bytes(14)
    text = base64.b64encode(bitmap).decode()
    request = decode_request(request_of({"name": "x", "datatype": "BYTES", "shape": [1], "data": [text]}))
    assert request.inputs["x"].tolist() == [bitmap]


def test_the_base64_content_type_decodes_anything() -> None:
    text = base64.b64encode(b"\x00\xff").decode()
    item = {"name": "x", "datatype": "BYTES", "shape": [1], "data": [text], "parameters": {"content_type": "base64"}}
    assert decode_request(request_of(item)).inputs["x"].tolist() == [b"\x00\xff"]
    assert "not valid base64" in refusal(request_of(item | {"data": ["!"]}))


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"datatype": "FP8"}, "datatype of input 'x' is 'FP8'; allowed: BOOL"),
        ({"datatype": ["FP32"]}, "datatype of input 'x'"),
        ({"shape": [3]}, "has 2 elements, but its shape [3] needs 3"),
        ({"shape": [-1]}, "must be a list of whole numbers"),
        ({"shape": [True]}, "must be a list of whole numbers"),
        ({"data": [1.5, 2]}, "must be INT64 values only"),
        ({"data": [True, 2]}, "must be INT64 values only"),
        ({"data": [1, 2**70]}, "has a value that INT64 cannot hold"),
        ({"data": "12"}, "has no 'data'"),
        ({"data": [[1], 2]}, "elements"),
        ({"name": 5}, "every input must be an object"),
        ({"datatype": "BYTES", "data": [1, 2]}, "must be strings"),
        ({"parameters": {"binary_data_size": 4}}, "has both 'data' and 'binary_data_size'"),
        ({"parameters": []}, "must be an object"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared memory is not supported"),
    ],
)
def test_a_wrong_tensor_is_refused_in_a_sentence(item: dict, says: str) -> None:
    assert says in refusal(request_of(ONE | item))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"broken', "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b"{}", "has no 'inputs'"),
        (request_of(ONE, ONE), "given twice"),
        (request_of(ONE, id=7), "'id' must be a string"),
        (request_of(ONE, outputs="a"), "'outputs' must be a list"),
        (request_of(ONE, outputs=[{"name": "a", "parameters": {"classification": 2}}]), "classification"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_wrong_request_is_refused_in_a_sentence(body: bytes, says: str) -> None:
    assert says in refusal(body)


def test_binary_bytes_that_do_not_fit_are_refused() -> None:
    def binary(datatype: str, shape: list[int], data: bytes, size: int | None = None) -> tuple[bytes, bytes]:
        given = len(data) if size is None else size
        head = request_of(
            {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": given}}
        )
        return head + data, str(len(head)).encode()

    assert "has 4 bytes, but its shape [2] of FP32 needs 8" in refusal(*binary("FP32", [2], b"1234"))
    assert "should have 9 bytes after the JSON, but 8 are left" in refusal(*binary("FP32", [2], b"12345678", 9))
    assert "4 bytes after its last tensor" in refusal(*binary("FP32", [1], b"12345678", 4))
    assert "end in the middle" in refusal(*binary("BYTES", [1], struct.pack("<I", 9) + b"short"))
    assert "has 1 elements, but its shape [2] needs 2" in refusal(*binary("BYTES", [2], struct.pack("<I", 1) + b"a"))
    assert "Inference-Header-Content-Length" in refusal(b"{}", b"3")
    assert "Inference-Header-Content-Length" in refusal(b"{}", b"-1")


def test_an_output_that_the_model_does_not_have_is_refused() -> None:
    request = InferRequest({}, {}, outputs=(RequestedOutput("y", False),))
    with pytest.raises(RequestError, match="no output 'y'; it has x"):
        encode_answer("m", "1", request, {"x": np.zeros(1)})


SIGNATURE = Signature(
    inputs=(TensorSpec("image", "BYTES", (-1,)),),
    outputs=(),
    alternatives=((TensorSpec("image", "UINT8", (-1, 8, 8)),), (TensorSpec("image", "FP32", (-1, 1, 8, 8)),)),
)


def check(inputs: dict[str, np.ndarray], signature: Signature = SIGNATURE) -> int:
    return check_inputs(signature, inputs, {name: datatype_of(array.dtype) for name, array in inputs.items()})


def test_any_of_the_sets_of_inputs_fits() -> None:
    assert check({"image": np.array([b"a", b"b"], object)}) == 2
    assert check({"image": np.zeros((3, 8, 8), np.uint8)}) == 3
    assert check({"image": np.zeros((1, 1, 8, 8), np.float32)}) == 1


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"picture": np.zeros(1, np.uint8)}, "has no input 'picture'; it takes image (BYTES [-1]) or image (UINT8"),
        ({}, "the input 'image' is missing"),
        ({"image": np.zeros((1, 8, 8), np.int64)}, "has datatype INT64; the model takes BYTES or UINT8 or FP32"),
        ({"image": np.zeros((1, 8, 9), np.uint8)}, "has shape [1, 8, 9] of UINT8; the model takes [-1, 8, 8]"),
        ({"image": np.zeros((0, 8, 8), np.uint8)}, "hold no row"),
    ],
)
def test_what_does_not_fit_is_said(inputs: dict[str, np.ndarray], says: str) -> None:
    with pytest.raises(RequestError) as caught:
        check(inputs)
    assert says in caught.value.sentence


def test_inputs_must_agree_on_the_rows() -> None:
    table = Signature((TensorSpec("a", "FP32", (-1,)), TensorSpec("b", "BYTES", (-1,))), ())
    with pytest.raises(RequestError, match="disagree on the number of rows: 1, 2"):
        check({"a": np.zeros(1, np.float32), "b": np.array([b"", b""], object)}, table)
