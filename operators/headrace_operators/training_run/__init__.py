"""The TrainingRun operator: one RayJob for each attempt, and why an attempt waits, failed, or was taken away.

Read `plan.py` first: it is pure, and everything else gathers for it or carries out what it says.
"""

from __future__ import annotations

from headrace_operators.mlflow import MLflow
from headrace_operators.settings import OperatorSettings
from headrace_operators.training_run.reconciler import TrainingRunReconciler


def reconciler(settings: OperatorSettings) -> TrainingRunReconciler:
    """The reconciler of TrainingRuns, with MLflow's credentials from the environment."""
    return TrainingRunReconciler(settings.runtime_image, MLflow(), settings.mlflow_interval_seconds)
