"""What whoever starts the operator may set for the reconcilers; the flags of `headrace operator` are made of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OperatorSettings:
    """Settings of the reconcilers.

    Args:
        runtime_image: the image of pods whose object names none; it has Headrace, Ray and torch.
        mlflow_interval_seconds: how often MLflow is asked about one running object; never more often.
    """

    runtime_image: str = "headrace:latest"
    mlflow_interval_seconds: float = 30.0
