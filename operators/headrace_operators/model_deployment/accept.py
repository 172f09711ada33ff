"""Whether a spec can be carried out: what the CRD's own rules cannot see, each as a sentence that says what to do.

Also what they do see, in case an older CRD is installed than the operator knows.
"""

from __future__ import annotations

import re

from headrace.api.model_deployment import ModelDeploymentSpec
from headrace.api.pods import PodResources
from headrace.api.quantities import number
from headrace.base.ids import LONGEST_NAME
from headrace_operators.model_deployment.sizing import most_replicas, room, worker_count
from headrace_operators.ray_pods import ray_cpus, reserved_variables

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def problems(name: str, spec: ModelDeploymentSpec, image: str) -> list[str]:
    """Why SPEC cannot be carried out, or nothing."""
    found = []
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        found.append(
            f"the name {name!r} cannot be a RayService's: use lower case letters, digits and hyphens, at most "
            f"{LONGEST_NAME}, beginning with a letter"
        )
    if (spec.model.version is None) == (spec.model.alias is None):
        found.append("spec.model names both or neither of version and alias: give exactly one")
    if spec.autoscaling and spec.autoscaling.min_replicas > spec.autoscaling.max_replicas:
        least, most = spec.autoscaling.min_replicas, spec.autoscaling.max_replicas
        found.append(
            f"spec.autoscaling has minReplicas {least} above maxReplicas {most}: raise the one or lower the other"
        )
    if not image:
        found.append("there is no image: set spec.pods.image, or start the operator with --runtime-image")
    if reserved := reserved_variables(spec.pods):
        found.append(
            f"spec.pods.environment sets {', '.join(reserved)}, which the operator and KubeRay set: leave it out"
        )
    return [*found, *_too_small(spec)]


def _too_small(spec: ModelDeploymentSpec) -> list[str]:
    found = []
    head, worker = spec.pods.head, spec.pods.worker
    for where, resources in (("head", head), ("worker", worker)):
        if number(spec.pods.shared_memory) >= number(resources.memory):
            found.append(
                f"spec.pods.sharedMemory ({spec.pods.shared_memory}) takes all of spec.pods.{where}.memory "
                f"({resources.memory}), which it counts as: lower the one or raise the other"
            )
    workers, replicas = worker_count(spec), most_replicas(spec)
    there = room(spec, head) + workers * room(spec, worker)
    if there < replicas:
        asked = spec.resources
        wants = [f"{asked.cpus:g} CPU", f"{asked.gpus:g} GPU" if asked.gpus else "", _memory(asked.memory_bytes)]
        each = " and ".join(want for want in wants if want)
        found.append(
            f"{replicas} replicas of {each} do not fit: there is room for {there} in the head ({_shown(head)}) and "
            f"{workers} workers ({_shown(worker)} each); raise spec.workers or what spec.pods gives them, or lower "
            f"spec.resources"
        )
    return found


def _memory(asked: int | None) -> str:
    return f"{asked / 2**30:.3g} GiB of memory" if asked else ""


def _shown(pod: PodResources) -> str:
    return f"{ray_cpus(pod)} CPU" + (f", {pod.gpu} GPU" if pod.gpu else "") + f", {pod.memory}"
