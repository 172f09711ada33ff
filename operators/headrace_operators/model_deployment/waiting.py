"""Why the pods of a deployment do not run, in one sentence that stays the same while nothing changes."""

from __future__ import annotations

from collections.abc import Iterable

from headrace_operators.pods import Pod, pod_of
from headrace_operators.runtime.conditions import find
from headrace_operators.runtime.kinds import Object

_LONGEST = 500
_WORDS = {
    "image": "the {role}'s image cannot be pulled: {words}",
    "config": "the {role}'s container cannot be made: {words}",
    "crash": "the {role}'s container ends again and again: {words}",
    "unschedulable": "the {role}'s pod fits on no node: {words}",
}


def why_waiting(pods: Iterable[Object], ray_clusters: Iterable[Object]) -> str:
    """The first trouble of the pods, the head's before the workers'; "" where there is none."""
    if refused := _refusal(ray_clusters):
        return f"pods cannot be made: {refused}"[:_LONGEST]
    alive = [pod for pod in map(pod_of, pods) if pod.alive]
    troubled = sorted((pod for pod in alive if pod.trouble is not None), key=_order)
    if not troubled or troubled[0].trouble is None:
        return ""
    kind, words = troubled[0].trouble
    return _WORDS[kind].format(role=troubled[0].role, words=words)[:_LONGEST]


def _order(pod: Pod) -> tuple[bool, int, str]:
    assert pod.trouble is not None
    return pod.role != "head", list(_WORDS).index(pod.trouble[0]), pod.name


def _refusal(ray_clusters: Iterable[Object]) -> str:
    """Why KubeRay could not make pods, in the API server's words (Pod Security, a quota)."""
    for cluster in ray_clusters:
        failure = find((cluster.get("status") or {}).get("conditions") or (), "ReplicaFailure")
        if failure is not None and failure["status"] == "True":
            return " ".join(str(failure.get("message") or failure.get("reason")).split())
    return ""
