"""Where a replica gets a model's package from, so that it depends on the store and on nothing else.

A package in a local store is read where it lies. A remote one is copied once per machine into a cache named by its
hash; a copy is whole or absent, and every file is checked against the manifest's hashes when the package is loaded.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.base.home import folder
from headrace.base.locks import file_lock
from headrace.serving.contract import StableVersion
from headrace_models.tasks.base import Arrays, Signature

MARKER = "headrace.json"


class ServedModel(Protocol):
    """What a front needs of a loaded package (`headrace_models.package.LoadedModel` is one)."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""

    @property
    def example(self) -> Arrays | None:
        """A request to warm it up with."""

    def predict(self, inputs: Arrays) -> Arrays:
        """A request's arrays to the answer's. Raises `BadInput` with a sentence for the sender."""


def fetch_package(version: StableVersion, cache: Path | None = None) -> Path:
    """The local folder of VERSION's package, copied into CACHE (default: below home) if its store is remote.

    Raises FileNotFoundError where there is no package, and what the filesystem raises where it cannot be reached.
    """
    filesystem, root = fsspec.core.url_to_fs(version.package_uri)
    if not filesystem.exists(f"{root}/{MARKER}"):
        raise FileNotFoundError(f"there is no package at {version.package_uri}")
    if isinstance(filesystem, LocalFileSystem):
        return Path(root)
    return _copy(filesystem, str(root), version.sha256, cache or folder("cache", "packages"))


def _copy(filesystem: fsspec.AbstractFileSystem, root: str, sha256: str, cache: Path) -> Path:
    target = cache / sha256
    with file_lock(cache / f"{sha256}.lock", holder=f"a replica that copies package {sha256[:12]}"):
        if (target / MARKER).is_file():
            return target
        shutil.rmtree(target, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(dir=cache, prefix=".partial-"))
        try:
            for remote in filesystem.find(root):
                local = partial / str(remote).removeprefix(root).lstrip("/")
                local.parent.mkdir(parents=True, exist_ok=True)
                filesystem.get_file(remote, str(local))
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def load_served_model(version: StableVersion, device: str) -> ServedModel:
    """Fetch and load VERSION's package on DEVICE, and answer its own example, so that the first client does not wait.

    Raises whatever is wrong with the package; the message is what a deployer is shown.
    """
    from headrace_models.package import load_package

    model: ServedModel = load_package(fetch_package(version), device=device)
    check_hash(model, version)
    example = model.example
    if example:
        model.predict(example)
    return model


def check_hash(model: ServedModel, version: StableVersion) -> None:
    """Raise ValueError unless MODEL's manifest carries the hash that the deployer named."""
    manifest = getattr(model, "manifest", None)
    found = getattr(manifest, "sha256", None)
    if found is not None and found != version.sha256:
        raise ValueError(
            f"the package at {version.package_uri} has sha256 {found[:12]}…, but version {version.version} is "
            f"registered with {version.sha256[:12]}…"
        )
