"""`headrace deploy`: a registered version in place of what an endpoint serves, decided first, carried out once agreed.

The deploy step of a run does the same for the version that the run made (`headrace.steps.deploy`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from headrace.base.errors import InvalidInput

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Change:
    """What would become of an endpoint. `before` is its record in `headrace deployments`, None where it is new."""

    name: str
    model: str
    version: str
    package_uri: str
    package_sha256: str
    replicas: int
    resources: dict[str, Any] = field(default_factory=dict)
    alias: str | None = None
    alias_before: str | None = None
    refused: bool = False
    before: dict[str, Any] | None = None

    def lines(self) -> list[str]:
        """The change as a person judges it, one line a part."""
        was = "nothing" if self.before is None else f"version {self.before['version']} of {self.before['model']}"
        told = [f"{self.name}: {was} -> version {self.version} of {self.model}, {_counted(self.replicas)}"]
        if self.alias is not None:
            before = "no version" if self.alias_before is None else f"version {self.alias_before}"
            told.append(f"alias {self.alias} of {self.model}: {before} -> version {self.version}")
        if self.refused:
            told.append(f"note: the gate refused version {self.version}")
        return told


def _counted(replicas: int) -> str:
    return f"{replicas} replica{'s' if replicas > 1 else ''}"


def prepare(
    reference: str, *, name: str | None = None, replicas: int | None = None, alias: str | None = None
) -> Change:
    """What serving the version that REFERENCE names would change. Changes nothing.

    Args:
        reference: `model`, `model@alias` or `model/3`.
        name: of the endpoint; the model's by default.
        replicas: as many as now by default, one for a new endpoint.
        alias: to move to the version once it answers.

    Raises:
        InvalidInput: there is no such version, or none that Headrace can serve.
    """
    from headrace.local.deployments import deployments
    from headrace.local.desired_state import read_desired
    from headrace.tracking import registry

    version = registry.resolve(reference)
    if version is None:
        raise InvalidInput(
            f"there is no version {reference}", action="`headrace runs` and `headrace ui` show what there is"
        )
    if version.package_uri is None or version.package_sha256 is None:
        raise InvalidInput(
            f"{version.ref} was not registered by Headrace: it has no package",
            action="deploy a version that a run made",
        )
    endpoint = name or version.name
    wished = read_desired().get(endpoint)
    now = next((record for record in deployments() if record["name"] == endpoint), None)
    moved_from = registry.champion(version.name, alias) if alias is not None else None
    return Change(
        name=endpoint,
        model=version.name,
        version=version.version,
        package_uri=version.package_uri,
        package_sha256=version.package_sha256,
        replicas=replicas or (1 if wished is None else wished.replicas),
        resources={} if wished is None else dict(wished.resources),
        alias=alias,
        alias_before=None if moved_from is None else moved_from.version,
        refused=version.gate == "refused",
        before=now,
    )


def carry_out(change: Change, tell: Tell) -> dict[str, Any]:
    """Do it; returns `{"endpoint": {"url", "model", "version"}, "alias"}` once every replica answers.

    Raises:
        RunFailed: the version did not come up; what was served before is served still and no alias moved.
    """
    from headrace.local.deployments import deploy
    from headrace.local.desired_state import Deployment
    from headrace.serving.contract import StableVersion
    from headrace.tracking import registry

    deployment = Deployment(
        name=change.name,
        model=change.model,
        stable=StableVersion(change.version, change.package_uri, change.package_sha256),
        replicas=change.replicas,
        resources=change.resources,
    )
    with _alias_right(change, tell):
        endpoint = deploy(deployment, tell=tell)
        if change.alias is not None:
            registry.set_alias(change.model, change.alias, change.version)
    return {"endpoint": endpoint, "alias": change.alias}


def _alias_right(change: Change, tell: Tell) -> AbstractContextManager[None]:
    if change.alias is None:
        return nullcontext()
    from headrace.local.alias_lock import alias_lock

    def on_wait(holders: Sequence[str]) -> None:
        tell(f"waiting for {', '.join(holders)}")

    return alias_lock(change.model, change.alias, holder=f"headrace deploy {change.name}", on_wait=on_wait)
