"""MLflow: runs, the registry and the UI. Importing this imports no MLflow."""

from headrace.tracking.calls import ensure_store, prepare
from headrace.tracking.connection import tracking_uri
from headrace.tracking.registry import ModelVersion
from headrace.tracking.reporter import Reporter
from headrace.tracking.runs import LoggedPackage, TrackedRun, find_run

__all__ = [
    "LoggedPackage",
    "ModelVersion",
    "Reporter",
    "TrackedRun",
    "ensure_store",
    "find_run",
    "prepare",
    "tracking_uri",
]
