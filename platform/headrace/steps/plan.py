"""What a run would do, without doing any of it: which steps are in the store already, and what would change.

Works on the base install. What cannot be known is None: a SQLite registry without MLflow, rows without pyarrow, what an
unknown split would lead to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.base.errors import HeadraceError, MissingExtra
from headrace.spec import RunSpec
from headrace.spec.measured import is_whole
from headrace.spec.parts import step_parts
from headrace.spec.tuning import trials
from headrace.steps import keys
from headrace.steps.first_weights import is_reference, package_of, pinned_weights
from headrace.steps.prepare import champion_reference, pack
from headrace.store import Store
from headrace.store.step_files import STEPS

SCHEMA_VERSION = 1
NEW = "new"  # the version that the run would make
NONE = "none"  # there is no such version or endpoint; None is "not known"

Known = dict[str, Any] | None


@dataclass
class Planned:
    """What has been found out so far; steps are (state, why) with a state of None where it cannot be known."""

    steps: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    samples: int | None = None
    bytes: int | None = None
    training: Known = None
    fingerprint: str | None = None


def plan_run(spec: RunSpec) -> dict[str, Any]:
    """The plan of a run of SPEC on this machine, as plain JSON values.

    Raises:
        InvalidInput: what the spec points at is gone, or it asks for more CPUs or GPUs than there are.
    """
    record = spec.to_record()
    store = Store()
    registry = _Registry(record)
    planned = Planned()
    parts = _parts(record, store, registry)
    _plan_split(planned, parts["split"] or {}, store)
    _plan_train(planned, parts["train"] or {}, store, registry)
    alias = _plan_register(planned, record, registry)
    endpoint = _plan_deploy(planned, record, alias)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": record["name"],
        "steps": [{"name": name, "state": planned.steps[name][0], "why": planned.steps[name][1]} for name in STEPS],
        "data": {
            "source": record["data"]["source"],
            "format": record["data"]["format"],
            "samples": planned.samples,
            "bytes": planned.bytes,
        },
        "model": {"name": record["model"]["name"], "args": record["model"]["args"]},
        "workers": _workers(record),
        "alias": alias,
        "endpoint": endpoint,
    }


def _parts(record: Mapping[str, Any], store: Store, registry: _Registry) -> dict[str, dict[str, Any] | None]:
    code = record["model"]["code"]
    uri, sha256 = (None, None) if code is None else (store.uri("code"), pack(code)[0])
    weights = record["model"]["init_from"]
    if weights is not None:
        weights = registry.package_uri(weights) if is_reference(weights) else pinned_weights(weights, store)
    return step_parts({**record, "model": {**record["model"], "init_from": weights}}, uri, sha256)


# split and train


def _plan_split(planned: Planned, part: Mapping[str, Any], store: Store) -> None:
    from headrace.data import fingerprint_source

    try:
        key = keys.split_key(part, fingerprint_source(part))
        planned.samples, planned.bytes = _size(str(part["source"]))
    except MissingExtra as missing:
        planned.steps["split"] = None, missing.message
        return
    known = store.recall("split", key)
    if known is None or not store.exists(f"{known['uri']}/split.json"):
        planned.steps["split"] = "run", "this data was not split in this way yet"
        return
    planned.steps["split"] = "cached", "the same data was split in this way before"
    planned.fingerprint = known["fingerprint"]
    planned.samples = known["summary"].get("samples", planned.samples)


def _size(address: str) -> tuple[int | None, int | None]:
    """The samples, where a file is one, and the bytes at ADDRESS."""
    from headrace.data.folder_layout import is_image
    from headrace.data.source import Source

    if address.startswith("builtin:"):
        return None, None
    files = Source(address).files()
    images = [file for file in files if is_image(file.path)]
    return len(images) or None, sum(file.size for file in images or files)


def _plan_train(planned: Planned, part: Mapping[str, Any], store: Store, registry: _Registry) -> None:
    if planned.fingerprint is None:
        state, _ = planned.steps["split"]
        planned.steps["train"] = (None, "depends on the split") if state is None else ("run", "the split is new")
        return
    if is_reference(part["model"]["init_from"] or "://"):  # a registry that can be read gives its package
        planned.steps["train"] = None, "the registry cannot be read from here"
        return
    known = store.recall("train", keys.train_key(part, planned.fingerprint, keys.code_versions()))
    if known is None or not store.exists(f"{known['package_uri']}/headrace.json"):
        search = part.get("tune")
        what = f"no search of {len(trials(search))} trials was made" if search else "this was not trained"
        planned.steps["train"] = "run", f"{what} on this split yet"
        return
    planned.training = known
    champion = registry.version(registry.reference) if registry.reference else None
    tasks = [str(task["name"]) for task in part["tasks"]]
    hashes = [known["package_sha256"], *([champion["package_sha256"]] if champion else [])]
    missing = [
        sha256
        for sha256 in hashes
        if sha256 and not is_whole(store.read_json(keys.evaluation_uri(store.uri, sha256, planned.fingerprint)), tasks)
    ]
    if missing:
        planned.steps["train"] = "run", "trained before; the test split is to be measured"
    else:
        planned.steps["train"] = "cached", "this was trained before"


def _workers(record: Mapping[str, Any]) -> dict[str, Any]:
    from headrace.local.ray_head import find_head
    from headrace.local.resources import check_demand, for_training, machine

    there = for_training(find_head() or machine())
    demand = check_demand(record["train"], there)
    return {
        "asked": {"min": demand.least, "max": demand.most},
        "there": demand.workers_in(there.num_cpus, there.num_gpus),
        "cpus_per_worker": demand.cpus_per_worker,
        "gpus_per_worker": demand.gpus_per_worker,
        "cpus": there.num_cpus,
        "gpus": there.num_gpus,
    }


# register and deploy


class _Registry:
    """What the registry says, asked in this process and at most once; None where it cannot be asked."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.register: Mapping[str, str] | None = record["register"]
        self.reference = champion_reference(record)
        self.readable = True
        self._found: dict[tuple[str, ...], Known] = {}

    def version(self, reference: str) -> Known:
        """The version that "NAME@ALIAS" names."""
        name, _, alias = reference.partition("@")
        return self._ask("champion_record", name=name, alias=alias)

    def package_uri(self, reference: str) -> str:
        """The package of the version that "NAME@ALIAS" or "NAME/3" names; REFERENCE itself if that cannot be known."""
        name, _, number = reference.partition("/")
        if number:
            every: Any = self._ask("version_records", name=name) or ()
            found = next((version for version in every if version["version"] == number), None)
        else:
            found = self.version(reference)
        return package_of(reference, (found or {}).get("package_uri")) if self.readable else reference

    def package(self, name: str, sha256: str) -> Known:
        """The version of NAME that a package is."""
        return self._ask("package_version", name=name, sha256=sha256)

    def _ask(self, operation: str, **arguments: str) -> Known:
        asked = (operation, *arguments.values())
        if self.readable and asked not in self._found:
            self._found[asked] = self._call(operation, arguments)
        return self._found.get(asked)

    def _call(self, operation: str, arguments: dict[str, str]) -> Known:
        from headrace.tracking import calls
        from headrace.tracking.connection import sqlite_path, tracking_uri

        uri = tracking_uri()
        database = sqlite_path(uri)
        if database is not None and not database.exists():
            return None  # nothing was registered yet, and a plan makes no store
        try:
            service = calls.service_process()  # asked where it runs; a plan starts none
            if service is not None and service.alive():
                found: Known = calls.call(operation, uri, **arguments)
            else:
                found = calls.call_here(operation, uri, arguments)
        except HeadraceError:
            self.readable = False
            return None
        return found


