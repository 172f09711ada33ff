"""A real endpoint: HAProxy, Ray Serve, the front, a real package, and the clients that people use."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from headrace.base.errors import InvalidInput, RunFailed
from headrace.base.processes import session_members
from headrace.local.deployments import deploy, deployments, undeploy
from headrace.local.desired_state import Deployment
from headrace.local.ray_head import Head
from headrace.serving.client import ServeClient, front_statuses
from headrace.serving.contract import StableVersion
from headrace.serving.v2_client import infer, metadata
from headrace_testbed.waiting import eventually

pytestmark = pytest.mark.timeout(900)  # a head on a busy machine takes a minute, and several tries
Package = Callable[[str], StableVersion]
COMPRESSIONS = (None, "gzip", "deflate")
LARGE = 100 * 1000 * 1000
get, post = (partial(ask, timeout=60, trust_env=False) for ask in (httpx.get, httpx.post))


@pytest.fixture(scope="module")
def url(head: Head, digits_package: Package) -> Iterator[str]:
    served = deploy(Deployment("serving-digits", "digits", digits_package("1")), tell=print)
    assert served["version"] == "1"
    yield served["url"]
    undeploy("serving-digits")


@pytest.fixture
def client(url: str) -> Iterator[triton.InferenceServerClient]:
    made = triton.InferenceServerClient(url.removeprefix("http://"), network_timeout=60, connection_timeout=60)
    yield made
    made.close()


@pytest.fixture(scope="module")
def expected(digits_package: Package, digit_pictures: list[bytes]) -> np.ndarray:
    """What the package answers without an endpoint, by the output `probabilities`."""
    from headrace_models.package import load_package

    model = load_package(digits_package("1").package_uri)
    return model.predict({"image": objects(digit_pictures[:64])})["probabilities"]


def objects(values: list[bytes]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def pixels(count: int) -> np.ndarray:
    from sklearn.datasets import load_digits

    return np.asarray(load_digits().images[:count] * 15, np.uint8)[..., None]


def good_request(url: str, pictures: list[bytes]) -> None:
    assert infer(url, {"image": objects(pictures[:1])}).version


def test_it_is_alive_ready_and_says_what_it_takes(client: triton.InferenceServerClient, url: str) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("serving-digits")
    assert client.is_model_ready("serving-digits", "1")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    said = client.get_model_metadata("serving-digits")
    assert said["versions"] == ["1"]
    assert said["inputs"][0]["name"] == "image"
    assert metadata(url) == said


@pytest.mark.parametrize(
    ("binary", "request_compression", "response_compression", "batch"),
    [(b, q, a, n) for (b, q, a), n in product(product((True, False), COMPRESSIONS, COMPRESSIONS), (1, 64))],
)
def test_tritonclient_gets_the_packages_own_answer_in_every_form(
    client: triton.InferenceServerClient,
    expected: np.ndarray,
    binary: bool,
    request_compression: str | None,
    response_compression: str | None,
    batch: int,
) -> None:
    given = pixels(batch)
    tensor = triton.InferInput("image", list(given.shape), "UINT8")
    tensor.set_data_from_numpy(given, binary_data=binary)
    outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary)]
    result = client.infer(
        "serving-digits",
        [tensor],
        outputs=outputs,
        request_id="r7",
        request_compression_algorithm=request_compression,
        response_compression_algorithm=response_compression,
    )
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected[:batch], rtol=1e-4, atol=1e-6)
    said = result.get_response()
    assert (said["model_name"], said["model_version"], said["id"]) == ("serving-digits", "1", "r7")


def test_encoded_pictures_are_decoded_as_in_training(
    client: triton.InferenceServerClient, digit_pictures: list[bytes], expected: np.ndarray
) -> None:
    tensor = triton.InferInput("image", [64], "BYTES")
    tensor.set_data_from_numpy(objects(digit_pictures[:64]))
    result = client.infer("serving-digits", [tensor], model_version="1")
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=1e-4, atol=1e-6)


def test_a_picture_can_be_sent_as_base64_in_json(url: str, digit_pictures: list[bytes], expected: np.ndarray) -> None:
    text = base64.b64encode(digit_pictures[0]).decode()
    request = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]}
    answer = post(f"{url}/v2/models/serving-digits/infer", json=request)
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    np.testing.assert_allclose(outputs["probabilities"], expected[0], rtol=1e-4, atol=1e-6)


def test_our_own_client_gets_the_same(url: str, digit_pictures: list[bytes], expected: np.ndarray) -> None:
    inference = infer(url, {"image": objects(digit_pictures[:64])})
    assert (inference.model, inference.version) == ("serving-digits", "1")
    np.testing.assert_allclose(inference.outputs["probabilities"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "datatype", "values", "says"),
    [
        ("picture", [1, 8, 8, 1], "UINT8", np.zeros((1, 8, 8, 1), np.uint8), "no input 'picture'"),
        ("image", [1, 8], "UINT8", np.zeros((1, 8), np.uint8), "has shape [1, 8] of UINT8"),
        ("image", [1, 8, 8, 1], "INT64", np.zeros((1, 8, 8, 1), np.int64), "has datatype INT64"),
        ("image", [1], "BYTES", objects([b"not a picture"]), "picture"),
    ],
)
def test_a_wrong_input_is_400_with_a_sentence_and_the_next_request_works(
    client: triton.InferenceServerClient,
    url: str,
    digit_pictures: list[bytes],
    name: str,
    shape: list[int],
    datatype: str,
    values: np.ndarray,
    says: str,
) -> None:
    tensor = triton.InferInput(name, shape, datatype)
    tensor.set_data_from_numpy(values)
    with pytest.raises(InferenceServerException) as caught:
        client.infer("serving-digits", [tensor])
    assert caught.value.status() == "400"
    assert says in caught.value.message()
    good_request(url, digit_pictures)


def test_broken_json_and_wrong_names_are_refused_with_a_sentence(url: str, digit_pictures: list[bytes]) -> None:
    broken = post(f"{url}/v2/models/serving-digits/infer", content=b'{"inputs": [')
    assert (broken.status_code, list(broken.json())) == (400, ["error"])
    assert get(f"{url}/v2/models/cats").status_code == 404
    assert get(f"{url}/v2/models/serving-digits/versions/9").status_code == 404
    unknown = get(f"{url.rsplit('/', 1)[0]}/no-such-deployment/v2")
    assert (unknown.status_code, unknown.json()["error"][:22]) == (404, "there is no deployment")
    with pytest.raises(InvalidInput, match="version '9'"):
        infer(url, {"image": objects(digit_pictures[:1])}, version="9")
    good_request(url, digit_pictures)


def test_a_body_of_100_mb_is_413_with_a_length_and_chunked(
    client: triton.InferenceServerClient, url: str, digit_pictures: list[bytes]
) -> None:
    path = f"{url}/v2/models/serving-digits/infer"
    tensor = triton.InferInput("image", [LARGE // 64, 8, 8, 1], "UINT8")
    tensor.set_data_from_numpy(np.zeros((LARGE // 64, 8, 8, 1), np.uint8))
    with pytest.raises(InferenceServerException) as caught:
        client.infer("serving-digits", [tensor])
    assert caught.value.status() == "413"
    assert "larger than the limit" in caught.value.message()

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(LARGE // 100)

    chunked = post(path, content=pieces())
    assert (chunked.status_code, list(chunked.json())) == (413, ["error"])
    bomb = post(path, content=pack_zeros(LARGE), headers={"Content-Encoding": "gzip"})
    assert (bomb.status_code, list(bomb.json())) == (413, ["error"])
    good_request(url, digit_pictures)


def pack_zeros(size: int) -> bytes:
    import gzip

    return gzip.compress(bytes(size), compresslevel=1)


# changes


async def keep_asking(url: str, body: bytes, until: Callable[[], bool], seen: Counter[str]) -> float:
    """Ask without a pause until UNTIL, count in SEEN the versions that answer; the slowest answer's seconds."""
    host, port, name = re.fullmatch(r"http://([^:/]+):(\d+)/(.+)", url).groups()  # type: ignore[union-attr]
    line = f"POST /{name}/v2/models/{name}/infer HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    request = line.encode() + body
    reader, writer = await asyncio.open_connection(host, int(port))
    slowest = 0.0
    while not until():
        started = time.perf_counter()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(re.search(r"content-length: (\d+)", head).group(1))  # type: ignore[union-attr]
        answer = json.loads(await reader.readexactly(length))
        seen[answer.get("model_version") or head.split()[1]] += 1
        slowest = max(slowest, time.perf_counter() - started)
        if "connection: close" in head:  # the ingress takes over a new configuration
            writer.close()
            reader, writer = await asyncio.open_connection(host, int(port))
    writer.close()
    return slowest


