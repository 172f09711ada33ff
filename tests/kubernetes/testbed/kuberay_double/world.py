"""Plays a scenario against whoever reconciles RayJobs and RayServices, and records what an observer sees.

The real KubeRay and its double are looked at through this alone, so that a difference is theirs and not the looking's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kuberay_double.script import Script
from kuberay_double.wire import EVENT, POD, RAY_CLUSTER, RAY_JOB, RAY_SERVICE, SERVICE, Object, Refused, Resource, Wire

Needs = Literal["control plane", "pods"]
_ORDINARY = Script()
_NOT_YET = "never saw"
DELETED = "what an edit deleted"
_LOOK_SECONDS = 0.5
_REST_SECONDS = 3.0
RESOURCES = {"RayJob": RAY_JOB, "RayService": RAY_SERVICE}


@dataclass
class World:
    """What is there at one moment, of one RayJob or RayService: `object` is None once it is gone."""

    object: Object | None
    clusters: list[Object]
    pods: list[Object]
    services: list[Object]
    events: list[Object]
    seen: Mapping[str, list[Object]] = field(default_factory=dict)  # what the object was, by state; what was DELETED

    @property
    def status(self) -> Object:
        """The object's status."""
        return (self.object or {}).get("status") or {}

    def heads(self) -> list[Object]:
        """The head pods."""
        return [pod for pod in self.pods if pod["metadata"]["labels"].get("ray.io/node-type") == "head"]

    def condition(self, type_: str) -> tuple[str, str]:
        """A condition's status and reason."""
        found = [each for each in self.status.get("conditions") or () if each["type"] == type_]
        return (found[0]["status"], found[0]["reason"]) if found else ("", "")


@dataclass(frozen=True)
class Edit:
    """When the object is in the state AT for the first time: merge PATCH in, or delete it or what is named."""

    at: str
    patch: Mapping[str, Any] | None = None
    delete: Literal["", "object", "cluster", "head", "worker"] = ""


Check = tuple[str, Callable[[World], bool]]


@dataclass(frozen=True)
class Scenario:
    """One line of the table.

    Args:
        name: a sentence of what happens.
        manifest: what is created; its name and namespace are the player's.
        states: what is seen, in this order, as "jobDeploymentStatus/jobStatus/reason" of a RayJob and as "Ready's
            reason/UpgradeInProgress' reason" of a RayService. One that ends with "?" may be shorter than a look.
        holds: what is true in the end.
        edits: what is done meanwhile.
        needs: "pods" where a kubelet must run them: played by the double here, on real pods in the node tier.
        script: what the double is to play where pods are needed; on a node the manifest's entrypoint does it.
        name_suffix: the end of the object's name, where the name matters.
        on_node: what the spec says instead on a node, where pods take longer.
    """

    name: str
    manifest: Object
    states: tuple[str, ...]
    holds: tuple[Check, ...] = ()
    edits: tuple[Edit, ...] = ()
    needs: Needs = "control plane"
    script: Script = _ORDINARY
    name_suffix: str = ""
    on_node: Mapping[str, Any] = field(default_factory=dict)


def state_of(obj: Mapping[str, Any]) -> str:
    """The state of a RayJob or RayService in one word, as `Scenario.states` has it."""
    status = obj.get("status") or {}
    if obj["kind"] == "RayJob":
        parts = (status.get(name) or "" for name in ("jobDeploymentStatus", "jobStatus", "reason"))
        return "/".join(parts).rstrip("/")
    reasons = {each["type"]: each["reason"] for each in status.get("conditions") or ()}
    return "/".join(reasons.get(type_, "") for type_ in ("Ready", "UpgradeInProgress")).rstrip("/")


def missing(wanted: tuple[str, ...], seen: list[str]) -> str:
    """The first of the states WANTED that was not SEEN in its turn, or one seen that nobody expected; else nothing."""
    position = 0
    for state in seen:
        while position < len(wanted) and wanted[position].rstrip("?") != state:
            if not wanted[position].endswith("?"):
                return f"expected {wanted[position]!r}, saw {state!r}"
            position += 1
        if position == len(wanted):
            return f"nobody expected {state!r}"
        position += 1
    rest = [state for state in wanted[position:] if not state.endswith("?")]
    return f"{_NOT_YET} {rest[0]!r}" if rest else ""


