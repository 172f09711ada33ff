"""The deploy step on a cluster: a ModelDeployment with a version, then the alias.

What is served is the operator's word, which is the fronts' own. A version that cannot be loaded leaves the endpoint as
it was: its ModelDeployment is put back to what it said before, or deleted where this was the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from headrace.api.site import Site
from headrace.steps.cluster_alias import AliasRights
from headrace.steps.cluster_deployment import ClusterDeployment, Deployments
from headrace.steps.deploy import DeployTools, deploy_once
from headrace.steps.step import Outcome, Step
from headrace.steps.trained import Version

RENEW_SECONDS = 60.0


def cluster_deploy(
    step: Step, part: Mapping[str, Any], registration: Mapping[str, Any], alias: str, site: Site
) -> Outcome:
    """The body of the deploy step at SITE."""
    from headrace.cluster import connect
    from headrace.tracking import registry

    cluster = connect(on_trouble=step.message)
    rights = AliasRights(step, cluster)
    tools = cluster_tools(step, cluster, rights, site, registry.resolve, registry.set_alias)
    with rights.kept_only_for_the_next_step(wanted=False):
        return deploy_once(step, tools, part, registration, alias)


def cluster_tools(
    step: Step,
    cluster: Deployments,
    rights: AliasRights,
    site: Site,
    resolve: Callable[[str], Version | None],
    set_alias: Callable[..., None],
) -> DeployTools:
    """What `deploy_once` needs, of CLUSTER and of a registry that RESOLVE reads and SET_ALIAS writes."""

    def serving(part: Mapping[str, Any], registration: Mapping[str, Any]) -> dict[str, Any] | None:
        return ClusterDeployment(step, cluster, site, part, registration).serving()

    def deploy(
        part: Mapping[str, Any],
        registration: Mapping[str, Any],
        _tell: Callable[[str], None],
        conclude: Callable[[], None],
    ) -> dict[str, Any]:
        return ClusterDeployment(step, cluster, site, part, registration).deploy(_renewing(rights), conclude)

    def put_back(part: Mapping[str, Any], registration: Mapping[str, Any]) -> None:
        ClusterDeployment(step, cluster, site, part, registration).put_back()

    return DeployTools(
        serving=serving,
        deploy=deploy,
        champion=resolve,
        set_alias=set_alias,
        take_alias=rights.take,
        require_alias=rights.require,
        put_back=put_back,
    )


def _renewing(rights: AliasRights) -> Callable[[], None]:
    """Says, whenever it is called and it is time, that the right to move the alias is still needed."""
    renewed = time.monotonic()

    def renew() -> None:
        nonlocal renewed
        if time.monotonic() - renewed >= RENEW_SECONDS:
            rights.renew()
            renewed = time.monotonic()

    return renew