def ask_while(url: str, clients: int, change: Callable[[], object]) -> tuple[Counter[str], float]:
    """CLIENTS ask without a pause while CHANGE runs; the versions that answered, and the slowest answer's seconds."""
    values = pixels(1).ravel().tolist()
    item = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": values}
    body = json.dumps({"inputs": [item]}).encode()
    seen: Counter[str] = Counter()

    async def run() -> float:
        done = False
        asking = [asyncio.ensure_future(keep_asking(url, body, lambda: done, seen)) for _ in range(clients)]
        await asyncio.sleep(1)
        await asyncio.to_thread(change)
        await asyncio.sleep(1)
        done = True
        return max(await asyncio.gather(*asking))

    slowest = asyncio.run(run())
    return seen, slowest


def test_64_clients_never_notice_that_a_version_is_replaced(url: str, digits_package: Package) -> None:
    def change() -> None:
        deploy(Deployment("serving-digits", "digits", digits_package("2")), tell=print)

    seen, slowest = ask_while(url, 64, change)
    print(f"{seen.total()} requests by version {dict(seen)}, the slowest {slowest * 1000:.0f} ms")
    assert set(seen) == {"1", "2"}
    assert metadata(url)["versions"] == ["2"]


def test_a_version_that_cannot_be_loaded_changes_nothing_and_says_why(
    url: str, digits_package: Package, digit_pictures: list[bytes]
) -> None:
    before = infer(url, {"image": objects(digit_pictures[:1])}).version
    damaged = digits_package("7")
    weights = Path(damaged.package_uri) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    started = time.monotonic()
    with pytest.raises(RunFailed) as caught:
        deploy(Deployment("serving-digits", "digits", damaged), tell=print)
    assert time.monotonic() - started < 90  # not only when the time for a deployment is over
    assert "model.safetensors is not the file that was packed" in caught.value.message
    assert infer(url, {"image": objects(digit_pictures[:1])}).version == before
    (record,) = [r for r in deployments() if r["name"] == "serving-digits"]
    deadline = time.monotonic() + 60  # the previous wish is told again
    while record["state"] != "ready" and time.monotonic() < deadline:
        time.sleep(0.2)
        (record,) = [r for r in deployments() if r["name"] == "serving-digits"]
    assert (record["state"], record["version"], record["error"]) == ("ready", before, None)


