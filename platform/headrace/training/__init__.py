"""Training on Ray: the request, the driver, and the loop that runs on the workers."""

from headrace.training.driver import run_training
from headrace.training.request import Connection, TrainingRequest, TrainingResult
from headrace.training.search import Search, TrialOutcome, run_search

__all__ = [
    "Connection",
    "Search",
    "TrainingRequest",
    "TrainingResult",
    "TrialOutcome",
    "run_search",
    "run_training",
]
