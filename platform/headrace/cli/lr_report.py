"""`headrace lr-find`: the learning rate to take, and how to take it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def render_lr(record: Mapping[str, Any], spec: Path) -> str:
    """What was found in RECORD, for people."""
    lr, stopped = record["suggestion"], record["stopped_at"]
    until = f"exploded at {stopped:.2g}" if stopped is not None else f"was lowest at {record['lowest_at']:.2g}"
    return "\n".join(
        [
            f"train.optimizer.lr: {lr:.2g}   (the loss falls fastest there; it {until})",
            f"the curve is in MLflow: plots/lr_finder.png of run {record['mlflow']['run_id']}",
            f"next: headrace run {spec} --set train.optimizer.lr={lr:.2g}",
        ]
    )
