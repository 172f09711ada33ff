"""Ray Train's trainer without what a fixed number of workers does not need.

Each process that Ray starts imports ray.train: a second of CPU, which on a small machine the workers lack. Left out are
the placement group cleaner (a placement group that is not detached ends with the actor that made it, and ours is not)
and, unless the number of workers may change, the autoscaling coordinator: the controller waits for its process before
it asks for workers, and it stays on the head for ever.
"""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class FixedPolicy(FixedScalingPolicy):
    """As many workers as were asked for; no autoscaler is told."""

    def _maybe_send_resource_request(self) -> None: ...

    _send_resource_request = _cancel_resource_request = _maybe_send_resource_request


class ElasticTrainer(DataParallelTrainer):
    """A `DataParallelTrainer` without the cleaner. What is overridden here is held by a test."""

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()
        return [callback for callback in made if not isinstance(callback, PlacementGroupCleanerCallback)]


class FixedTrainer(ElasticTrainer):
    """The same for a fixed number of workers."""

    def _initialize_and_run_controller(self, **controller: Any) -> Any:
        controller["scaling_policy"] = FixedPolicy(self.scaling_config)
        return super()._initialize_and_run_controller(**controller)
