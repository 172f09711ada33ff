"""The hold of a train step on its TrainingRun: the training goes on while somebody waits for it.

Kubeflow ends a step's pod in the same way when a run is cancelled and when the pod is moved. So the step says in an
annotation until when its training is wanted, and writes it anew while it lives: a pod that takes its place goes on with
the training, and a training that nobody comes back to rests after HOLD_SECONDS (docs/adr/0015).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from headrace.api.training_run import HELD_UNTIL
from headrace.cluster import TRAINING_RUN, Kind, Object

HOLD_SECONDS = 600.0  # a pod is made again within seconds where there is room; images and full nodes take minutes
RENEW_SECONDS = 120.0  # each renewal wakes the operator


class Writes(Protocol):
    """What a hold needs of a cluster."""

    def patch(self, kind: Kind, name: str, changes: dict[str, object]) -> Object | None:
        """See `headrace.cluster.Cluster.patch`."""


class Hold:
    """The hold on the TrainingRun NAME, which was made or is taken over with `annotation`."""

    def __init__(self, cluster: Writes, name: str) -> None:
        self._cluster = cluster
        self._name = name
        self._renewed_at = 0.0

    def annotation(self) -> dict[str, str]:
        """What the TrainingRun is made with; counts as a renewal."""
        self._renewed_at = time.monotonic()
        return {HELD_UNTIL: _in(HOLD_SECONDS)}

    def renew_if_due(self) -> None:
        """Say that it is still wanted, every RENEW_SECONDS."""
        if time.monotonic() - self._renewed_at >= RENEW_SECONDS:
            self.renew()

    def renew(self) -> None:
        """Say that it is still wanted."""
        self._say(self.annotation())

    def let_go(self) -> None:
        """Say that it is not wanted any more: the operator ends the attempt and keeps the checkpoint."""
        self._say({HELD_UNTIL: _in(0.0)})

    def _say(self, annotations: dict[str, str]) -> None:
        self._cluster.patch(TRAINING_RUN, self._name, {"metadata": {"annotations": annotations}})


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
