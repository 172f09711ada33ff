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
from headrace.spec.parts import split_part, step_parts
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
    write_run_notes(request, store)
    parts = stored_parts(spec, store)
    return {
        "run_id": request["run_id"],
        "attempt": attempt,
        "source_fingerprint": fingerprint_source(split_part(spec)),
        "champion": champion_reference(spec),
        **parts,
    }


def write_run_notes(request: Mapping[str, Any], store: Store) -> None:
    """Write what the steps want to know of the run REQUEST beside their parts: its options and its origin."""
    run_id = request["run_id"]
    write_note(store, run_id, "options", {"cache": not request["no_cache"], "queue": request.get("queue")})
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


def stored_parts(spec: Mapping[str, Any], store: Store) -> Arguments:
    """The parts of SPEC by the pipeline's parameters, put into STORE with the user's own code; "" for absent steps."""
    code_uri, code_sha256 = store_code(spec["model"]["code"], store)
    parts = step_parts(dict(spec), code_uri, code_sha256)
    return {f"{step}_spec": "" if part is None else store.put_spec(part) for step, part in parts.items()}


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
    sha256, archive = pack(folder)
    uri = store.uri("code", f"{sha256}.tar")
    if not store.exists(uri):
        store.write_bytes(uri, archive)
    return uri, sha256


def pack(folder: str) -> tuple[str, bytes]:
    """The hash and the archive of the user's own code."""
    from headrace_models.package.code import pack_code

    return pack_code(folder)


def with_stored_weights(spec: Mapping[str, Any], store: Store, resolve: Callable[[str], Any]) -> dict[str, Any]:
    """SPEC with `model.init_from` pointing at something that does not change: files of the store, or a package."""
    given = spec["model"]["init_from"]
    if given is None:
        return dict(spec)
    stored = pinned_weights(given, store)
    if Path(given).is_absolute():
        for name, data in _weights(Path(given)).items():
            uri = store.uri("files", name)
            if not store.exists(uri):
                store.write_bytes(uri, data)
    elif "://" not in given:
        stored = _package_of(given, resolve)
    return {**spec, "model": {**spec["model"], "init_from": stored}}


def pinned_weights(given: str, store: Store) -> str:
    """Where weights of this machine will lie in the store, by their content; a URL or a reference stays what it is."""
    if not Path(given).is_absolute():
        return given
    return store.uri("files", next(iter(_weights(Path(given)))).split("/")[0])


def _weights(path: Path) -> dict[str, bytes]:
    """The files at PATH by the names that they have in the store: `<hash>.<suffix>`, or `<hash>/<name>` of a folder."""
    try:
        if path.is_file():
            data = path.read_bytes()
            return {f"{hashlib.sha256(data).hexdigest()}{path.suffix}": data}
        files = sorted(file for file in path.rglob("*") if file.is_file())
        contents = {file.relative_to(path).as_posix(): file.read_bytes() for file in files}
    except OSError as error:
        raise InvalidInput(f"model.init_from: {path} cannot be read: {error}", action="correct the path") from error
    if not contents:
        raise InvalidInput(f"model.init_from: {path} is empty", action="name a .safetensors file or a package")
    name = sha256_of({file: hashlib.sha256(data).hexdigest() for file, data in contents.items()})
    return {f"{name}/{file}": data for file, data in contents.items()}


def _package_of(reference: str, resolve: Callable[[str], Any]) -> str:
    found = resolve(reference)
    if found is None or found.package_uri is None:
        raise InvalidInput(
            f"model.init_from: there is no version {reference} with a package",
            action="`headrace models` and MLflow's registry list what there is",
        )
    return str(found.package_uri)
