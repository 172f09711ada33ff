"""Which version truly answers: the operator against the real front on a local Ray, behind a hand-made EndpointSlice.

Real: the API server, the operator as a process, Ray Serve with its HAProxy, the front, packages, MLflow. Made by hand:
the Service with its EndpointSlice, and the carrying of `serveConfigV2` to Ray, which KubeRay would do had it pods.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import httpx
import pytest

from headrace_testbed.apart import Apart, possible
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.endpoint import Carrier, LocalRay, Registry, damage
from headrace_testbed.model_deployments import SERVICES, create, events, model_deployment
from headrace_testbed.training_runs import OperatorProcess, condition
from headrace_testbed.waiting import eventually

pytestmark = pytest.mark.skipif(not possible(), reason="this machine allows no network namespaces (unshare -Urn, ip)")
Object = dict[str, Any]
ADDRESS = "10.99.0.1"
NAMESPACE = "endpoint"
NAME = "digits"
LONG = 180.0


@dataclass
class Endpoint:
    """All of it."""

    plane: ControlPlane
    operator: OperatorProcess
    mlflow: Registry
    carrier: Carrier
    url: str
    path: str

    @property
    def status(self) -> Object:
        return self.plane.api.get(self.path).get("status") or {}

    def said(self, type_: str) -> tuple[str, str]:
        return condition({"status": self.status}, type_)

    def message(self, type_: str) -> str:
        return next(c["message"] for c in self.status["conditions"] if c["type"] == type_)

    def answers(self) -> str:
        """The version that a client is given an answer by."""
        item = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 1], "data": [0] * 64}
        answer = httpx.post(f"{self.url}/v2/models/{NAME}/infer", json={"inputs": [item]}, trust_env=False, timeout=60)
        answer.raise_for_status()
        return str(answer.json()["model_version"])

    def wait_for(self, type_: str, status: str, reason: str, seconds: float = LONG) -> float:
        """Seconds until the condition is so."""
        started = time.monotonic()
        assert self.carrier.failed is None

        def so() -> bool:
            assert self.said(type_) == (status, reason), self.status.get("conditions")
            return True

        eventually(so, seconds)
        return time.monotonic() - started


@pytest.fixture(scope="module")
def ray() -> Iterator[LocalRay]:
    with LocalRay() as local:
        yield local


@pytest.fixture(scope="module")
def mlflow(ray: LocalRay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("mlflow")) as server:
        server.register_packages("digits", ray.package("1"), damage(ray.package("2")), ray.package("3"))
        server.alias("digits", "champion", "1")
        yield server


@pytest.fixture(scope="module")
def endpoint(played_plane: ControlPlane, ray: LocalRay, mlflow: Registry) -> Iterator[Endpoint]:
    plane, head = played_plane, ray.head()
    plane.api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    _point_at(plane, ADDRESS)
    apiserver = int(urlparse(plane.url).port or 0)
    inside = OperatorProcess(plane, "model_deployment")
    windows = [int(inside.metrics_address.rpartition(":")[2]), int(inside.health_address.rpartition(":")[2])]
    doors = {
        f"{ADDRESS}:8000": head.serve_port,
        f"127.0.0.1:{apiserver}": apiserver,
        f"127.0.0.1:{mlflow.port}": mlflow.port,
    }
    with Apart(_short(ray.home), doors, windows) as network:
        inside.prefix = network.prefix
        with inside as operator, Carrier(plane, NAMESPACE, NAME, head) as carrier:
            spec = {"resources": {"cpus": 0}, "store": {"uri": "file:///nowhere"}}
            path = create(plane, NAMESPACE, model_deployment(NAME, mlflow.url, **spec))
            url = f"http://127.0.0.1:{head.serve_port}/{NAME}"
            yield Endpoint(plane, operator, mlflow, carrier, url, path)
            plane.api.delete(path)


def _short(home: Path) -> Path:
    folder = home / "doors"
    folder.mkdir()
    return folder


def _point_at(plane: ControlPlane, address: str) -> None:
    """The Service that KubeRay makes, with one endpoint."""
    name = f"{NAME}-serve-svc"
    labels = {"ray.io/serve": f"{NAME}-serve", "ray.io/originated-from-cr-name": NAME}
    port = {"name": "serve", "port": 8000, "protocol": "TCP"}
    plane.api.post(
        f"/api/v1/namespaces/{NAMESPACE}/services",
        {"metadata": {"name": name, "labels": labels}, "spec": {"ports": [port]}},
    )
    plane.api.post(
        f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices",
        {
            "metadata": {"name": f"{name}-hand", "labels": labels | {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [port],
        },
    )


# In the order of a deployment's life: each test goes on where the one before ended.


def test_the_version_that_the_alias_names_is_proven_by_the_fronts_own_answer(endpoint: Endpoint) -> None:
    seconds = endpoint.wait_for("Available", "True", "AllReplicasAnswer")
    status = endpoint.status
    print(f"version 1 is proven after {seconds:.1f} s, Ray Serve's start included")
    assert (status["servingVersion"], status["answeringReplicas"], status["replicas"]) == ("1", 1, 1)
    assert endpoint.said("Progressing") == ("False", "Complete")
    assert endpoint.answers() == "1"
    assert "Deployed" in events(endpoint.plane, NAMESPACE, NAME)


def test_a_load_that_fails_keeps_the_old_version_and_becomes_a_condition_with_the_fronts_own_error(
    endpoint: Endpoint,
) -> None:
    cluster = endpoint.plane.api.get(f"{SERVICES.format(NAMESPACE)}/{NAME}")["spec"]["rayClusterConfig"]
    endpoint.mlflow.alias("digits", "champion", "2")
    seconds = endpoint.wait_for("Progressing", "False", "LoadFailed")
    print(f"the failure is told {seconds:.1f} s after the alias moved: {endpoint.message('Progressing')}")
    assert "version 2 could not be loaded" in endpoint.message("Progressing")
    assert "model.safetensors is not the file that was packed" in endpoint.message("Progressing")
    status = endpoint.status
    assert (status["servingVersion"], status["wantedVersion"], status["answeringReplicas"]) == ("1", "2", 0)
    assert endpoint.said("Available") == ("False", "OtherVersionAnswers")
    assert endpoint.answers() == "1"
    assert "could not be loaded" in events(endpoint.plane, NAMESPACE, NAME)["LoadFailed"]
    after = endpoint.plane.api.get(f"{SERVICES.format(NAMESPACE)}/{NAME}")["spec"]["rayClusterConfig"]
    assert after == cluster


def test_a_better_version_ends_the_failure(endpoint: Endpoint) -> None:
    endpoint.mlflow.alias("digits", "champion", "3")
    seconds = endpoint.wait_for("Available", "True", "AllReplicasAnswer")
    print(f"version 3 is proven {seconds:.1f} s after the alias moved")
    assert endpoint.status["servingVersion"] == "3"
    assert endpoint.answers() == "3"
    assert endpoint.said("Progressing") == ("False", "Complete")


def test_every_replica_gives_one_answer(endpoint: Endpoint) -> None:
    endpoint.plane.api.patch(endpoint.path, {"spec": {"replicas": 2}})
    eventually(lambda: endpoint.status.get("answeringReplicas") == 2, LONG)
    endpoint.wait_for("Available", "True", "AllReplicasAnswer")
    assert endpoint.message("Available") == "version 3 answers from 2 replicas"
    endpoint.plane.api.patch(endpoint.path, {"spec": {"replicas": 1}})
    eventually(lambda: endpoint.status.get("answeringReplicas") == 1, LONG)


def test_when_all_is_quiet_nothing_is_written(endpoint: Endpoint) -> None:
    endpoint.wait_for("Progressing", "False", "Complete")
    endpoint.operator.rests_for(NAMESPACE, 40)  # its front is asked every 30 s then, the registry every second


def test_the_operators_metrics_name_the_version_that_answers(endpoint: Endpoint) -> None:
    text = httpx.get(f"http://{endpoint.operator.metrics_address}/metrics", timeout=60, trust_env=False).text
    assert 'headrace_deployments{state="available"} 1.0' in text
    assert f'headrace_deployment_version_info{{name="{NAME}",namespace="{NAMESPACE}",version="3"}} 1.0' in text
    swaps = next(line for line in text.splitlines() if line.startswith("headrace_deployment_swap_seconds_count"))
    assert float(swaps.split()[1]) >= 2


def test_the_registry_being_down_is_a_condition_and_the_endpoint_goes_on(endpoint: Endpoint) -> None:
    endpoint.mlflow.daemon.kill()
    endpoint.wait_for("MLflowReachable", "False", "Unreachable")
    assert endpoint.said("Available") == ("True", "AllReplicasAnswer")
    assert endpoint.said("Resolved")[0] == "True"
    assert endpoint.answers() == "3"


def test_an_endpoint_that_is_gone_is_told(endpoint: Endpoint) -> None:
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/{NAME}-serve-svc-hand"
    endpoint.plane.api.patch(slices, {"endpoints": []})
    endpoint.wait_for("Available", "False", "NoEndpoints")
    assert "servingVersion" not in endpoint.status
