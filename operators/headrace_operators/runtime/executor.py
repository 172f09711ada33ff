"""Carries out a plan: its actions in their order, then its status. Each is safe to carry out twice.

A kill between any two of them leaves nothing that the next plan would not find and finish.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headrace_operators.runtime.actions import Action, Apply, Create, Delete, Plan, Tell
from headrace_operators.runtime.client import Client
from headrace_operators.runtime.errors import AlreadyExists, ApiError, Conflict, NotFound, Wait
from headrace_operators.runtime.events import Events
from headrace_operators.runtime.expectations import Expectations
from headrace_operators.runtime.kinds import Key, Kind, Object, controller_of, key_of
from headrace_operators.runtime.logs import Log, object_fields

_GOING_SECONDS = 2.0


class NameTaken(ApiError):
    """An object of the name that we need is there, and it is another's."""


class Executor:
    """Of one controller."""

    def __init__(self, kind: Kind, client: Client, events: Events, expectations: Expectations, log: Log) -> None:
        self._kind = kind
        self._client = client
        self._events = events
        self._expectations = expectations
        self._log = log

    async def carry_out(self, primary: Object, plan: Plan) -> None:
        """All of PLAN, made from PRIMARY; the first failure ends it."""
        for action in plan.actions:
            await self._act(primary, action)
        if plan.status is not None and differs(plan.status, primary.get("status")):
            await self._write_status(primary, plan.status)

    async def _act(self, primary: Object, action: Action) -> None:
        key = key_of(primary)
        match action:
            case Create():
                self._expectations.wrote(key, action.kind, await self._create(action))
                self._say(key, "created %s %s", action.kind.kind, key_of(action.manifest))
            case Apply():
                answer = await self._client.apply(action.kind, action.manifest, force=action.force)
                self._expectations.wrote(key, action.kind, answer)
                self._say(key, "applied %s %s", action.kind.kind, key_of(answer))
            case Delete():
                await self._delete(key, action)
                self._say(key, "deleted %s %s/%s", action.kind.kind, action.namespace, action.name)
            case Tell():
                self._say(key, "%s: %s", action.reason, action.message)
                await self._events.tell(primary, action)

    async def _create(self, action: Create) -> Object:
        try:
            return await self._client.create(action.kind, action.manifest)
        except AlreadyExists as error:
            there = await self._client.get(action.kind, key_of(action.manifest))
            return self._ours(action, there, error)

    def _ours(self, action: Create, there: Object, error: ApiError) -> Object:
        """The object that has the name, if it has our controller and stays."""
        words = f"{action.kind.kind} {key_of(there)}"
        mine, its = controller_of(action.manifest), controller_of(there)
        if (its or {}).get("uid") != (mine or {}).get("uid"):
            owner = f"{its['kind']} {its['name']} (uid {its['uid']})" if its else "nobody"
            message = f"{words} is there and belongs to {owner}: delete or rename it"
            raise NameTaken(409, "NameTaken", message) from error
        if "deletionTimestamp" in there["metadata"]:
            raise Wait(f"{words} is being deleted", _GOING_SECONDS) from error
        return there

    async def _delete(self, primary: Key, action: Delete) -> None:
        key = Key(action.namespace, action.name)
        try:
            await self._client.delete(action.kind, key, action.uid)
        except (NotFound, Conflict):
            return  # it is gone, or another has its name
        self._expectations.deleted(primary, action.kind, key, action.uid)

    async def _write_status(self, primary: Object, status: Mapping[str, Any]) -> None:
        key, version = key_of(primary), primary["metadata"]["resourceVersion"]
        answer = await self._client.patch_status(self._kind, key, status, version)
        self._expectations.wrote(key, self._kind, answer)
        if differs(status, answer.get("status")):
            self._log.warning("the API server keeps another status than was written", fields=object_fields(key))

    def _say(self, key: Key, words: str, *values: object) -> None:
        self._log.info(words, *values, fields=object_fields(key))


def differs(wanted: Mapping[str, Any], held: object) -> bool:
    """Whether two statuses are different as JSON (tuples are lists)."""
    return bool(json.loads(json.dumps(wanted)) != (held or {}))
