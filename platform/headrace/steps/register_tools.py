"""The register step's tools on a laptop: this machine's registry, its alias locks, and its Ray head to measure with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headrace.steps.register import RegisterTools
from headrace.steps.step import Step


def local_tools(train_part: Mapping[str, Any]) -> RegisterTools:
    """What `RegisterStep` needs, on this machine; TRAIN_PART says with how many workers a champion is measured."""
    from headrace.local.alias_lock import require_alias, take_alias

    def evaluate(step: Step, training: Mapping[str, Any], package_uri: str) -> str | None:
        return evaluate_champion(step, train_part, training, package_uri)

    return registry_tools(take_alias, require_alias, evaluate)


def registry_tools(
    take_alias: Callable[..., None],
    require_alias: Callable[[str, str], None],
    evaluate: Callable[[Step, Mapping[str, Any], str], str | None] | None,
) -> RegisterTools:
    """The registry that MLflow's address names, under the alias locks that are given; see `RegisterTools`."""
    from headrace.tracking import registry

    return RegisterTools(
        champion=registry.resolve,
        find=registry.find_by_package,
        register=registry.register,
        tag_gate=registry.tag_gate,
        set_alias=registry.set_alias,
        take_alias=take_alias,
        require_alias=require_alias,
        evaluate=evaluate,
    )


def evaluate_champion(
    step: Step, train_part: Mapping[str, Any], training: Mapping[str, Any], package_uri: str
) -> str | None:
    """Measure the package at PACKAGE_URI on the test split of TRAINING; why that failed, or None."""
    from headrace.steps.train import training_request
    from headrace.steps.train_tools import local_workers
    from headrace.training import run_training

    fingerprint = training["split_fingerprint"]
    with local_workers(step, train_part["train"]) as (connection, demand):
        request = training_request(
            step,
            train_part,
            fingerprint,
            demand,
            train_needed=False,
            package_uri=training["package_uri"],
            evaluate=(package_uri,),
        )
        result = run_training(request, connection=connection)
    return result.evaluation_errors.get(package_uri)
