"""Ray Train's trainer with what a training on one machine does not need left out.

Each process that Ray starts imports ray.train: a second of CPU, which on a small machine the workers lack. The
placement group cleaner is an extra process for controllers that die while their job lives on; a placement group that is
not detached ends with the actor that made it, and ours is not.
"""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class QuickTrainer(DataParallelTrainer):
    """A `DataParallelTrainer` without the placement group cleaner. `_create_default_callbacks` is held by a test."""

    def _create_default_callbacks(self) -> list[Any]:
        made = super()._create_default_callbacks()
        return [callback for callback in made if not isinstance(callback, PlacementGroupCleanerCallback)]