class Player:
    """Plays scenarios in NAMESPACE, looking and editing as whoever KUBECONFIG names."""

    def __init__(self, kubeconfig: Path, namespace: str, seconds: float = 30) -> None:
        self._kubeconfig, self._namespace, self._seconds = kubeconfig, namespace, seconds

    def play(self, scenario: Scenario, name: str) -> None:
        """Play SCENARIO on an object NAME. Raises AssertionError, which tells all that was seen."""
        asyncio.run(self._play(scenario, name + scenario.name_suffix))

    async def _play(self, scenario: Scenario, name: str) -> None:
        resource = RESOURCES[scenario.manifest["kind"]]
        manifest = {**scenario.manifest, "metadata": {**scenario.manifest.get("metadata", {}), "name": name}}
        seen: dict[str, list[Object]] = {}
        states: list[str] = []
        async with Wire(self._kubeconfig) as wire:
            path = resource.path(self._namespace)
            made = await wire.request("POST", path, manifest, fieldManager="scenario")
            watching = asyncio.create_task(self._watch(wire, resource, made, scenario, states, seen))
            looking = asyncio.create_task(self._until_held(wire, resource, made, scenario, states, seen))
            try:
                await asyncio.wait((watching, looking), return_when=asyncio.FIRST_COMPLETED)
                if not looking.done():
                    watching.result()  # what an edit failed with
                    raise AssertionError(f"{scenario.name}: the watch ended. Seen: {states}")
                looking.result()
            finally:
                for task in (watching, looking):
                    task.cancel()
                await asyncio.gather(watching, looking, return_exceptions=True)
                await _discard(wire, resource.path(self._namespace, name))

    async def _watch(
        self,
        wire: Wire,
        resource: Resource,
        made: Object,
        scenario: Scenario,
        states: list[str],
        seen: dict[str, list[Object]],
    ) -> None:
        path, edits = resource.path(self._namespace), list(scenario.edits)
        name = made["metadata"]["name"]
        asked = {"fieldSelector": f"metadata.name={name}", "timeoutSeconds": str(int(self._seconds) + 60)}
        events = wire.watch(path, made["metadata"]["resourceVersion"], **asked)
        _note(made, states, seen)
        await self._edit(wire, resource, made, edits, states, seen)
        async for type_, obj in events:
            if type_ not in ("ADDED", "MODIFIED"):
                continue
            _note(obj, states, seen)
            await self._edit(wire, resource, obj, edits, states, seen)

    async def _edit(
        self,
        wire: Wire,
        resource: Resource,
        obj: Object,
        edits: list[Edit],
        states: list[str],
        seen: dict[str, list[Object]],
    ) -> None:
        if not edits or states[-1] != edits[0].at:
            return
        edit = edits.pop(0)
        path = resource.path(self._namespace, obj["metadata"]["name"])
        if edit.patch is not None:
            await wire.request("PATCH", path, dict(edit.patch), fieldManager="scenario-edit")
        if edit.delete == "object":
            await wire.request("DELETE", path)
        elif edit.delete:
            seen[DELETED] = [await self._delete_part(wire, obj, edit.delete)]

    async def _delete_part(self, wire: Wire, obj: Object, part: str) -> Object:
        """Delete it once it is there: KubeRay names a cluster before it makes it.

        A cluster only when KubeRay has had time to see its head's pod again: it expects that pod by the cluster's name
        (`rayClusterScaleExpectation`), and what it has not seen by then the next cluster of that name waits for.
        """
        cluster = obj["status"].get("rayClusterName") or obj["status"]["activeServiceStatus"]["rayClusterName"]
        resource, selector = POD, {"labelSelector": f"ray.io/cluster={cluster},ray.io/node-type={part}"}
        if part == "cluster":
            resource, selector = RAY_CLUSTER, {"fieldSelector": f"metadata.name={cluster}"}
        while not (found := (await wire.list(resource.path(self._namespace), **selector))[0]) or (
            part == "cluster" and not _has_head(found[0])
        ):
            await asyncio.sleep(0.05)
        if part == "cluster":
            await asyncio.sleep(_REST_SECONDS)
        path = resource.path(self._namespace, found[0]["metadata"]["name"])
        await wire.request("DELETE", path, None, **({"gracePeriodSeconds": "0"} if resource is POD else {}))
        return found[0]

    async def _until_held(
        self,
        wire: Wire,
        resource: Resource,
        made: Object,
        scenario: Scenario,
        states: list[str],
        seen: dict[str, list[Object]],
    ) -> None:
        deadline = time.monotonic() + self._seconds
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            late = time.monotonic() > deadline
            if missing(scenario.states, states).startswith(_NOT_YET) and not late:
                continue  # four lists of everything, for each of many scenarios, are more than the waiting costs
            world = await self._look(wire, resource, made["metadata"]["name"], seen)
            wrong = [sentence for sentence, holds in scenario.holds if not _holds(holds, world)]
            trouble = missing(scenario.states, states)
            if not wrong and not trouble:
                return
            astray = trouble and not trouble.startswith(_NOT_YET)
            if astray or late:
                raise AssertionError(
                    f"{scenario.name}: {trouble or 'the states are right'}; not so: {wrong}. Seen: {states}. "
                    f"Now: {world.status}; clusters {[c['metadata']['name'] for c in world.clusters]}; "
                    f"pods {[p['metadata']['name'] for p in world.pods]}"
                )

    async def _look(self, wire: Wire, resource: Resource, name: str, seen: Mapping[str, list[Object]]) -> World:
        namespace = self._namespace
        parts = []
        for part in (RAY_CLUSTER, POD, SERVICE, EVENT):
            items, _ = await wire.list(part.path(namespace))
            parts.append(items)
        clusters = [each for each in parts[0] if _is_of(each, name)]
        names = {each["metadata"]["name"] for each in clusters}
        names |= {_cluster_name(each) for objects in seen.values() for each in objects}
        pods = [each for each in parts[1] if each["metadata"].get("labels", {}).get("ray.io/cluster") in names]
        services = [each for each in parts[2] if _is_of(each, name) or each["metadata"]["name"].startswith(f"{name}-")]
        events = [each for each in parts[3] if each["involvedObject"].get("name") == name]
        try:
            obj: Object | None = await wire.request("GET", resource.path(namespace, name))
        except Refused as refusal:
            if refusal.status != 404:
                raise
            obj = None
        return World(obj, clusters, pods, services, events, seen)


