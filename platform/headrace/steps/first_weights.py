"""The weights that `model.init_from` names, as something that does not change: files of the store, or a package.

A file or folder of this machine is put into the store under its content's hash, so that workers and pods read what was
meant when the run was made. What PyTorch saved (`.pth`, `.pt`) becomes safetensors on the way: a pickle is read once,
here, and only as far as it holds tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headrace.base.errors import InvalidInput, MissingExtra
from headrace.base.jsonfile import sha256_of, sha256_of_file
from headrace.spec.files import PICKLES, TORCHVISION
from headrace.steps.torchvision_weights import torchvision_file
from headrace.store import Store


def with_stored_weights(
    spec: Mapping[str, Any], store: Store, resolve: Callable[[str], Any], *, pods: bool = False
) -> dict[str, Any]:
    """SPEC with `model.init_from` pointing at something that does not change: files of the store, or a package.

    Args:
        resolve: the registered version that a reference names, or None.
        pods: whether pods of a cluster train, which read nothing but stores.

    Raises:
        InvalidInput: there are no such weights, or they cannot be read, here or where they are needed.
        MissingExtra: PyTorch is needed to read them.
    """
    given = spec["model"]["init_from"]
    if given is None:
        return dict(spec)
    stored, path = given, _local(given)
    if path is not None:
        stored = _put(path, store)
    elif is_reference(given):
        found = resolve(given)
        stored = package_of(given, None if found is None else found.package_uri)
        if pods:
            _require_within_reach(given, stored, store)
    return {**spec, "model": {**spec["model"], "init_from": stored}}


def _require_within_reach(reference: str, package: str, store: Store) -> None:
    """Raise InvalidInput where the PACKAGE of a version lies in a folder of some machine, outside of STORE."""
    folder = package.removeprefix("file://")
    if not Path(folder).is_absolute() or (store.local and Path(folder).is_relative_to(store.url)):
        return
    here = Path(folder).is_dir()
    raise InvalidInput(
        f"model.init_from: the package of {reference} lies in the folder {folder} of "
        f"{'this' if here else 'another'} machine, where pods that use the store {store.url} cannot read it",
        action=f"name the folder, which is then copied to the store: init_from: {folder}"
        if here
        else f"run from the machine that has it, with init_from: {folder}, or copy the folder here and name that",
    )


def pinned_weights(given: str, store: Store) -> str:
    """Where weights of this machine will lie in the store, by their content; a URL or a reference stays what it is.
    Raises as `with_stored_weights`."""
    path = _local(given)
    return given if path is None else _uri(_named(path), store)


def _local(given: str) -> Path | None:
    """The file or folder of this machine that GIVEN names, if it does."""
    if given.startswith(TORCHVISION):
        return torchvision_file(given)
    return Path(given) if Path(given).is_absolute() else None


def _put(path: Path, store: Store) -> str:
    named = _named(path)
    for name, file in named.items():
        uri = store.uri("files", name)
        if not store.exists(uri):
            store.write_bytes(uri, as_safetensors(file) if path.suffix in PICKLES else file.read_bytes())
    return _uri(named, store)


def _uri(named: Mapping[str, Path], store: Store) -> str:
    return store.uri("files", next(iter(named)).split("/")[0])


def _named(path: Path) -> dict[str, Path]:
    """The files at PATH by the names that they have in the store: `<hash>.safetensors`, or `<hash>/<name>` of a folder.
    The hash is that of what lies at PATH, so that nothing needs to be converted to know it."""
    try:
        if path.is_file():
            suffix = ".safetensors" if path.suffix in PICKLES else path.suffix
            return {f"{sha256_of_file(path)}{suffix}": path}
        files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
        hashes = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}
    except OSError as error:
        raise InvalidInput(f"model.init_from: {path} cannot be read: {error}", action="correct the path") from error
    if not files:
        raise InvalidInput(f"model.init_from: {path} is empty", action="name a .safetensors file or a package")
    return {f"{sha256_of(hashes)}/{name}": file for name, file in files.items()}


def as_safetensors(path: Path) -> bytes:
    """The weights that PyTorch saved at PATH, as safetensors; nothing in the file is run (`weights_only`).

    Raises:
        InvalidInput: there is anything but tensors by name in it.
        MissingExtra: PyTorch is not installed.
    """
    try:
        import torch
        from safetensors.torch import save
    except ImportError:
        raise MissingExtra("train", f"reading {path.name}") from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's, zip's or PyTorch's own: there is no common one
        why = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        raise _not_weights(path, why) from error
    if not isinstance(state, Mapping) or not state:
        raise _not_weights(
            path, f"it holds a {type(state).__name__}" if not isinstance(state, Mapping) else "no weights"
        )
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise _not_weights(path, f"{name!r} in it is a {type(value).__name__}")
        if value.layout != torch.strided or value.is_quantized:
            raise _not_weights(path, f"{name!r} in it is a sparse or quantized tensor")
    return save({name: value.detach().contiguous().clone() for name, value in state.items()})


def _not_weights(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"model.init_from: {path} is no file of weights alone: {why}",
        action="save them with torch.save(model.state_dict(), FILE), or as safetensors",
    )


def is_reference(given: str) -> bool:
    """Whether GIVEN names a registered version (`NAME@ALIAS`, `NAME/3`)."""
    return "://" not in given and not given.startswith(TORCHVISION) and not Path(given).is_absolute()


def package_of(reference: str, uri: str | None) -> str:
    """URI, that of the package of the version that REFERENCE names. Raises InvalidInput where there is none."""
    if uri is None:
        raise InvalidInput(
            f"model.init_from: there is no version {reference} with a package",
            action="`headrace models` and MLflow's registry list what there is",
        )
    return str(uri)
