"""The front's HTTP side, by calling the ASGI application itself: no socket, no Ray, a model that only counts."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from headrace.serving import bodies
from headrace.serving.batching import Batcher, answer_together
from headrace.serving.contract import FrontConfig, FrontStatus, StableVersion
from headrace.serving.errors import RequestError
from headrace.serving.front import Front, Served, serve
from headrace.serving.measures import Measures
from headrace.serving.settings import FrontSettings
from headrace.serving.v2_client import decode_answer, encode_inputs
from headrace.serving.versions import Versions
from headrace_models.tasks.base import Arrays, BadInput, Signature, TensorSpec

STABLE = StableVersion("1", "/store/packages/a", "a" * 64)
INFER = "/v2/models/digits/infer"


class Doubling:
    """Doubles `x`, refuses -13, fails on -99 and remembers the sizes of its batches."""

    signature = Signature((TensorSpec("x", "INT64", (-1,)),), (TensorSpec("y", "INT64", (-1,)),))
    example: Arrays = {"x": np.array([1])}

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor
        self.sizes: list[int] = []

    def preprocess(self, inputs: Arrays) -> np.ndarray:
        if -13 in inputs["x"]:
            raise BadInput("the element -13 of input 'x' is not an image")
        return inputs["x"]

    def answer(self, batches: list[np.ndarray]) -> list[Arrays]:
        if any(-99 in batch for batch in batches):
            raise RuntimeError("out of memory")
        self.sizes.append(len(batches))
        return [{"y": batch * self.factor} for batch in batches]


class Counting(Measures):
    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []
        self.batches: list[tuple[str, int]] = []

    def request(self, version: str, status: int, seconds: float) -> None:
        self.requests.append((version, status))

    def batch(self, version: str, rows: int, seconds: float) -> None:
        self.batches.append((version, rows))


class Answer:
    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.status: int = messages[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        self.body: bytes = b"".join(message.get("body", b"") for message in messages[1:])

    def json(self) -> Any:
        return json.loads(self.body)


class Fixture:
    def __init__(self, **settings: Any) -> None:
        self.settings = FrontSettings(**settings)
        self.measures = Counting()
        self.models: dict[str, Doubling] = {}
        self.executor = ThreadPoolExecutor(1)
        self.versions: Versions[Served] = Versions("replica-a", self.load)
        self.front = Front(self.versions, self.settings, self.measures)

    def load(self, version: StableVersion) -> Served:
        if version.version == "bad":
            raise ValueError("model.safetensors is not the file that was packed")
        model = self.models[version.version] = Doubling(2 * int(version.version))
        served = serve(model, version.version, self.settings, self.measures, self.executor)
        model.sizes.clear()
        return served

    def configure(self, version: str = "1", config_id: str = "c1") -> None:
        stable = StableVersion(version, f"/store/packages/{version}", "a" * 64)
        self.versions.configure(FrontConfig(config_id, "digits", stable))
        assert self.versions.wait_idle(60)

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, pieces: int = 1
    ) -> Answer:
        sent: list[dict[str, Any]] = []
        size = -(-len(body) // pieces) or 1
        parts = [body[i : i + size] for i in range(0, len(body), size)] or [b""]
        given = [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]
        if pieces == 1 and body:
            given.append((b"content-length", str(len(body)).encode()))

        async def receive() -> dict[str, Any]:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": method, "path": f"/digits{path}", "root_path": "/digits", "headers": given
        }  # fmt: skip
        await self.front(scope, receive, send)
        return Answer(sent)

    def ask(self, method: str, path: str, body: bytes = b"", **rest: Any) -> Answer:
        return asyncio.run(self.send(method, path, body, **rest))


def body_of(*values: int, **rest: Any) -> bytes:
    item = {"name": "x", "datatype": "INT64", "shape": [len(values)], "data": list(values)}
    return json.dumps({"inputs": [item], **rest}).encode()


@pytest.fixture
def front() -> Fixture:
    made = Fixture()
    made.configure()
    return made


def test_an_answer_names_its_model_and_version(front: Fixture) -> None:
    answer = front.ask("POST", INFER, body_of(3, 4, id="q"))
    assert answer.status == 200
    assert answer.headers["headrace-model-version"] == "1"
    assert answer.json() == {
        "model_name": "digits",
        "model_version": "1",
        "id": "q",
        "outputs": [{"name": "y", "datatype": "INT64", "shape": [2], "data": [6, 8]}],
    }


def test_the_version_may_be_named(front: Fixture) -> None:
    assert front.ask("POST", "/v2/models/digits/versions/1/infer", body_of(1)).status == 200
    assert front.ask("GET", "/v2/models/digits/versions/1").status == 200
    assert front.ask("GET", "/v2/models/digits/versions/1/ready").status == 200


def test_metadata_says_what_the_model_takes(front: Fixture) -> None:
    assert front.ask("GET", "/v2/models/digits").json() == {
        "name": "digits",
        "versions": ["1"],
        "platform": "headrace_pytorch",
        "inputs": [{"name": "x", "datatype": "INT64", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
        "model_version": "1",
    }
    assert front.ask("GET", "/v2").json()["extensions"] == ["binary_tensor_data"]


def test_binary_tensors_go_both_ways(front: Fixture) -> None:
    body, length = encode_inputs({"x": np.array([5, 6])})
    answer = front.ask("POST", INFER, body, headers={"Inference-Header-Content-Length": str(length)})
    inference = decode_answer(answer.body, answer.headers["inference-header-content-length"])
    assert inference.outputs["y"].tolist() == [10, 12]
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compression_goes_both_ways(front: Fixture, encoding: str, compress: Any) -> None:
    values = range(600)
    headers = {"Content-Encoding": encoding, "Accept-Encoding": encoding}
    answer = front.ask("POST", INFER, compress(body_of(*values)), headers=headers)
    assert answer.headers["content-encoding"] == encoding
    plain = gzip.decompress(answer.body) if encoding == "gzip" else zlib.decompress(answer.body)
    assert json.loads(plain)["outputs"][0]["data"] == [2 * v for v in values]


def test_short_answers_are_not_compressed(front: Fixture) -> None:
    answer = front.ask("POST", INFER, body_of(1), headers={"Accept-Encoding": "gzip, deflate"})
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", INFER, b'{"inputs', 400, "not valid JSON"),
        ("POST", INFER, body_of(1).replace(b'"x"', b'"z"'), 400, "no input 'z'; it takes x (INT64 [-1])"),
        ("POST", INFER, body_of(1).replace(b"INT64", b"INT32"), 400, "has datatype INT32; the model takes INT64"),
        (
            "POST",
            INFER,
            body_of(1, 2).replace(b"[2]", b"[1, 2]"),
            400,
            "has shape [1, 2] of INT64; the model takes [-1]",
        ),
        ("POST", INFER, body_of(-13), 400, "the element -13 of input 'x' is not an image"),
        ("POST", INFER, body_of(1, outputs=[{"name": "w"}]), 400, "no output 'w'; it has y"),
        ("POST", "/v2/models/cats/infer", body_of(1), 404, "no model 'cats' here; this endpoint serves 'digits'"),
        ("POST", "/v2/models/digits/versions/9/infer", body_of(1), 404, "version '9' of 'digits' is not served"),
        ("GET", "/v2/models/cats", b"", 404, "no model 'cats' here"),
        ("GET", "/v2/models/digits/versions/9/ready", b"", 404, "version '9'"),
        ("GET", "/v2/nothing", b"", 404, "there is nothing at"),
        ("GET", "/", b"", 404, "the V2 protocol is under /v2"),
        ("GET", INFER, b"", 405, "GET is not allowed here; use POST"),
        ("POST", "/v2/models/digits", b"", 405, "POST is not allowed here; use GET"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence_and_the_next_request_works(
    front: Fixture, method: str, path: str, body: bytes, status: int, says: str
) -> None:
    answer = front.ask(method, path, body)
    assert answer.status == status
    assert list(answer.json()) == ["error"]
    assert says in answer.json()["error"]
    assert front.ask("POST", INFER, body_of(1)).status == 200


def test_a_model_that_fails_is_our_mistake_and_says_no_secrets(front: Fixture) -> None:
    answer = front.ask("POST", INFER, body_of(-99))
    assert answer.status == 500
    assert "out of memory" not in answer.json()["error"]


def test_an_unknown_content_encoding_is_refused(front: Fixture) -> None:
    answer = front.ask("POST", INFER, body_of(1), headers={"Content-Encoding": "br"})
    assert (answer.status, answer.json()["error"][:23]) == (415, "Content-Encoding 'br' i")
    assert front.ask("POST", INFER, b"junk", headers={"Content-Encoding": "gzip"}).status == 400


def test_a_long_body_is_refused_by_its_length_by_its_count_and_after_decompression() -> None:
    front = Fixture(max_body_bytes=2000)
    front.configure()
    long = body_of(*range(1000))
    assert front.ask("POST", INFER, long).status == 413
    assert front.ask("POST", INFER, long, pieces=10).status == 413
    squeezed = gzip.compress(b" " * 1_000_000)
    assert len(squeezed) < 2000
    assert front.ask("POST", INFER, squeezed, headers={"Content-Encoding": "gzip"}).status == 413
    assert front.ask("POST", INFER, body_of(1), pieces=3).status == 200
    assert front.front.admission.held_bytes == 0


def test_a_length_that_is_no_number_is_refused() -> None:
    with pytest.raises(RequestError) as caught:
        bodies.declared_length({b"content-length": b"-5"}, 10)
    assert caught.value.status == 400


def test_no_room_is_503_with_the_time_to_come_again() -> None:
    front = Fixture(max_requests=2)
    front.configure()

    async def crowd() -> list[Answer]:
        return await asyncio.gather(*(front.send("POST", INFER, body_of(n)) for n in range(5)))

    answers = asyncio.run(crowd())
    assert sorted(answer.status for answer in answers) == [200, 200, 503, 503, 503]
    busy = next(answer for answer in answers if answer.status == 503)
    assert int(busy.headers["retry-after"]) >= 1
    assert front.front.admission.requests == 0
    assert front.ask("POST", INFER, body_of(1)).status == 200


def test_many_large_bodies_at_once_are_503_not_a_full_memory() -> None:
    front = Fixture(max_held_bytes=3000)
    front.configure()
    body = body_of(*range(300))

    async def crowd() -> list[Answer]:
        return await asyncio.gather(*(front.send("POST", INFER, body, pieces=2) for _ in range(5)))

    statuses = sorted(answer.status for answer in asyncio.run(crowd()))
    assert statuses[0] == 200
    assert statuses[-1] == 503
    assert front.front.admission.held_bytes == 0


def test_before_a_version_is_loaded_it_is_alive_and_not_ready() -> None:
    front = Fixture()
    assert front.ask("GET", "/v2/health/live").status == 200
    assert front.ask("GET", "/v2/health/ready").status == 503
    answer = front.ask("POST", INFER, body_of(1))
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    front.configure()
    assert front.ask("GET", "/v2/health/ready").status == 200


def test_requests_and_batches_are_counted_by_version(front: Fixture) -> None:
    front.ask("POST", INFER, body_of(1, 2))
    front.ask("POST", INFER, b"{")
    front.ask("POST", "/v2/models/cats/infer", b"{")
    assert front.measures.requests == [("1", 200), ("1", 400), ("", 404)]
    assert front.measures.batches == [("1", 2)]


# versions


def test_the_status_says_what_answers(front: Fixture) -> None:
    assert FrontStatus.from_record(front.ask("GET", "/headrace/v1/status").json()) == FrontStatus(
        replica="replica-a", config_id="c1", stable="1", loading=None, error=None, wanted="c1"
    )


def test_a_new_version_takes_over_and_the_old_one_is_gone(front: Fixture) -> None:
    front.configure("2", "c2")
    answer = front.ask("POST", INFER, body_of(1))
    assert (answer.json()["model_version"], answer.json()["outputs"][0]["data"]) == ("2", [4])
    assert front.ask("POST", "/v2/models/digits/versions/1/infer", body_of(1)).status == 404


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_and_says_why(front: Fixture) -> None:
    front.configure("bad", "c2")
    status = front.versions.status()
    assert (status.config_id, status.stable, status.wanted) == ("c1", "1", "c2")
    assert status.error == "version bad could not be loaded: model.safetensors is not the file that was packed"
    assert front.ask("POST", INFER, body_of(1)).json()["model_version"] == "1"
    front.configure("2", "c3")
    assert front.versions.status().error is None


def test_the_same_version_under_a_new_configuration_is_not_loaded_again(front: Fixture) -> None:
    model = front.models["1"]
    front.configure("1", "c2")
    assert front.models["1"] is model
    assert front.versions.status().config_id == "c2"


def test_a_first_version_that_cannot_be_loaded_asks_to_be_replaced_after_a_while() -> None:
    front = Fixture()
    assert front.versions.failed_seconds() is None
    front.configure("bad")
    failed = front.versions.failed_seconds()
    assert failed is not None
    assert failed >= 0
    assert "was packed" in front.ask("POST", INFER, body_of(1)).json()["error"]


def test_configure_returns_before_the_version_is_loaded_and_the_newest_wins() -> None:
    import threading

    gate = threading.Event()
    loaded: list[str] = []

    def slow(version: StableVersion) -> str:
        assert gate.wait(60)
        loaded.append(version.version)
        return version.version

    versions: Versions[str] = Versions("r", slow)
    for number in ("1", "2", "3"):
        versions.configure(FrontConfig(f"c{number}", "m", StableVersion(number, "", "")))
    assert versions.status().loading in ("1", "3")
    assert versions.live is None
    gate.set()
    assert versions.wait_idle(60)
    assert versions.live is not None
    assert versions.live.model == "3"
    assert loaded[-1] == "3"
    assert len(loaded) <= 2


# batching


def test_requests_that_wait_together_are_computed_together(front: Fixture) -> None:
    async def crowd() -> list[Answer]:
        return await asyncio.gather(*(front.send("POST", INFER, body_of(n)) for n in range(20)))

    answers = asyncio.run(crowd())
    assert [answer.json()["outputs"][0]["data"] for answer in answers] == [[2 * n] for n in range(20)]
    assert front.models["1"].sizes == [20]


def test_a_bad_request_spoils_no_other_in_its_batch(front: Fixture) -> None:
    async def crowd() -> list[Answer]:
        return await asyncio.gather(*(front.send("POST", INFER, body_of(n)) for n in (1, -13, 2, -99, 3)))

    assert [answer.status for answer in asyncio.run(crowd())] == [200, 400, 200, 500, 200]


def test_answers_come_in_the_order_of_the_requests() -> None:
    results = answer_together(Doubling(), [{"x": np.array([n])} for n in (-13, 5, -99, 7)])
    assert isinstance(results[0], BadInput)
    assert isinstance(results[2], RuntimeError)
    assert [result["y"].tolist() for result in (results[1], results[3]) if isinstance(result, dict)] == [[10], [14]]


@pytest.mark.parametrize("inline_below_ms", [0.0, 1000.0])
def test_batches_hold_at_most_the_rows_that_are_allowed(inline_below_ms: float) -> None:
    model = Doubling()
    rows: list[int] = []
    settings = FrontSettings(max_batch_rows=4, inline_below_ms=inline_below_ms)

    async def crowd() -> list[Arrays]:
        batcher = Batcher(model, settings, ThreadPoolExecutor(1), lambda count, _: rows.append(count))
        sizes = [1, 2, 3, 9, 1]
        return await asyncio.gather(*(batcher.submit({"x": np.arange(n)}, n) for n in sizes))

    answers = asyncio.run(crowd())
    assert [len(answer["y"]) for answer in answers] == [1, 2, 3, 9, 1]
    assert rows == [3, 3, 9, 1]


def test_a_delay_gathers_what_comes_a_little_later(in_virtual_time: Callable[..., Any]) -> None:
    model = Doubling()
    settings = FrontSettings(max_delay_ms=20, max_batch_rows=3)

    async def crowd() -> list[float]:
        clock, times = asyncio.get_running_loop().time, []
        batcher = Batcher(model, settings, ThreadPoolExecutor(1), lambda *_: times.append(clock()), clock=clock)
        first = asyncio.ensure_future(batcher.submit({"x": np.arange(1)}, 1))
        await asyncio.sleep(0.015)
        second = asyncio.ensure_future(batcher.submit({"x": np.arange(1)}, 1))
        await asyncio.gather(first, second)
        assert model.sizes == [2]
        await asyncio.gather(*(batcher.submit({"x": np.arange(1)}, 1) for _ in range(3)))  # full: no delay
        return times

    assert in_virtual_time(crowd()) == pytest.approx([0.02, 0.02])
    assert model.sizes == [2, 3]


def test_a_request_whose_client_left_is_not_computed() -> None:
    model = Doubling()

    async def leave() -> None:
        batcher = Batcher(model, FrontSettings(), ThreadPoolExecutor(1), lambda *_: None)
        leaver = asyncio.ensure_future(batcher.submit({"x": np.arange(1)}, 1))
        await asyncio.sleep(0)
        leaver.cancel()
        await batcher.submit({"x": np.arange(2)}, 2)

    asyncio.run(leave())
    assert model.sizes == [1]


# settings and headers


def test_settings_come_from_the_environment_by_name() -> None:
    settings = FrontSettings.from_environment(
        {"HEADRACE_SERVE_MAX_DELAY_MS": "2.5", "HEADRACE_SERVE_MAX_REQUESTS": "9"}
    )
    assert (settings.max_delay_ms, settings.max_requests) == (2.5, 9)
    with pytest.raises(ValueError, match="HEADRACE_SERVE_MAX_REQUESTS is 'many'"):
        FrontSettings.from_environment({"HEADRACE_SERVE_MAX_REQUESTS": "many"})


@pytest.mark.parametrize(
    ("header", "encoding"),
    [
        ("", None),
        ("gzip, deflate", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0, deflate;q=0.5", "deflate"),
        ("*", "gzip"),
        ("br", None),
        ("gzip;q=x", None),
    ],
)
def test_the_preferred_encoding_is_taken(header: str, encoding: str | None) -> None:
    assert bodies.accepted_encoding(header) == encoding


def test_a_raw_deflate_stream_and_several_gzip_members_are_taken() -> None:
    raw = zlib.compressobj(wbits=-15)
    assert bodies.decompress(raw.compress(b"abc") + raw.flush(), "deflate", 10) == b"abc"
    assert bodies.decompress(gzip.compress(b"ab") + gzip.compress(b"cd"), "gzip", 10) == b"abcd"
    with pytest.raises(RequestError, match="not valid gzip"):
        bodies.decompress(gzip.compress(b"abcdef")[:-9], "gzip", 100)


def test_the_lifespan_is_answered() -> None:
    async def run() -> list[Any]:
        sent: list[Any] = []
        waiting = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

        async def receive() -> Any:
            return waiting.pop(0)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await Fixture().front({"type": "lifespan"}, receive, send)
        return sent

    assert asyncio.run(run()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
