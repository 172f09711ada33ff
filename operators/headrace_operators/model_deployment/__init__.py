"""ModelDeployment -> RayService."""

from __future__ import annotations

from headrace_operators.mlflow import MLflow
from headrace_operators.model_deployment.reconciler import ModelDeploymentReconciler
from headrace_operators.settings import OperatorSettings

__all__ = ["ModelDeploymentReconciler", "reconciler"]


def reconciler(settings: OperatorSettings, mlflow: MLflow | None = None) -> ModelDeploymentReconciler:
    """The reconciler, with the operator's own environment for MLflow."""
    return ModelDeploymentReconciler(settings, mlflow or MLflow())
