"""What a pod says of itself, in words that a person can act on."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.cluster.pods import pod_of


def pod(phase: str = "Pending", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "step", "labels": {"run": "a"}},
        "spec": {"containers": [{"name": "main", "image": "headrace/runtime:1"}]},
        "status": {"phase": phase, **status},
    }


def container(**state: Any) -> dict[str, Any]:
    return {"name": "main", "image": "headrace/runtime:1", "state": state}


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("ErrImagePull", "the image headrace/runtime:1 cannot be pulled (ErrImagePull): gone"),
        ("ImagePullBackOff", "the image headrace/runtime:1 cannot be pulled (ImagePullBackOff): gone"),
        ("CreateContainerConfigError", "container main cannot be started (CreateContainerConfigError): gone"),
        ("ContainerCreating", ""),
    ],
)
def test_why_a_container_waits(reason: str, words: str) -> None:
    waiting = container(waiting={"reason": reason, "message": "gone"})
    assert pod_of(pod(containerStatuses=[waiting])).waits == words


def test_a_crash_loop_says_how_it_ended_last() -> None:
    looping = container(waiting={"reason": "CrashLoopBackOff"})
    looping["lastState"] = {"terminated": {"exitCode": 3, "message": "no such file"}}
    said = pod_of(pod("Running", containerStatuses=[looping])).waits
    assert said == "container main crashes again and again: ended with exit code 3: no such file"


def test_a_pod_that_fits_nowhere_says_so_in_the_scheduler_s_words() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no GPU"}
    assert pod_of(pod(conditions=[condition])).waits == "no node takes it (Unschedulable): 0/3 nodes: no GPU"


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ({"exitCode": 137, "reason": "OOMKilled"}, "needed more memory than it may have"),
        ({"exitCode": 137, "reason": "Error"}, "container main was killed"),
        ({"exitCode": 2, "reason": "Error", "message": "bad spec"}, "container main ended with exit code 2: bad spec"),
    ],
)
def test_how_a_container_failed(ended: dict[str, Any], words: str) -> None:
    assert words in pod_of(pod("Failed", containerStatuses=[container(terminated=ended)])).failure


def test_a_pod_that_was_evicted_says_why() -> None:
    failed = pod_of(pod("Failed", reason="Evicted", message="the node was low on memory"))
    assert failed.failure == "the pod was ended (Evicted): the node was low on memory"


def test_a_pod_that_runs_or_ended_well_says_nothing() -> None:
    assert (pod_of(pod("Running")).waits, pod_of(pod("Succeeded")).failure) == ("", "")
    assert pod_of({"metadata": {"name": "step"}}).phase == "Unknown"