def test_a_package_with_another_hash_than_was_registered_is_not_served(url: str, digits_package: Package) -> None:
    good = digits_package("3")
    with pytest.raises(RunFailed, match="is registered with 000000000000"):
        deploy(Deployment("serving-digits", "digits", StableVersion("3", good.package_uri, "0" * 64)), tell=print)


def test_a_first_deployment_that_fails_is_gone_and_no_other_is_touched(
    url: str, digits_package: Package, digit_pictures: list[bytes]
) -> None:
    missing = StableVersion("1", "/no/such/package", "0" * 64)
    with pytest.raises(RunFailed, match="there is no package at /no/such/package"):
        deploy(Deployment("serving-other", "other", missing), tell=print)
    assert "serving-other" not in [record["name"] for record in deployments()]
    good_request(url, digit_pictures)


def test_two_replicas_both_answer_and_a_killed_one_is_replaced(
    head: Head, url: str, digits_package: Package, digit_pictures: list[bytes]
) -> None:
    deploy(Deployment("serving-digits", "digits", digits_package("4"), replicas=2), tell=print)
    statuses = eventually(lambda: found if len(found := front_statuses(url, 2)) == 2 else {}, 60)
    assert {status.stable for status in statuses.values()} == {"4"}
    with ServeClient(head.dashboard_url, head.token()) as serve:
        front = serve.details()["applications"]["serving-digits"]["deployments"]["front"]
    os.kill(front["replicas"][0]["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 180
    failures = 0
    while time.monotonic() < deadline:
        try:
            good_request(url, digit_pictures)
        except Exception:
            failures += 1
        record = next(r for r in deployments() if r["name"] == "serving-digits")
        if record["state"] == "ready" and set(front_statuses(url, 2)) != set(statuses):
            break
    print(f"{failures} failed requests until the killed replica was replaced")
    assert failures <= 3
    assert next(r for r in deployments() if r["name"] == "serving-digits")["replicas"] == 2


def test_every_listener_of_the_head_is_on_loopback(head: Head, url: str) -> None:
    ours = {member.pid for member in session_members(head.leader.pid)}
    listed = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    listeners = {
        line.split()[3]: {int(pid) for pid in re.findall(r"pid=(\d+)", line)} & ours for line in listed.splitlines()
    }
    addresses = [address for address, pids in listeners.items() if pids]
    assert len(addresses) > 12
    assert f"127.0.0.1:{head.serve_port}" in addresses
    strangers = [a for a in addresses if not a.startswith(("127.0.0.1:", "[::1]:", "[::ffff:127.0.0.1]:"))]
    assert strangers == []


def test_a_replica_knows_nothing_of_mlflow(head: Head, url: str) -> None:
    with ServeClient(head.dashboard_url, head.token()) as serve:
        front = serve.details()["applications"]["serving-digits"]["deployments"]["front"]
    for replica in front["replicas"]:
        mapped = Path(f"/proc/{replica['pid']}/maps").read_text()
        assert "torch" in mapped
        assert "mlflow" not in mapped


def test_prometheus_sees_requests_batches_and_versions(head: Head, url: str, digit_pictures: list[bytes]) -> None:
    good_request(url, digit_pictures)
    post(f"{url}/v2/models/serving-digits/infer", content=b"{")
    metrics_url = f"http://127.0.0.1:{head.port_block + 4}/metrics"
    wanted = (
        r'ray_headrace_requests_total\{[^}]*code="200"[^}]*deployment="serving-digits"',
        r'ray_headrace_requests_total\{[^}]*code="400"',
        r"ray_headrace_request_seconds_bucket\{",
        r"ray_headrace_batch_rows_sum\{",
        r'ray_headrace_version_loads_total\{[^}]*result="loaded"',
    )
    deadline = time.monotonic() + 120
    missing = list(wanted)
    while missing and time.monotonic() < deadline:
        text = get(metrics_url).text
        missing = [pattern for pattern in wanted if not re.search(pattern, text)]
        time.sleep(1)
    assert missing == []


def test_the_head_is_private(head: Head, headrace_home: Path) -> None:
    assert head.token_path.stat().st_mode & 0o077 == 0
    assert head.runtime_folder.stat().st_mode & 0o077 == 0
    assert get(f"{head.dashboard_url}/api/version").status_code == 401
    assert get(f"{head.dashboard_url}/api/serve/applications/").status_code == 401


def test_undeployed_is_gone(head: Head, digits_package: Package, url: str, digit_pictures: list[bytes]) -> None:
    other = deploy(Deployment("serving-second", "digits", digits_package("5")), tell=print)
    good_request(other["url"], digit_pictures)
    assert undeploy("serving-second")
    eventually(lambda: get(f"{other['url']}/v2/health/ready").status_code == 404, 60)
    good_request(url, digit_pictures)
