"""The deploy step: the registered version answers, and only then the alias says so.

A deployment that fails leaves the endpoint and the alias as they were; one that is in force already costs a look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.steps.step import Outcome, Step, run_step, uninterrupted
from headrace.steps.trained import Version


@dataclass(frozen=True)
class DeployTools:
    """What the step needs of the rest of the platform.

    serving: the endpoint's record if it answers with exactly this version, replicas and resources, else None.
    deploy: makes it so and returns {"url", "model", "version"} once every replica answers.
    champion: the version that a reference names, or None.
    set_alias: moves an alias.
    take_alias: waits for the right to move an alias (the register step has it already).
    require_alias: raises if that right was lost.
    """

    serving: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any] | None]
    deploy: Callable[[Mapping[str, Any], Mapping[str, Any], Callable[[str], None]], dict[str, Any]]
    champion: Callable[[str], Version | None]
    set_alias: Callable[..., None]
    take_alias: Callable[..., None]
    require_alias: Callable[[str, str], None]


def deploy(deploy_spec: str, register_spec: str, registration: str, run_id: str, attempt: str) -> str:
    """Serve what the register step registered; returns the endpoint's URL.

    Args:
        deploy_spec: URI of the canonical JSON.
        register_spec: the register step's part, which names the alias.
        registration: URI of the register step's result.
    """

    def body(step: Step) -> Outcome:
        from headrace.steps.deploy_tools import local_tools

        alias = step.part(register_spec)["register"]["alias"]
        return deploy_once(step, local_tools(), step.part(deploy_spec), step.part(registration), alias)

    return str(run_step("deploy", run_id, attempt, body)["endpoint"]["url"])


def deploy_once(
    step: Step, tools: DeployTools, part: Mapping[str, Any], registration: Mapping[str, Any], alias: str
) -> Outcome:
    """The step's body."""
    model = registration["model"]
    name, version = model["name"], model["version"]
    tools.take_alias(name, alias, holder=f"run {step.run_id}", on_wait=step.waiting)
    endpoint = tools.serving(part, registration)
    served = endpoint is not None
    if endpoint is None:
        step.check()
        endpoint = tools.deploy(part, registration, step.message)
    current = tools.champion(f"{name}@{alias}")
    moved = current is None or current.version != version
    if moved:
        with uninterrupted():
            tools.require_alias(name, alias)
            tools.set_alias(name, alias, version, check=step.check)
    values = {
        "endpoint": {key: endpoint[key] for key in ("url", "model", "version")},
        "model": {**model, "alias": alias},
    }
    if served and not moved:
        return Outcome(values, "cached", f"{part['name']} answers with version {version} already")
    return Outcome(values)
