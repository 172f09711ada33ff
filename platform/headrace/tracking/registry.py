"""The model registry: which package is which version of a model, what the gate said of it, and where the aliases point.

A version's tags say all that a deployer needs (`headrace.package_uri`, `headrace.package_sha256`); nothing has to load
MLflow's copy. Registering is idempotent by name and package: the same package is never two versions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.api.reports import RUN_ID_TAG
from headrace.base.errors import InvalidInput
from headrace.tracking.calls import Check, call, no_check
from headrace.tracking.connection import tracking_uri

GATE_TAG = "headrace.gate"
CHECKS_TAG = "headrace.gate.checks"
SPLIT_TAG = "headrace.split_fingerprint"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,249}")
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
_VERSION_LIKE = re.compile(r"[vV]\d+")


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model. What a version that Headrace did not register lacks is None."""

    name: str
    version: str
    aliases: tuple[str, ...]
    package_uri: str | None
    package_sha256: str | None
    run_id: str | None  # Headrace's
    mlflow_run_id: str | None
    model_uri: str | None
    gate: str | None  # passed | refused
    gate_checks: tuple[Mapping[str, Any], ...]
    split_fingerprint: str | None
    description: str
    created: float  # seconds since 1970

    @property
    def ref(self) -> str:
        """As commands take it: `name/version`."""
        return f"{self.name}/{self.version}"

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "version": self.version,
            "aliases": list(self.aliases),
            "package_uri": self.package_uri,
            "package_sha256": self.package_sha256,
            "run_id": self.run_id,
            "mlflow_run_id": self.mlflow_run_id,
            "model_uri": self.model_uri,
            "gate": self.gate,
            "gate_checks": [dict(check) for check in self.gate_checks],
            "split_fingerprint": self.split_fingerprint,
            "description": self.description,
            "created": self.created,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ModelVersion:
        """The inverse of `to_record`."""
        return cls(
            **{**record, "aliases": tuple(record["aliases"]), "gate_checks": tuple(record["gate_checks"])},
        )


@dataclass(frozen=True)
class Reference:
    """What a person wrote: a model, and at most one of alias and version. Neither: the newest version."""

    name: str
    alias: str | None = None
    version: str | None = None


def parse_reference(text: str) -> Reference:
    """`name`, `name@alias` or `name/3`. Raises InvalidInput."""
    name, at, alias = text.partition("@")
    if at:
        return Reference(check_name(name), alias=check_alias(alias))
    name, slash, version = text.partition("/")
    if slash and not (version.isascii() and version.isdigit() and int(version)):
        raise InvalidInput(
            f"{text!r} names no model version", action="write NAME, NAME@ALIAS or NAME/VERSION, as digits@champion"
        )
    return Reference(check_name(name), version=str(int(version)) if slash else None)


