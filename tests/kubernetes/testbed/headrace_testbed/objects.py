"""Right objects of our kinds, as small as they can be; tests say what is different about theirs."""

from __future__ import annotations

from typing import Any

from headrace_testbed.api import Object

GROUP = "headrace.dev/v1alpha1"
STORE = {"uri": "s3://bucket/headrace"}
MLFLOW = {"trackingURI": "http://mlflow:5000"}


def training_run(name: str = "digits", **spec: Any) -> Object:
    """A TrainingRun; each of SPEC replaces that field, None leaves it out."""
    right = {
        "tasks": [{"name": "image-classification"}],
        "model": {"name": "resnet8"},
        "manifestURI": "s3://bucket/headrace/splits/abc",
        "store": STORE,
        "mlflow": MLFLOW,
    }
    return _object("TrainingRun", name, right | spec)


def model_deployment(name: str = "digits", **spec: Any) -> Object:
    """A ModelDeployment."""
    right = {"model": {"name": "digits", "alias": "champion"}, "store": STORE, "mlflow": MLFLOW}
    return _object("ModelDeployment", name, right | spec)


def model_monitor(name: str = "digits", **spec: Any) -> Object:
    """A ModelMonitor."""
    right = {"deploymentName": "digits", "prometheus": {"url": "http://prometheus:9090"}}
    return _object("ModelMonitor", name, right | spec)


def _object(kind: str, name: str, spec: dict[str, Any]) -> Object:
    kept = {key: value for key, value in spec.items() if value is not None}
    return {"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "spec": kept}
