"""Ray Serve's own controller follows our count of V2 requests: under load a second replica comes."""

from __future__ import annotations

import concurrent.futures
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import pytest

from headrace.api.model_deployment import ModelDeploymentSpec
from headrace.local import desired_state
from headrace.local.deployments import deploy, undeploy
from headrace.local.desired_state import Deployment
from headrace.local.ray_head import Head
from headrace.serving.autoscaling import ReplicaRange
from headrace.serving.client import ServeClient, application_record, front_statuses, serve_record
from headrace.serving.contract import FrontConfig, StableVersion
from headrace_operators.model_deployment.rayservice import manifest
from headrace_testbed.waiting import eventually

pytestmark = pytest.mark.timeout(900)
CLIENTS = 16


def keep_asking(url: str, until: threading.Event) -> int:
    values = np.zeros((16, 8, 8, 1), np.uint8).ravel().tolist()
    body = json.dumps({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [16, 8, 8, 1], "data": values}]})
    asked = 0
    with httpx.Client(timeout=60, trust_env=False) as http:
        while not until.is_set():
            # An ingress that takes over a new configuration closes what is idle.
            with suppress(httpx.RemoteProtocolError, httpx.ReadError):
                asked += http.post(f"{url}/v2/models/scaled/infer", content=body).status_code == 200
    return asked


def configurations(url: str) -> list[str]:
    """Of each replica that answers, the wish that is in force there."""
    return [status.config_id for status in front_statuses(url, 2).values()]


def test_requests_inside_bring_a_second_replica(head: Head, digits_package: Callable[[str], StableVersion]) -> None:
    version = digits_package("1")
    url = deploy(Deployment("scaled", "digits", version), tell=print)["url"]
    others = [each.application() for name, each in desired_state.read_desired().items() if name != "scaled"]
    config = FrontConfig("autoscaled", "scaled", version)
    scaled = application_record("scaled", config, ReplicaRange(1, 2, target_requests=2.0))
    enough = threading.Event()
    with ServeClient(head.dashboard_url, head.token()) as serve, concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:

        def wanted() -> int:
            replicas = serve.replicas("scaled")
            return 0 if replicas is None else replicas.wanted

        serve.put(serve_record([*others, scaled], host="127.0.0.1", port=head.serve_port))
        eventually(lambda: configurations(url) == ["autoscaled"], 180)
        for _ in range(8):  # longer than a report and the delay before another replica is wanted
            assert wanted() == 1, "nobody asks: one replica is enough"
            time.sleep(1)
        assert configurations(url) == ["autoscaled"]
        started = time.monotonic()
        asking = [pool.submit(keep_asking, url, enough) for _ in range(CLIENTS)]
        try:
            eventually(lambda: wanted() == 2, 180, pause_seconds=0.5)
        finally:
            enough.set()
        answered = sum(each.result() for each in asking)
    eventually(lambda: configurations(url) == ["autoscaled", "autoscaled"], 300)
    seconds = time.monotonic() - started
    print(f"a second replica answers after {seconds:.0f} s and {answered} requests of {CLIENTS} clients")
    assert answered
    undeploy("scaled")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"replicas": 3, "resources": {"cpus": 0.25, "gpus": 0.5, "memoryBytes": 2**30}},
        {"autoscaling": {"minReplicas": 2, "maxReplicas": 5, "targetOngoingRequests": 1.5}},
    ],
)
def test_ray_serve_understands_every_field_that_the_operator_writes(spec: dict[str, Any]) -> None:
    from ray.serve.schema import ServeDeploySchema

    whole = {
        "model": {"name": "digits", "version": "7"},
        "store": {"uri": "s3://models"},
        "mlflow": {"trackingURI": "http://m"},
    }
    owner = {"apiVersion": "x", "kind": "y", "metadata": {"name": "digits", "namespace": "ml", "uid": "u"}}
    stable = StableVersion("7", "s3://models/7", "7" * 64)
    made = manifest(owner, ModelDeploymentSpec.model_validate(whole | spec), stable, image="i", model="digits/7")
    written = json.loads(made["spec"]["serveConfigV2"])
    read = ServeDeploySchema.model_validate(written).model_dump(exclude_unset=True)
    assert read["applications"][0]["deployments"][0].keys() == written["applications"][0]["deployments"][0].keys()
    assert read["http_options"] == written["http_options"]
    assert read["proxy_location"] == "EveryNode"
