"""What tests of the ModelDeployment operator share: deployments to make, a stand-in for MLflow's registry, views."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlparse

from headrace_testbed.api import Object
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.stand_in import Reply, StandIn, json_reply

DEPLOYMENTS = "/apis/headrace.dev/v1alpha1/namespaces/{}/modeldeployments"
SERVICES = "/apis/ray.io/v1/namespaces/{}/rayservices"


class RegistryStandIn(StandIn):
    """Answers as MLflow's registry does where the operator asks; it is not MLflow. Any version of a model is there."""

    def __init__(self) -> None:
        super().__init__()
        self.aliases: dict[str, str] = {"champion": "7"}

    def reply(self, path: str, asked: Object) -> Reply:
        """See `StandIn.reply`."""
        status, answer = self.answer(path)
        return json_reply(answer, status)

    def answer(self, path: str) -> tuple[int, Object]:
        """What MLflow would answer."""
        asked = {name: values[0] for name, values in parse_qs(urlparse(path).query).items()}
        version = asked.get("version") or self.aliases.get(asked.get("alias", ""))
        if version is None:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such alias"}
        tags = {"headrace.package_uri": f"s3://models/{version}", "headrace.package_sha256": version[-1] * 64}
        pairs = [{"key": key, "value": value} for key, value in tags.items()]
        return 200, {"model_version": {"name": asked["name"], "version": version, "tags": pairs}}


def model_deployment(name: str, mlflow: str, **spec: Any) -> Object:
    """A ModelDeployment of small pods that follows an alias."""
    small = {"cpu": "1", "memory": "2Gi"}
    whole: Object = {
        "model": {"name": "digits", "alias": "champion"},
        "store": {"uri": "s3://models"},
        "mlflow": {"trackingURI": mlflow},
        "pods": {"head": small, "worker": small, "sharedMemory": "256Mi"},
        **spec,
    }
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": whole,
    }


def create(plane: ControlPlane, namespace: str, deployment: Object) -> str:
    """Create DEPLOYMENT; its path."""
    plane.api.post(DEPLOYMENTS.format(namespace), deployment)
    return f"{DEPLOYMENTS.format(namespace)}/{deployment['metadata']['name']}"


def service(plane: ControlPlane, namespace: str, name: str) -> Object:
    """The RayService, as soon as it is there."""
    return plane.wait_for(f"{SERVICES.format(namespace)}/{name}")


def pods_of(plane: ControlPlane, namespace: str, name: str) -> list[Object]:
    """The pods of a deployment."""
    return plane.api.list(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"headrace.dev/model-deployment={name}")


def events(plane: ControlPlane, namespace: str, name: str, kind: str = "ModelDeployment") -> dict[str, str]:
    """The newest message of each reason of an object's Events."""
    found = plane.api.list(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.name={name}")
    return {event["reason"]: event["message"] for event in found if event["involvedObject"]["kind"] == kind}
