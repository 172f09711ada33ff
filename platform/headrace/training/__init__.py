"""Training on Ray: the request, the driver, and the loop that runs on the workers."""

from headrace.training.driver import run_training
from headrace.training.request import Connection, TrainingRequest, TrainingResult

__all__ = ["Connection", "TrainingRequest", "TrainingResult", "run_training"]
