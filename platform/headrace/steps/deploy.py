"""The deploy step: the registered version answers, and only then the alias says so.

A deployment that fails leaves the endpoint and the alias as they were; one that is in force already costs a look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from headrace.base.errors import ChampionChanged, HeadraceError, Superseded, Unavailable
from headrace.steps.step import Outcome, Step, run_step, site_here, uninterrupted
from headrace.steps.trained import Version

Done = TypeVar("Done")


@dataclass(frozen=True)
class DeployTools:
    """What the step needs of the rest of the platform.

    serving: the endpoint's record if it answers with exactly this version, replicas and resources, else None.
    deploy: makes it so, calls its last argument once every replica answers, and returns {"url", "model", "version"}.
        Where that call fails, the endpoint is put back as where the version fails; where it is interrupted, or fails
        with Unavailable, it stays for the next try.
    put_back: undoes what an earlier try or attempt of the run has made of the endpoint, if that is how it still is. A
        laptop knows only of its own try, and leaves it.
    champion: the version that a reference names, or None.
    set_alias: moves an alias.
    take_alias: waits for the right to move an alias (the register step has it already).
    require_alias: raises if that right was lost.
    """

    serving: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any] | None]
    deploy: Callable[[Mapping[str, Any], Mapping[str, Any], Callable[[str], None], Callable[[], None]], dict[str, Any]]
    champion: Callable[[str], Version | None]
    set_alias: Callable[..., None]
    take_alias: Callable[..., None]
    require_alias: Callable[[str, str], None]
    put_back: Callable[[Mapping[str, Any], Mapping[str, Any]], None] = lambda *_: None


def deploy(deploy_spec: str, register_spec: str, registration: str, run_id: str, attempt: str) -> str:
    """Serve what the register step registered; returns the endpoint's URL.

    Args:
        deploy_spec: URI of the canonical JSON.
        register_spec: the register step's part, which names the alias.
        registration: URI of the register step's result.
    """

    def body(step: Step) -> Outcome:
        alias = step.part(register_spec)["register"]["alias"]
        part, registered, site = step.part(deploy_spec), step.part(registration), site_here()
        if site is not None:
            from headrace.steps.cluster_deploy import cluster_deploy

            return cluster_deploy(step, part, registered, alias, site)
        from headrace.steps.deploy_tools import local_tools

        return deploy_once(step, local_tools(), part, registered, alias)

    return str(run_step("deploy", run_id, attempt, body)["endpoint"]["url"])


def deploy_once(
    step: Step, tools: DeployTools, part: Mapping[str, Any], registration: Mapping[str, Any], alias: str
) -> Outcome:
    """The step's body.

    Raises:
        ChampionChanged: the alias no longer names the version that the gate compared with, before the deployment or
            after it; then the endpoint is as it was, on a cluster as before the run's first try.
    """
    model = registration["model"]
    name, version = model["name"], model["version"]

    def is_named() -> bool:
        """Whether the alias names the version already, being where it may be moved from."""
        current = tools.champion(f"{name}@{alias}")
        _require_judged(step, current, registration, alias)
        return current is not None and current.version == version

    def move() -> None:
        with uninterrupted():
            if not is_named():  # a deployment takes its time, and a person in MLflow's UI asks for no lock
                tools.require_alias(name, alias)
                tools.set_alias(name, alias, version, check=step.check)

    tools.take_alias(name, alias, holder=f"run {step.run_id}", on_wait=step.waiting)
    named = _or_put_back(is_named, tools, part, registration)
    endpoint = tools.serving(part, registration)
    done = named and endpoint is not None
    if endpoint is None:
        step.check()
        endpoint = tools.deploy(part, registration, step.message, move)
    elif not named:
        _or_put_back(move, tools, part, registration)
    values = {
        "endpoint": {key: endpoint[key] for key in ("url", "model", "version")},
        "model": {**model, "alias": alias},
    }
    if done:
        return Outcome(values, "cached", f"{part['name']} answers with version {version} already")
    return Outcome(values)


def _or_put_back(
    do: Callable[[], Done], tools: DeployTools, part: Mapping[str, Any], registration: Mapping[str, Any]
) -> Done:
    """What DO gives. Where it refuses the alias, the endpoint is put back that an earlier try has made."""
    try:
        return do()
    except (Superseded, Unavailable):
        raise
    except HeadraceError:
        tools.put_back(part, registration)
        raise


def _require_judged(step: Step, current: Version | None, registration: Mapping[str, Any], alias: str) -> None:
    """Raise ChampionChanged where the alias names another version than the gate compared with, or the new one."""
    judged = registration.get("judged_against")
    now = None if current is None else current.version
    if judged is not None and now not in (judged["version"], registration["model"]["version"]):
        raise ChampionChanged(
            f"{registration['model']['name']}@{alias} moved to version {now} after the gate had compared with "
            f"{judged['version'] or 'none'}",
            action=f"`headrace resume {step.run_id}` judges again, without training",
        )
