"""This machine's CPU, memory, disk, network and GPUs as `system/*` metrics of a run, sampled by MLflow's own monitor.

A monitor belongs to the process that asked for it (the training's driver): when that one dies the sampling ends, though
the MLflow run still says RUNNING. A resumed run goes on after its last sample.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from headrace.base.processes import ProcessRef

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

SAMPLE_SECONDS = 5.0  # a short run gets some points; a day gets 17,000 rows a metric

_monitors: dict[str, tuple[SystemMetricsMonitor, ProcessRef]] = {}
_lock = threading.Lock()


def start(uri: str, mlflow_run_id: str, owner: ProcessRef) -> None:
    """Sample for a run until `stop`, or until OWNER is gone."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    with _lock:
        present = _monitors.get(mlflow_run_id)
        if present is not None:
            _monitors[mlflow_run_id] = (present[0], owner)
            return
        monitor = SystemMetricsMonitor(
            mlflow_run_id, sampling_interval=SAMPLE_SECONDS, resume_logging=True, tracking_uri=uri
        )
        monitor.start()
        _monitors[mlflow_run_id] = (monitor, owner)


def stop(mlflow_run_id: str) -> None:
    """End the sampling of a run, if there is any."""
    with _lock:
        present = _monitors.pop(mlflow_run_id, None)
    if present is not None:
        present[0].finish()


def sampling() -> bool:
    """Whether any run is sampled by this process."""
    return bool(_monitors)


def end_orphans() -> None:
    """End the sampling of runs whose owners are gone."""
    for mlflow_run_id, (_, owner) in list(_monitors.items()):
        if not owner.alive():
            stop(mlflow_run_id)
