"""What a target's cluster serves, as `headrace deployments` tells it of a laptop: read from its ModelDeployments.

The operator's status is the fronts' own word, so nothing but the API server is asked, by the target's kubeconfig.
"""

from __future__ import annotations

from typing import Any, Protocol

from headrace.api.model_deployment import ModelDeploymentStatus
from headrace.base.errors import InvalidInput
from headrace.cluster import MODEL_DEPLOYMENT, Cluster, Kind, Object, connect
from headrace.spec.targets import find_target
from headrace.steps.cluster_deployment import FAILURES

NAMESPACE = "kubeflow"  # where a single-user Kubeflow runs steps, and so where they make endpoints


class Endpoints(Protocol):
    """What is needed of a cluster; see `headrace.cluster.Cluster`."""

    def get(self, kind: Kind, name: str) -> Object | None:
        """See there."""

    def list(self, kind: Kind, *, labels: str = "", fields: str = "") -> list[dict[str, Any]]:
        """See there."""

    def delete(self, kind: Kind, name: str, *, uid: str | None = None) -> bool:
        """See there."""


def cluster_of(target: str) -> Cluster:
    """The namespace of TARGET's runs. Raises InvalidInput where the target names no kubeconfig."""
    found = find_target(target)
    if found.kubeconfig is None:
        raise InvalidInput(
            f"the target {target} names no kubeconfig, and Kubeflow does not know what is served",
            action="add `kubeconfig` (and `context`) to the target in targets.yaml",
            code="no-cluster",
        )
    return connect(found.kubeconfig, found.context, found.kubeflow.namespace or NAMESPACE, patience_seconds=30.0)


def endpoints(cluster: Endpoints) -> list[dict[str, Any]]:
    """Everything that should be served there, by name: {name, url, model, version, replicas, state, error}.

    `state`: `ready` (every replica answers with the wanted version), `updating` or `failed`; `version` is what answers,
    else what is wished for.
    """
    found = (endpoint(obj) for obj in cluster.list(MODEL_DEPLOYMENT))
    return sorted(found, key=lambda record: str(record["name"]))


def endpoint(obj: Object) -> dict[str, Any]:
    """The record of the ModelDeployment OBJ."""
    status = ModelDeploymentStatus.model_validate(obj.get("status") or {})
    current = [each for each in status.conditions if each.observed_generation == obj["metadata"]["generation"]]
    failed = next((each for each in current if each.status == "False" and each.reason in FAILURES), None)
    available = any(each.type == "Available" and each.status == "True" for each in current)
    ready = available and status.serving_version is not None and status.serving_version == status.wanted_version
    model = obj["spec"]["model"]
    return {
        "name": obj["metadata"]["name"],
        "url": status.url,
        "model": model["name"],
        "version": status.serving_version or model.get("version") or f"@{model.get('alias')}",
        "replicas": status.answering_replicas,
        "state": "failed" if failed is not None else "ready" if ready else "updating",
        "error": None if failed is None else failed.message,
    }


def remove(cluster: Endpoints, name: str) -> None:
    """Serve NAME no more; the operator ends its pods."""
    found = cluster.get(MODEL_DEPLOYMENT, name)
    if found is not None:
        cluster.delete(MODEL_DEPLOYMENT, name, uid=found["metadata"]["uid"])
