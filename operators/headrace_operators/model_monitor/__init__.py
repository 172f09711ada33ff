"""ModelMonitor: an endpoint's error rate and latency, measured in Prometheus."""

from __future__ import annotations

from headrace_operators.model_monitor.prometheus import Prometheus
from headrace_operators.model_monitor.reconciler import ModelMonitorReconciler
from headrace_operators.settings import OperatorSettings

__all__ = ["ModelMonitorReconciler", "reconciler"]


def reconciler(settings: OperatorSettings) -> ModelMonitorReconciler:  # noqa: ARG001 all reconcilers are made alike
    """The reconciler, with the operator's own environment for Prometheus."""
    return ModelMonitorReconciler(Prometheus())
