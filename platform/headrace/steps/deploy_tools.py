"""The deploy step's tools on a laptop: this machine's Ray Serve and registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from headrace.steps.deploy import DeployTools

if TYPE_CHECKING:
    from headrace.serving.contract import StableVersion


def local_tools() -> DeployTools:
    """What `deploy_once` needs, on this machine."""
    from headrace.local.alias_lock import require_alias, take_alias
    from headrace.tracking import registry

    return DeployTools(
        serving=serving,
        deploy=deploy,
        champion=registry.resolve,
        set_alias=registry.set_alias,
        take_alias=take_alias,
        require_alias=require_alias,
    )


def stable_version(registration: Mapping[str, Any]) -> StableVersion:
    """What the register step registered, as a deployer names it."""
    from headrace.serving.contract import StableVersion

    package = registration["package"]
    return StableVersion(registration["model"]["version"], package["uri"], package["sha256"])


def serving(part: Mapping[str, Any], registration: Mapping[str, Any]) -> dict[str, Any] | None:
    """The endpoint's record if all its replicas answer with what the register step registered, served as PART says."""
    from headrace.local.deployments import deployments
    from headrace.local.desired_state import read_desired

    wished = read_desired().get(part["name"])
    if wished is None or (wished.model, wished.stable) != (registration["model"]["name"], stable_version(registration)):
        return None
    if (wished.replicas, wished.resources) != (part["replicas"], part["resources"]):
        return None
    return next((one for one in deployments() if one["name"] == part["name"] and one["state"] == "ready"), None)


def deploy(
    part: Mapping[str, Any],
    registration: Mapping[str, Any],
    tell: Callable[[str], None],
    conclude: Callable[[], None],
) -> dict[str, Any]:
    """Serve what the register step registered as PART says; returns when every replica answers with it and CONCLUDE
    has ended well."""
    from headrace.local import deployments
    from headrace.local.desired_state import Deployment

    deployment = Deployment(
        name=part["name"],
        model=registration["model"]["name"],
        stable=stable_version(registration),
        replicas=part["replicas"],
        resources=dict(part["resources"]),
    )
    return dict(deployments.deploy(deployment, tell=tell, conclude=conclude))
