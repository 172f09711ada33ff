"""The verdict on a storm finds what it is there to find: each fault, put into a right ending, is told."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from headrace_chaos.story import DeploymentStory, Plot, RunStory, Storm, plot
from headrace_chaos.verdict import Ending, judge

Object = dict[str, Any]
STORY = Plot(
    [RunStory("digits", {}, "Succeeded", 1, "Trained", 2)],
    [DeploymentStory("front", {}, ("1", "2"), 1)],
)


def _condition(type_: str, reason: str) -> list[Object]:
    return [{"type": type_, "reason": reason}]


def _owned(kind: str, uid: str, **status: Any) -> Object:
    return {"kind": kind, "metadata": {"ownerReferences": [{"uid": uid, "name": "front"}]}, "status": status}


def _event(verb: str, name: str, code: int, second: int) -> Object:
    at = f"2026-11-26T12:00:{second:02}.000000Z"
    reference = {"resource": "rayjobs", "name": name}
    return {"verb": verb, "objectRef": reference, "responseStatus": {"code": code}, "requestReceivedTimestamp": at}


def right() -> Ending:
    """A run that failed once and a deployment that was changed once."""
    status = {"phase": "Succeeded", "failures": 1, "attempt": 2, "conditions": _condition("Succeeded", "Trained")}
    served = {"servingVersion": "2", "conditions": _condition("Progressing", "Complete")}
    return Ending(
        runs={"digits": {"metadata": {"uid": "u1"}, "status": status}},
        deployments={"front": {"metadata": {"uid": "u2"}, "status": served}},
        ray_jobs={
            "digits-1": _owned("RayJob", "u1", jobDeploymentStatus="Failed", endTime="2026-11-26T12:00:10Z"),
            "digits-2": _owned("RayJob", "u1", jobDeploymentStatus="Complete"),
        },
        ray_services={"front": _owned("RayService", "u2")},
        ray_clusters=[_owned("RayCluster", "service")],
        created=Counter({"rayjobs/digits-1": 1, "rayjobs/digits-2": 1, "rayservices/front": 1}),
        asked=[_event("create", "digits-1", 201, 0), _event("create", "digits-2", 201, 20)],
        answers={"front": ["2"]},
    )


def test_a_right_ending_has_no_fault():
    assert judge(right(), STORY) == []


def _status(ending: Ending, **changes: Any) -> None:
    ending.runs["digits"]["status"].update(changes)


FAULTS: dict[str, Callable[[Ending], Any]] = {
    "rayjobs/digits-2 was created 2 times": lambda e: e.created.update({"rayjobs/digits-2": 1}),
    "digits has RayJobs of the attempts [1, 2, 3]": lambda e: e.created.update({"rayjobs/digits-3": 1}),
    "and says attempt 3": lambda e: _status(e, attempt=3),
    "RayJob digits-2 is nobody's": lambda e: e.ray_jobs["digits-2"]["metadata"].update(ownerReferences=[]),
    "RayJob digits-2 still lives": lambda e: e.ray_jobs["digits-2"].update(status={"jobDeploymentStatus": "Running"}),
    "RayService front has 2 RayClusters": lambda e: e.ray_clusters.append(_owned("RayCluster", "service")),
    "RayServices []": lambda e: e.ray_services.clear(),
    "RayJob digits-2 was made at": lambda e: e.ray_jobs["digits-1"]["status"].update(endTime="2026-11-26T12:00:30Z"),
    "run digits is ('Succeeded', 2, 'Trained')": lambda e: _status(e, failures=2),
    "run digits is ('Running', 1": lambda e: _status(e, phase="Running"),
    "run digits made 1 attempts, not 2": lambda e: _status(e, attempt=1),
    "deployment front answers ['1']": lambda e: e.answers.update(front=["1"]),
    "deployment front answers []": lambda e: e.answers.update(front=[]),
    "deployment front says 1 answers": lambda e: e.deployments["front"]["status"].update(servingVersion="1"),
    "deployment front is Starting": lambda e: e.deployments["front"]["status"].update(
        conditions=_condition("Progressing", "Starting")
    ),
}


@pytest.mark.parametrize("words", FAULTS)
def test_a_fault_is_told(words: str):
    ending = copy.deepcopy(right())
    FAULTS[words](ending)
    assert any(words in fault for fault in judge(ending, STORY)), judge(ending, STORY)


def test_an_attempt_that_was_deleted_before_the_next_began_did_not_live_beside_it():
    ending = right()
    del ending.ray_jobs["digits-1"]
    deleted = [*ending.asked[:1], _event("delete", "digits-1", 200, 15), *ending.asked[1:]]
    assert judge(replace(ending, asked=deleted), STORY) == []
    assert "was made at" in str(judge(ending, STORY))


@pytest.mark.parametrize("deleted", [200, 504])
def test_a_killed_operator_s_unanswered_requests_count_where_they_were_carried_out(deleted: int):
    ending = right()
    del ending.ray_jobs["digits-1"], ending.created["rayjobs/digits-1"]
    asked = [_event("create", "digits-1", 504, 0), _event("delete", "digits-1", deleted, 15), *ending.asked[1:]]
    assert judge(replace(ending, asked=asked), STORY) == []
    assert "digits has RayJobs of the attempts [2]" in str(judge(replace(ending, asked=asked[2:]), STORY))


def test_a_delete_that_a_killed_api_server_had_no_time_to_write_down_may_have_been_in_time():
    ending = right()
    del ending.ray_jobs["digits-1"]
    assert judge(replace(ending, crashes=("2026-11-26T12:00:15.000000Z",)), STORY) == []
    assert "was made at" in str(judge(replace(ending, crashes=("2026-11-26T12:00:25.000000Z",)), STORY))


def test_an_unanswered_attempt_that_began_too_early_is_told():
    ending = right()
    asked = [ending.asked[0], _event("create", "digits-2", 504, 5)]
    assert "RayJob digits-2 was made at 2026-11-26T12:00:05" in str(judge(replace(ending, asked=asked), STORY))


def test_a_delete_that_was_neither_answered_nor_carried_out_ends_no_attempt():
    ending = right()
    ending.ray_jobs["digits-1"]["status"].update(endTime="2026-11-26T12:00:30Z")
    asked = [ending.asked[0], _event("delete", "digits-1", 504, 15), ending.asked[1]]
    assert "RayJob digits-2 was made at" in str(judge(replace(ending, asked=asked), STORY))


def test_the_same_seed_draws_the_same_story_with_every_kind_in_it():
    storm = Storm(kills=1, restarts=1, runs=20, deployments=4, seconds=1, seed=7)
    assert plot(storm, "http://mlflow") == plot(storm, "http://mlflow")
    kinds = {run.name.rpartition("-")[0] for run in plot(storm, "http://mlflow").runs}
    assert kinds >= {"succeeds", "fails-once", "loses-head", "gives-up", "no-column", "no-image", "suspended"}
