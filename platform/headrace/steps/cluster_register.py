"""The register step on a cluster: the same gate and the same registry, under a lock that is a Lease.

It has no GPUs and no workers, so a champion that has changed since it was measured ends the run (champion-changed);
resuming the run measures the new one, without training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.steps.cluster_alias import AliasRights
from headrace.steps.register import RegisterStep, RegisterTools
from headrace.steps.register_tools import registry_tools
from headrace.steps.step import Outcome, Step


def cluster_register(step: Step, part: Mapping[str, Any], training: Mapping[str, Any], *, moves_alias: bool) -> Outcome:
    """The body of the register step."""
    from headrace.cluster import connect

    rights = AliasRights(step, connect(on_trouble=step.message))
    tools = registry_tools(rights.take, rights.require, evaluate=None)
    return register_holding(step, rights, tools, part, training, moves_alias=moves_alias)


def register_holding(
    step: Step,
    rights: AliasRights,
    tools: RegisterTools,
    part: Mapping[str, Any],
    training: Mapping[str, Any],
    *,
    moves_alias: bool,
) -> Outcome:
    """Register with TOOLS; what of RIGHTS the deploy step needs is held on to."""
    with rights.kept_only_for_the_next_step(wanted=not moves_alias):
        return RegisterStep(step, tools, part, training, moves_alias=moves_alias).run()
