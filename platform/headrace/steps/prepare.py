"""What a run needs in the store before its first step: the parts of its spec, the user's own code, and its origin.

After this nothing of the run depends on the folder the spec lies in: a resumed run, or one on a cluster, reads only the
store. The steps get URIs, since kfp changes values on their way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headrace.base.errors import InvalidInput
from headrace.base.jsonfile import sha256_of
from headrace.spec.gate import parse_check
from headrace.spec.parts import step_parts
from headrace.store import Store
from headrace.store.step_files import write_note

Arguments = dict[str, str]  # of the pipeline


def prepare(request: Mapping[str, Any], store: Store, attempt: str, resolve: Callable[[str], Any]) -> Arguments:
    """Put into STORE what the run REQUEST (its run.json) needs; returns the pipeline's arguments.

    Args:
        attempt: the run's attempt, as "2".
        resolve: the registered version that a reference names, or None (`tracking.registry.resolve`).

    Raises:
        InvalidInput: what the spec points at is gone or cannot be read.
    """
    from headrace.data import fingerprint_source

    spec = with_stored_weights(request["spec"], store, resolve)
    code_uri, code_sha256 = store_code(spec["model"]["code"], store)
    parts = step_parts(spec, code_uri, code_sha256)
    run_id = request["run_id"]
    write_note(store, run_id, "options", {"cache": not request["no_cache"]})
    write_note(
        store,
        run_id,
        "origin",
        {
            "spec": request["spec"],
            "spec_sha256": sha256_of(request["spec"]),
            "spec_version": request["spec"]["version"],
            "git": request.get("git"),
        },
    )
    split_part = parts["split"]
    assert split_part is not None
    return {
        "run_id": run_id,
        "attempt": attempt,
        "source_fingerprint": fingerprint_source(split_part),
        "champion": champion_reference(spec),
        **{f"{step}_spec": "" if part is None else store.put_spec(part) for step, part in parts.items()},
    }


def champion_reference(spec: Mapping[str, Any]) -> str:
    """The alias that SPEC's gate measures against, as "digits@champion"; "" where no check asks for it."""
    register = spec["register"]
    if register is None or not any(parse_check(check).against_champion for check in spec["gate"]):
        return ""
    return f"{register['name']}@{register['alias']}"


def store_code(folder: str | None, store: Store) -> tuple[str | None, str | None]:
    """The URI and hash of the user's own code in the store; None twice where there is none."""
    if folder is None:
        return None, None
    from headrace_models.package.code import pack_code

    sha256, archive = pack_code(folder)
    uri = store.uri("code", f"{sha256}.tar")
    if not store.exists(uri):
        store.write_bytes(uri, archive)
    return uri, sha256


def with_stored_weights(spec: Mapping[str, Any], store: Store, resolve: Callable[[str], Any]) -> dict[str, Any]:
    """SPEC with `model.init_from` pointing at something that does not change: a file of the store, or a package."""
    given = spec["model"]["init_from"]
    if given is None or "://" in given:
        return dict(spec)
    stored = _store_files(Path(given), store) if Path(given).is_absolute() else _package_of(given, resolve)
    return {**spec, "model": {**spec["model"], "init_from": stored}}


def _store_files(path: Path, store: Store) -> str:
    try:
        if path.is_file():
            data = path.read_bytes()
            return _write_once(store, f"{hashlib.sha256(data).hexdigest()}{path.suffix}", data)
        files = {
            file.relative_to(path).as_posix(): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()
        }
    except OSError as error:
        raise InvalidInput(f"model.init_from: {path} cannot be read: {error}", action="correct the path") from error
    name = sha256_of({file: hashlib.sha256(data).hexdigest() for file, data in files.items()})
    for file, data in files.items():
        _write_once(store, f"{name}/{file}", data)
    return store.uri("files", name)


def _write_once(store: Store, name: str, data: bytes) -> str:
    uri = store.uri("files", name)
    if not store.exists(uri):
        store.write_bytes(uri, data)
    return uri


def _package_of(reference: str, resolve: Callable[[str], Any]) -> str:
    found = resolve(reference)
    if found is None or found.package_uri is None:
        raise InvalidInput(
            f"model.init_from: there is no version {reference} with a package",
            action="`headrace models` and MLflow's registry list what there is",
        )
    return str(found.package_uri)
