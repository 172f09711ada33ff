"""What a run needs in the store before its first step: the parts of its spec, the user's own code, and its origin.

After this nothing of the run depends on the folder the spec lies in: a resumed run, or one on a cluster, reads only the
store. The steps get URIs, since kfp changes values on their way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headrace.base.jsonfile import sha256_of
from headrace.spec.gate import parse_check
from headrace.spec.parts import split_part, step_parts
from headrace.steps.first_weights import with_stored_weights
from headrace.store import Store
from headrace.store.step_files import read_note, write_note

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

    spec = _with_first_attempts_weights(request, store, resolve)
    write_run_notes(request, store)
    parts = stored_parts(spec, store)
    return {
        "run_id": request["run_id"],
        "attempt": attempt,
        "source_fingerprint": fingerprint_source(split_part(spec)),
        "champion": champion_reference(spec),
        **parts,
    }


def _with_first_attempts_weights(
    request: Mapping[str, Any], store: Store, resolve: Callable[[str], Any]
) -> dict[str, Any]:
    """The spec of REQUEST with `model.init_from` as the run's first attempt found it: an alias moves, a file goes."""
    spec, run_id = request["spec"], request["run_id"]
    given = spec["model"]["init_from"]
    kept = read_note(store, run_id, "init_from") or {}
    if given is not None and kept.get("given") == given:
        return {**spec, "model": {**spec["model"], "init_from": kept["stored"]}}
    settled = with_stored_weights(spec, store, resolve, pods=request.get("target", "local") != "local")
    if given is not None:
        write_note(store, run_id, "init_from", {"given": given, "stored": settled["model"]["init_from"]})
    return settled


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
