"""The API behind the stand-in's server: finds a call by its method and path, and makes runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp_stand_in import documents
from kfp_stand_in.answers import Problem
from kfp_stand_in.life import Life
from kfp_stand_in.world import Record, World, new_id, now


@dataclass(frozen=True)
class Request:
    """One call: what its path named, its query, its JSON body or the file that it uploads, and the caller's rights."""

    query: Mapping[str, str]
    body: Record
    upload: str
    may: Callable[[str], None]  # raises Problem where the caller has no role in that namespace
    path: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[["Api", Request], Record]
_ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []
_ID = r"[^/:]+"


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    pattern = re.compile(re.sub(r"\{(\w+)\}", rf"(?P<\1>{_ID})", path))

    def add(handler: Handler) -> Handler:
        _ROUTES.append((method, pattern, handler))
        return handler

    return add


class Api:
    """The API of one WORLD."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lives: dict[str, Life] = {}

    def answer(self, method: str, path: str, request: Request) -> Record:
        """What is answered. Raises Problem."""
        for known, pattern, handler in _ROUTES:
            match = pattern.fullmatch(path)
            if known == method and match is not None:
                with self.world.lock:
                    return handler(
                        self, Request(request.query, request.body, request.upload, request.may, match.groupdict())
                    )
        raise Problem(404, f"Not Found: {method} {path}")

    def found(self, kind: dict[str, Record], identity: str, what: str) -> Record:
        """The record IDENTITY. Raises Problem."""
        if identity not in kind:
            raise Problem(404, f"{what} {identity} not found")
        return kind[identity]

    def new_run(self, body: Record, *, recurring: str | None = None) -> Record:
        """Make a run of BODY and let it go."""
        reference = body.get("pipeline_version_reference") or {}
        version = self.found(self.world.versions, str(reference.get("pipeline_version_id")), "PipelineVersion")
        pipeline = self.judged(version["pipeline_version_id"])
        given = (body.get("runtime_config") or {}).get("parameters") or {}
        try:
            arguments = documents.arguments(pipeline, given)
        except documents.BadArguments as error:
            raise Problem(400, f"Failed to create a run: {error}") from error
        record: Record = {
            **{key: body.get(key) for key in ("experiment_id", "display_name", "runtime_config", "service_account")},
            "run_id": new_id(),
            "pipeline_version_reference": reference,
            "storage_state": "AVAILABLE",
            "created_at": now(),
            "scheduled_at": now(),
            "finished_at": None,
            "state": "",
            "state_history": [],
            "run_details": {"task_details": []},
            **({"recurring_run_id": recurring} if recurring else {}),
        }
        self.world.runs[record["run_id"]] = record
        life = self.lives[record["run_id"]] = Life(self.world, record, pipeline, arguments)
        life.begin()
        return record

    def judged(self, version: str) -> documents.Pipeline:
        """The pipeline of VERSION, judged as create_run does: what it refuses is a 500."""
        try:
            pipeline = documents.read(self.world.texts[version])
            documents.judge_structure(pipeline)
        except documents.Unreadable as error:
            raise Problem(500, f"Failed to create a run: Failed to compile to Argo: {error}") from error
        return pipeline

    def namespace_of(self, record: Record) -> str:
        """The namespace of a run or a schedule."""
        return self.world.namespace_of_experiment(str(record.get("experiment_id")))


def fire(api: Api, recurring: Record) -> Record | None:
    """Its time has come: the run that the schedule makes, as the controller names it; None where it is paused."""
    if recurring["status"] != "ENABLED":
        return None
    body: dict[str, Any] = {**recurring, "display_name": f"{recurring['display_name']}-{new_id()[:5]}"}
    return api.new_run(body, recurring=recurring["recurring_run_id"])
