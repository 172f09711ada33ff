"""What training uses of Ray Train that is not public: fails when an upgrade of Ray changes it."""

from __future__ import annotations

import inspect

from ray.train import CheckpointConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend
from ray.train.v2._internal import constants
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution import context
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.scaling_policy.scaling_policy import ScalingPolicy
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from headrace.training.backend import MeetingBackendConfig
from headrace.training.checkpoint_folder import SNAPSHOT
from headrace.training.driver import RAY_TRAIN
from headrace.training.trainer import FixedPolicy, FixedTrainer


def test_the_settings_that_we_give_are_ones_that_ray_train_reads() -> None:
    known = constants.ENV_VARS_TO_PROPAGATE | {"RAY_CHDIR_TO_TRIAL_DIR", "RAY_DEDUP_LOGS"}
    assert known >= RAY_TRAIN.keys()
    assert "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER" in known


def test_the_snapshot_of_checkpoints_has_the_name_that_we_look_for() -> None:
    assert constants.CHECKPOINT_MANAGER_SNAPSHOT_FILENAME == SNAPSHOT


def test_the_cleaner_is_among_the_default_callbacks_and_not_among_ours(tmp_path: object) -> None:
    def made(trainer: type[DataParallelTrainer]) -> list[type]:
        built = trainer(
            lambda: None,
            backend_config=MeetingBackendConfig(),
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(storage_path=str(tmp_path), name="r", checkpoint_config=CheckpointConfig()),
        )
        return [type(callback) for callback in built._create_default_callbacks()]

    assert PlacementGroupCleanerCallback in made(DataParallelTrainer)
    assert PlacementGroupCleanerCallback not in made(FixedTrainer)


def test_a_fixed_policy_that_tells_no_autoscaler_overrides_every_way_of_telling_it() -> None:
    telling = {name for name in vars(ScalingPolicy) if name.endswith("_resource_request")} - {
        "_get_num_workers_for_resource_request"
    }
    assert telling <= vars(FixedPolicy).keys()
    assert "_maybe_send_resource_request" in inspect.getsource(FixedScalingPolicy)
    assert "scaling_policy" in inspect.getsource(DataParallelTrainer.fit)


def test_reports_are_logged_under_the_name_that_we_silence() -> None:
    assert context.logger.name == context.__file__


def test_a_backend_can_run_functions_on_the_workers_before_training_starts() -> None:
    assert {"execute", "execute_single", "get_workers"} <= set(dir(WorkerGroup))
    assert list(inspect.signature(Backend.on_start).parameters) == ["self", "worker_group", "backend_config"]
