"""MLflow: runs, the registry and the UI. Importing this imports no MLflow; using it does."""

from headrace.tracking.connection import ensure_store, prepare, tracking_uri
from headrace.tracking.registry import ModelVersion
from headrace.tracking.reporter import Reporter
from headrace.tracking.runs import TrackedRun, find_run

__all__ = ["ModelVersion", "Reporter", "TrackedRun", "ensure_store", "find_run", "prepare", "tracking_uri"]