def _plan_register(planned: Planned, record: Mapping[str, Any], registry: _Registry) -> dict[str, Any] | None:
    """Plan the register step; returns what becomes of the alias."""
    register = record["register"]
    if register is None:
        planned.steps["register"] = ("run", "the gate judges") if record["gate"] else ("skipped", "the spec has none")
        return None
    name, reference = register["name"], f"{register['name']}@{register['alias']}"
    before = registry.version(reference)
    known = registry.package(name, planned.training["package_sha256"]) if planned.training else None
    if known is not None:
        planned.steps["register"] = "cached", f"it is version {known['version']} already"
    elif not registry.readable:
        planned.steps["register"] = None, "the registry cannot be read from here"
    else:
        planned.steps["register"] = "run", "there is no version of this model yet"
    after = NEW if known is None else known["version"]
    return {
        "name": name,
        "alias": register["alias"],
        "before": None if not registry.readable else NONE if before is None else before["version"],
        "after": after if planned.steps["train"][0] is not None and registry.readable else None,
    }


def _plan_deploy(planned: Planned, record: Mapping[str, Any], alias: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Plan the deploy step; returns what becomes of the endpoint."""
    deploy = record["deploy"]
    if deploy is None or alias is None:
        planned.steps["deploy"] = "skipped", "the spec has none"
        return None
    from headrace.local.deployments import deployments

    present = next((one for one in deployments() if one["name"] == deploy["name"]), None)
    after = alias["after"]
    if present is not None and present["state"] == "ready" and present["version"] == after:
        planned.steps["deploy"] = "cached", f"{deploy['name']} answers with version {after} already"
    elif after is None:
        planned.steps["deploy"] = None, "depends on the registry"
    else:
        planned.steps["deploy"] = "run", f"{deploy['name']} does not answer with that version yet"
    return {
        "name": deploy["name"],
        "url": None if present is None else present["url"],
        "before": NONE if present is None else present["version"],
        "after": after,
    }
