"""Judges a storm by the API server's audit log and by what is left: each sentence must hold."""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from headrace_chaos.storm import BROKEN_WORDS, Field
from headrace_chaos.story import BROKEN, DeploymentStory, Plot, RunStory

Object = dict[str, Any]
_RAY = "/apis/ray.io/v1/namespaces/{}/{}"
_SETTLING_SECONDS = 60.0
UNANSWERED = 504  # what the audit log says of a request whose asker went away, whether it was carried out or not


@dataclass(frozen=True)
class Ending:
    """What is there after a storm, and what the operator asked for during it."""

    runs: dict[str, Object]
    deployments: dict[str, Object]
    ray_jobs: dict[str, Object]
    ray_services: dict[str, Object]
    ray_clusters: list[Object]
    created: Counter[str]  # "rayjobs/NAME": how often the API server created it for the operator
    asked: list[Object]  # audit events of the operator
    answers: dict[str, list[str | None]]  # by deployment: the version that each replica of its front answers with
    crashes: tuple[str, ...] = ()  # when the API server was killed: of what it then did its audit log says nothing


def read(field: Field) -> Ending:
    """Read the ending of a storm."""
    api, namespace = field.plane.api, field.namespace

    def named(path: str) -> dict[str, Object]:
        return {each["metadata"]["name"]: each for each in api.list(path)}

    asked = [each for each in field.plane.audited(field.user) if each["stage"] == "ResponseComplete"]
    created = Counter(
        f"{each['objectRef']['resource']}/{each['objectRef'].get('name')}" for each in asked if _made_something(each)
    )
    deployments = named(field.path("modeldeployments"))
    return Ending(
        runs=named(field.path("trainingruns")),
        deployments=deployments,
        ray_jobs=named(_RAY.format(namespace, "rayjobs")),
        ray_services=named(_RAY.format(namespace, "rayservices")),
        ray_clusters=api.list(_RAY.format(namespace, "rayclusters")),
        created=created,
        asked=asked,
        answers={name: [each.stable for each in field.front.statuses(name)] for name in deployments},
        crashes=tuple(field.crashes),
    )


def _made_something(event: Object) -> bool:
    """Whether the event is of a RayJob or RayService that came into being: POST and apply both answer 201 then."""
    resource = event.get("objectRef", {}).get("resource")
    return resource in ("rayjobs", "rayservices") and event["responseStatus"]["code"] == 201


def ruling(field: Field, story: Plot) -> tuple[Ending, list[str]]:
    """The ending of a storm, and everything that is wrong about it once nothing is left to be cleaned up.

    A busy machine is still at that when all runs and deployments have said how they ended. What is not cleaned up in a
    while is wrong.
    """
    deadline = time.monotonic() + _SETTLING_SECONDS
    while True:
        ending = read(field)
        wrong = judge(ending, story)
        if not any(_orphans(ending)) or time.monotonic() > deadline:
            return ending, wrong
        time.sleep(1.0)


def judge(ending: Ending, story: Plot) -> list[str]:
    """Everything about the ending that is wrong."""
    wrong = [*_attempts(ending), *_orphans(ending), *_one_at_a_time(ending)]
    for run in story.runs:
        wrong += _run(ending, run)
    for deployment in story.deployments:
        wrong += _deployment(ending, deployment)
    return wrong


# -- sentences ---------------------------------------------------------------------------------------------------------


def _attempts(ending: Ending) -> Iterator[str]:
    """Exactly one RayJob an attempt, none of an attempt that nobody counted; one RayService a deployment."""
    for name, times in ending.created.items():
        if times > 1:
            yield f"{name} was created {times} times"
    numbers: dict[str, set[int]] = defaultdict(set)
    created = {key.removeprefix("rayjobs/") for key in ending.created if key.startswith("rayjobs/")}
    # Of a POST that was not answered, the RayJob is there all the same, and maybe was deleted since.
    for name in created | set(ending.ray_jobs) | set(_deleted(ending)):
        run, _, number = name.rpartition("-")
        numbers[run].add(int(number))
    for run, found in numbers.items():
        attempts = (ending.runs.get(run, {}).get("status") or {}).get("attempt")
        if found != set(range(1, len(found) + 1)) or attempts != len(found):
            yield f"{run} has RayJobs of the attempts {sorted(found)} and says attempt {attempts}"


def _deleted(ending: Ending) -> dict[str, str]:
    """When the operator had a RayJob deleted, by its name."""
    deletes = [
        (each["objectRef"]["name"], each["responseStatus"]["code"], each["requestReceivedTimestamp"])
        for each in ending.asked
        if each["verb"] == "delete" and each["objectRef"]["resource"] == "rayjobs"
    ]
    # It was killed before it was answered, and what it asked for is gone: it was done.
    unanswered = {name: at for name, code, at in deletes if code == UNANSWERED and name not in ending.ray_jobs}
    return unanswered | {name: at for name, code, at in deletes if code == 200}


