"""How many pods the replicas of a deployment need, by what Ray can place in each. Pure."""

from __future__ import annotations

from fractions import Fraction

from headrace.api.model_deployment import ModelDeploymentSpec
from headrace.api.pods import PodResources
from headrace.api.quantities import whole
from headrace_operators.ray_pods import ray_cpus


def worker_count(spec: ModelDeploymentSpec) -> int:
    """Worker pods: as many as said; else as many as the replicas need, and one where there may be more than one."""
    if spec.workers:
        return spec.workers
    most, each = most_replicas(spec), room(spec, spec.pods.worker)
    missing = most - room(spec, spec.pods.head)
    needed = -(-missing // each) if missing > 0 and each else 0
    return max(needed, int(most > 1))


def room(spec: ModelDeploymentSpec, pod: PodResources) -> int:
    """Replicas that Ray can place in a pod."""
    asked, room = spec.resources, [most_replicas(spec)]
    if asked.cpus:
        room.append(ray_cpus(pod) // Fraction(str(asked.cpus)))
    if asked.gpus:
        room.append(pod.gpu // Fraction(str(asked.gpus)))
    if asked.memory_bytes:
        room.append(whole(pod.memory) // asked.memory_bytes)
    return min(room)


def least_replicas(spec: ModelDeploymentSpec) -> int:
    """Replicas that must answer."""
    return spec.autoscaling.min_replicas if spec.autoscaling else spec.replicas


def most_replicas(spec: ModelDeploymentSpec) -> int:
    """Replicas that may answer."""
    return spec.autoscaling.max_replicas if spec.autoscaling else spec.replicas