def check_name(name: str) -> str:
    """NAME, if a model may be called so. Raises InvalidInput."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} cannot be a model's name", action="use letters, digits, '-', '_' and '.', at most 250 of them"
        )
    return name


def check_alias(alias: str) -> str:
    """ALIAS, if an alias may be called so. Raises InvalidInput."""
    if not ALIAS.fullmatch(alias) or _VERSION_LIKE.fullmatch(alias) or alias.lower() == "latest":
        raise InvalidInput(
            f"{alias!r} cannot be an alias",
            action="use letters, digits, '-' and '_', a letter first; 'latest' and 'v1' are MLflow's own",
        )
    return alias


def resolve(ref: str, *, uri: str | None = None) -> ModelVersion | None:
    """The version that REF (`name`, `name@alias`, `name/3`) means, or None. A bare name means the newest version.

    Raises:
        InvalidInput: REF is no reference.
        Unavailable: MLflow cannot be reached.
    """
    wanted = parse_reference(ref)
    if wanted.alias is not None:
        return champion(wanted.name, wanted.alias, uri=uri)
    versions = list_versions(wanted.name, uri=uri)
    if wanted.version is None:
        return versions[0] if versions else None
    return next((version for version in versions if version.version == wanted.version), None)


def champion(name: str, alias: str, *, uri: str | None = None) -> ModelVersion | None:
    """The version that ALIAS of NAME points to, or None."""
    return _one(call("champion_record", uri or tracking_uri(), name=check_name(name), alias=check_alias(alias)))


def list_versions(name: str, *, uri: str | None = None) -> list[ModelVersion]:
    """Every version of NAME, the newest first; empty for an unknown name."""
    found = call("version_records", uri or tracking_uri(), name=check_name(name))
    return [ModelVersion.from_record(record) for record in found]


def list_models(*, uri: str | None = None) -> list[dict[str, Any]]:
    """Every registered model: `{"name", "description", "aliases": {alias: version}, "latest"}`, by name."""
    return list(call("model_records", uri or tracking_uri()))


def find_by_package(name: str, sha256: str, *, uri: str | None = None) -> ModelVersion | None:
    """The version of NAME that is the package SHA256, or None."""
    return _one(call("package_version", uri or tracking_uri(), name=check_name(name), sha256=_check_sha256(sha256)))


def register(
    name: str,
    *,
    package_uri: str,
    package_sha256: str,
    run_id: str | None = None,
    mlflow_run_id: str | None = None,
    model_uri: str | None = None,
    model_id: str | None = None,
    tags: Mapping[str, str | None] | None = None,
    description: str | None = None,
    check: Check = no_check,
    uri: str | None = None,
) -> ModelVersion:
    """The version of NAME for a package: the one that has it, or a new one.

    Args:
        name: the registered model, created if need be.
        package_uri: where the package lies, for any deployer.
        package_sha256: its hash; decides whether there is such a version.
        run_id: the Headrace run that trained it.
        mlflow_run_id: its MLflow run.
        model_uri: the logged model (`models:/m-...`), or
        model_id: its id. Left out: the model that `mlflow_run_id` logged of this package. One that MLflow does not know
            (its store was thrown away since) is passed over: the version's source is then the package itself.
        tags: further tags of a new version.
        description: what a new version says of itself.
        check: raises Superseded once a newer attempt owns the run.
        uri: the tracking URI; default: this machine's.

    Raises:
        Unavailable: MLflow cannot be reached.
    """
    check()
    record = call(
        "register_version",
        uri or tracking_uri(),
        name=check_name(name),
        package_uri=package_uri,
        package_sha256=_check_sha256(package_sha256),
        mlflow_run_id=mlflow_run_id,
        model_id=model_id or (model_uri or "").removeprefix("models:/") or None,
        tags={key: str(value) for key, value in {RUN_ID_TAG: run_id, **(tags or {})}.items() if value is not None},
        description=description,
    )
    return ModelVersion.from_record(record)


def tag_gate(
    name: str,
    version: str,
    *,
    passed: bool,
    checks: Sequence[Mapping[str, Any]],
    split_fingerprint: str | None = None,
    check: Check = no_check,
    uri: str | None = None,
) -> None:
    """Write what the gate said of a version: `headrace.gate` (passed | refused), its checks and the split judged on."""
    tags = {
        GATE_TAG: "passed" if passed else "refused",
        CHECKS_TAG: json.dumps([dict(item) for item in checks], ensure_ascii=False),
        SPLIT_TAG: split_fingerprint,
    }
    set_version_tags(name, version, tags, check=check, uri=uri)


def set_version_tags(
    name: str,
    version: str,
    tags: Mapping[str, str | None],
    *,
    check: Check = no_check,
    uri: str | None = None,
) -> None:
    """Set tags of a version; None values are left out."""
    check()
    wanted = {key: str(value) for key, value in tags.items() if value is not None}
    call("set_version_tags", uri or tracking_uri(), name=check_name(name), version=version, tags=wanted)


def set_alias(name: str, alias: str, version: str, *, check: Check = no_check, uri: str | None = None) -> None:
    """Point ALIAS of NAME to VERSION. Callers that decide by where it points hold the alias's lock meanwhile."""
    check()
    call("move_alias", uri or tracking_uri(), name=check_name(name), alias=check_alias(alias), version=version)


def delete_alias(name: str, alias: str, *, check: Check = no_check, uri: str | None = None) -> None:
    """Take ALIAS of NAME away, if it is there."""
    check()
    call("remove_alias", uri or tracking_uri(), name=check_name(name), alias=check_alias(alias))


def _one(record: Mapping[str, Any] | None) -> ModelVersion | None:
    return None if record is None else ModelVersion.from_record(record)


def _check_sha256(sha256: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise InvalidInput(f"{sha256!r} is no package hash", action="use the sha256 that write_package returned")
    return sha256