def _orphans(ending: Ending) -> Iterator[str]:
    """Nothing is left that nobody owns, and nothing of a run that has ended still lives."""
    owners = {each["metadata"]["uid"] for each in (*ending.runs.values(), *ending.deployments.values())}
    for name, job in (*ending.ray_jobs.items(), *ending.ray_services.items()):
        if [each["uid"] in owners for each in job["metadata"].get("ownerReferences", ())] != [True]:
            yield f"{job['kind']} {name} is nobody's"
    for name, job in ending.ray_jobs.items():
        state = (job.get("status") or {}).get("jobDeploymentStatus")
        if state not in ("Complete", "Failed"):
            yield f"RayJob {name} still lives: {state!r}"
    if set(ending.ray_services) != set(ending.deployments):
        yield f"RayServices {sorted(ending.ray_services)} for deployments {sorted(ending.deployments)}"
    parents = Counter(each["metadata"]["ownerReferences"][0]["name"] for each in ending.ray_clusters)
    for name in ending.ray_services:
        if parents[name] != 1:
            yield f"RayService {name} has {parents[name]} RayClusters"


def _one_at_a_time(ending: Ending) -> Iterator[str]:
    """An attempt begins when the one before it is over: it has ended, or was deleted."""
    deleted = _deleted(ending)
    there = {*ending.ray_jobs, *deleted}
    began: dict[str, str] = {}
    for event in ending.asked:
        reference, code = event["objectRef"], event["responseStatus"]["code"]
        unanswered = event["verb"] == "create" and code == UNANSWERED and reference.get("name") in there
        if reference["resource"] != "rayjobs" or not (unanswered or _made_something(event)):
            continue
        run, _, number = event["objectRef"]["name"].rpartition("-")
        before, at = f"{run}-{int(number) - 1}", event["requestReceivedTimestamp"]
        began[reference["name"]] = at
        untold = before not in there and any(began.get(before, "9") < crash < at for crash in ending.crashes)
        ended = (ending.ray_jobs.get(before, {}).get("status") or {}).get("endTime")
        over = ended is not None and ended[:19] <= at[:19]
        if number != "1" and not over and not untold and not deleted.get(before, "9") <= at:
            yield f"RayJob {run}-{number} was made at {at}, and {before} ended {ended}, deleted {deleted.get(before)}"


def _run(ending: Ending, story: RunStory) -> Iterator[str]:
    """The run has ended as its script says, and counted its failures honestly."""
    status = ending.runs.get(story.name, {}).get("status") or {}
    told = (status.get("phase"), status.get("failures", 0), _reason(status, "Succeeded"))
    if told != (story.phase, story.failures, story.reason):
        wanted = (story.phase, story.failures, story.reason)
        yield f"run {story.name} is {told}, attempt {status.get('attempt')}, not {wanted}: {status.get('message')}"
    if story.attempts is not None and status.get("attempt") != story.attempts:
        yield f"run {story.name} made {status.get('attempt')} attempts, not {story.attempts}"


def _deployment(ending: Ending, story: DeploymentStory) -> Iterator[str]:
    """The version that was asked for last answers from every replica, and the status says so; a broken one is told."""
    status = ending.deployments.get(story.name, {}).get("status") or {}
    answers = ending.answers.get(story.name, [])
    if len(answers) != story.replicas or len(set(answers)) != 1 or answers[0] not in story.may_answer:
        yield f"deployment {story.name} answers {answers}, not one of {story.may_answer} from {story.replicas} replicas"
    if answers and status.get("servingVersion") != answers[0]:
        yield f"deployment {story.name} says {status.get('servingVersion')} answers, and it is {answers[0]}"
    wanted = "LoadFailed" if story.versions[-1] == BROKEN else "Complete"
    if _reason(status, "Progressing") != wanted:
        yield f"deployment {story.name} is {_reason(status, 'Progressing')}, not {wanted}: {status.get('message')}"
    if wanted == "LoadFailed" and not re.search(BROKEN_WORDS, str(status)):
        yield f"deployment {story.name} does not tell the front's own error: {status.get('message')}"


def _reason(status: Object, type_: str) -> str | None:
    return next((each["reason"] for each in status.get("conditions") or () if each["type"] == type_), None)


def table(field: Field, story: Plot, ending: Ending) -> str:
    """What the storm was and did, as a table."""
    writes = Counter(each["verb"] for each in ending.asked if each["verb"] not in ("get", "list", "watch"))
    kinds = Counter(run.name.rpartition("-")[0] for run in story.runs)
    rows: list[tuple[str, object]] = [
        ("SIGKILLs of the operator", field.killed),
        ("restarts of the API server", len(field.crashes)),
        ("seconds of storm, until all was settled", f"{field.lasted_seconds:.0f}, {field.settled_seconds:.0f}"),
        ("runs, by what happens to them", ", ".join(f"{kind} {number}" for kind, number in sorted(kinds.items()))),
        ("attempts", sum((run.get("status") or {}).get("attempt", 0) for run in ending.runs.values())),
        ("failures counted", sum((run.get("status") or {}).get("failures", 0) for run in ending.runs.values())),
        ("RayJobs created", sum(n for name, n in ending.created.items() if name.startswith("rayjobs/"))),
        ("deployments", len(ending.deployments)),
        ("RayServices created", sum(n for name, n in ending.created.items() if name.startswith("rayservices/"))),
        ("requests of the operator", len(ending.asked)),
        ("writes of the operator", ", ".join(f"{verb} {number}" for verb, number in sorted(writes.items()))),
        ("refused as too late (409)", sum(each["responseStatus"]["code"] == 409 for each in ending.asked)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
