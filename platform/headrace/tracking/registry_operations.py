"""What is done to MLflow's model registry: functions of plain values that `headrace.tracking.calls` calls by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from headrace.api.reports import PACKAGE_SHA256_TAG, PACKAGE_URI_TAG, RUN_ID_TAG
from headrace.base.locks import file_lock
from headrace.tracking.connection import lock_path, me
from headrace.tracking.model_operations import find_logged
from headrace.tracking.registry import CHECKS_TAG, GATE_TAG, SPLIT_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

VERSIONS_TAG = "mlflow.modelVersions"
READY_SECONDS = 30  # until a version that was made is ready; at once unless a server copies files


def champion_record(mlflow: MlflowClient, _uri: str, *, name: str, alias: str) -> dict[str, Any] | None:
    """The version that ALIAS points to, or None."""
    aliases = _aliases(mlflow, name)
    return None if alias not in aliases else _record(mlflow.get_model_version(name, aliases[alias]), aliases)


def version_records(mlflow: MlflowClient, _uri: str, *, name: str) -> list[dict[str, Any]]:
    """Every version of NAME, the newest first."""
    aliases = _aliases(mlflow, name)
    found = [_record(entity, aliases) for entity in _search(mlflow, f"name = '{name}'")]
    return sorted(found, key=lambda record: int(record["version"]), reverse=True)


def model_records(mlflow: MlflowClient, _uri: str) -> list[dict[str, Any]]:
    """Every registered model by name."""
    found: list[dict[str, Any]] = []
    token: str | None = None
    while True:
        page = mlflow.search_registered_models(max_results=100, page_token=token)
        found += [
            {
                "name": model.name,
                "description": model.description or "",
                "aliases": {alias: str(version) for alias, version in sorted(model.aliases.items())},
                "latest": max((str(v.version) for v in model.latest_versions or ()), key=int, default=None),
            }
            for model in page
        ]
        token = page.token
        if not token:
            return sorted(found, key=lambda model: str(model["name"]))


def package_version(mlflow: MlflowClient, _uri: str, *, name: str, sha256: str) -> dict[str, Any] | None:
    """The oldest version of NAME that is the package SHA256, or None."""
    found = list(_search(mlflow, f"name = '{name}' and tags.`{PACKAGE_SHA256_TAG}` = '{sha256}'"))
    if not found:
        return None
    return _record(min(found, key=lambda entity: int(entity.version)), _aliases(mlflow, name))


def register_version(
    mlflow: MlflowClient,
    uri: str,
    *,
    name: str,
    package_uri: str,
    package_sha256: str,
    mlflow_run_id: str | None,
    model_id: str | None,
    tags: Mapping[str, str],
    description: str | None,
) -> dict[str, Any]:
    """The version of NAME that is the package, made if there is none."""
    with file_lock(lock_path(f"registry-{name}"), holder=me()):
        found = package_version(mlflow, uri, name=name, sha256=package_sha256)
        if found is not None:
            if found["package_uri"] != package_uri:  # the same package in another store: where it is now counts
                mlflow.set_model_version_tag(name, found["version"], PACKAGE_URI_TAG, package_uri)
            return {**found, "package_uri": package_uri}
        logged = _logged_model(mlflow, model_id, mlflow_run_id, package_sha256)
        source, model_id = (package_uri, None) if logged is None else (logged.model_uri, logged.model_id)
        _create_model(mlflow, name)
        made = mlflow.create_model_version(
            name,
            source=source,
            run_id=mlflow_run_id,
            tags={**tags, PACKAGE_URI_TAG: package_uri, PACKAGE_SHA256_TAG: package_sha256},
            description=description,
            model_id=model_id,
            await_creation_for=READY_SECONDS,
        )
        if model_id is not None:
            _name_version(mlflow, model_id, name, str(made.version))
        return _record(made, _aliases(mlflow, name))


def set_version_tags(mlflow: MlflowClient, _uri: str, *, name: str, version: str, tags: Mapping[str, str]) -> None:
    """Set tags of a version."""
    for key, value in tags.items():
        mlflow.set_model_version_tag(name, version, key, value)


def move_alias(mlflow: MlflowClient, _uri: str, *, name: str, alias: str, version: str) -> None:
    """Point ALIAS to VERSION."""
    mlflow.set_registered_model_alias(name, alias, version)


def remove_alias(mlflow: MlflowClient, _uri: str, *, name: str, alias: str) -> None:
    """Take ALIAS away, if it is there."""
    if alias in _aliases(mlflow, name):
        mlflow.delete_registered_model_alias(name, alias)


def _logged_model(mlflow: MlflowClient, model_id: str | None, mlflow_run_id: str | None, sha256: str) -> Any | None:
    """The logged model of a package, or None: the training may be of a store whose MLflow was thrown away since."""
    from mlflow.exceptions import MlflowException

    try:
        if model_id is not None:
            return mlflow.get_logged_model(model_id)
        return None if mlflow_run_id is None else find_logged(mlflow, mlflow_run_id, sha256)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _name_version(mlflow: MlflowClient, model_id: str, name: str, version: str) -> None:
    """Name the version on the logged model's page; a server does so itself, the client on a database does not."""
    named = json.loads(mlflow.get_logged_model(model_id).tags.get(VERSIONS_TAG) or "[]")
    if not any((item["name"], str(item["version"])) == (name, version) for item in named):
        listed = [*named, {"name": name, "version": int(version)}]
        mlflow.set_logged_model_tags(model_id, {VERSIONS_TAG: json.dumps(listed)})


def _create_model(mlflow: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        mlflow.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _aliases(mlflow: MlflowClient, name: str) -> dict[str, str]:
    """The aliases of NAME and the versions they point to; empty for an unknown name."""
    from mlflow.exceptions import MlflowException

    try:
        return {alias: str(version) for alias, version in mlflow.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def _search(mlflow: MlflowClient, query: str) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = mlflow.search_model_versions(query, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _record(entity: Any, aliases: Mapping[str, str]) -> dict[str, Any]:
    """A version as `ModelVersion.from_record` takes it."""
    tags: Mapping[str, str] = entity.tags or {}
    number = str(entity.version)
    return {
        "name": entity.name,
        "version": number,
        "aliases": sorted(alias for alias, version in aliases.items() if version == number),
        "package_uri": tags.get(PACKAGE_URI_TAG),
        "package_sha256": tags.get(PACKAGE_SHA256_TAG),
        "run_id": tags.get(RUN_ID_TAG),
        "mlflow_run_id": entity.run_id or None,
        "model_uri": entity.source or None,
        "gate": tags.get(GATE_TAG),
        "gate_checks": _checks(tags.get(CHECKS_TAG)),
        "split_fingerprint": tags.get(SPLIT_TAG),
        "description": entity.description or "",
        "created": (entity.creation_timestamp or 0) / 1000,
    }


def _checks(text: str | None) -> list[dict[str, Any]]:
    try:
        found = json.loads(text or "[]")
    except ValueError:  # somebody edited the tag
        return []
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