Plays = dict[str, Future[None]]


@contextmanager
def play_all(player: Player, scenarios: Sequence[Scenario], at_once: int) -> Iterator[Plays]:
    """Play SCENARIOS, in their order, AT_ONCE at a time; each one's end by its name."""
    with ThreadPoolExecutor(at_once) as pool:
        yield {each.name: pool.submit(player.play, each, f"s{number}") for number, each in enumerate(scenarios)}
        pool.shutdown(wait=False, cancel_futures=True)


def _note(obj: Object, states: list[str], seen: dict[str, list[Object]]) -> None:
    state = state_of(obj)
    seen.setdefault(state, []).append(obj)
    if not states or states[-1] != state:
        states.append(state)


def _holds(check: Callable[[World], bool], world: World) -> bool:
    try:
        return check(world)
    except (KeyError, IndexError, TypeError, StopIteration):
        return False


def _is_of(obj: Mapping[str, Any], name: str) -> bool:
    return any(each["name"] == name for each in obj["metadata"].get("ownerReferences") or ())


def _has_head(cluster: Mapping[str, Any]) -> bool:
    """Whether its status tells of its head's pod."""
    conditions = (cluster.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "HeadPodReady" and each["reason"] != "HeadPodNotFound" for each in conditions)


def _cluster_name(obj: Mapping[str, Any]) -> str:
    return str((obj.get("status") or {}).get("rayClusterName", ""))


async def _discard(wire: Wire, path: str) -> None:
    try:
        await wire.request("DELETE", path)
    except Refused as refusal:
        if refusal.status != 404:
            raise
