"""Where a replica gets a model's package from, so that it depends on the store and on nothing else.

A package in a local store is read where it lies. A remote one is copied once per machine into a cache named by its
hash; a copy is whole or absent, and every file is checked against the manifest's hashes when the package is loaded.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.base import home
from headrace.base.locks import file_lock
from headrace.serving.contract import StableVersion
from headrace_models.tasks.base import Arrays, Signature

if TYPE_CHECKING:
    from headrace_models.package import LoadedModel

MARKER = "headrace.json"


class ServedModel(Protocol):
    """What a front needs of a model. Requests are decoded one by one and computed together."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""

    @property
    def example(self) -> Arrays:
        """A small request that it can answer."""

    def preprocess(self, inputs: Arrays) -> Any:
        """A request's arrays, decoded. Raises `BadInput` with a sentence for the sender."""

    def answer(self, batches: Sequence[Any]) -> list[Arrays]:
        """The answers to several decoded requests."""


class PackagedModel:
    """A package's model as a front uses it."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self.signature = model.signature
        self.example = model.example
        self.preprocess = model.task.preprocess
        self.answer = model.answer


def fetch_package(version: StableVersion, cache: Path | None = None) -> Path:
    """The local folder of VERSION's package, copied into CACHE (default: below home) if its store is remote.

    Raises FileNotFoundError where there is no package, and what the filesystem raises where it cannot be reached.
    """
    filesystem, root = fsspec.core.url_to_fs(version.package_uri)
    if not filesystem.exists(f"{root}/{MARKER}"):
        raise FileNotFoundError(f"there is no package at {version.package_uri}")
    if isinstance(filesystem, LocalFileSystem):
        return Path(root)
    return _copy(filesystem, str(root), version.sha256, cache or home.folder("cache", "packages"))


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
    """Fetch VERSION's package, hold it to the hash that the deployer named, and load it on DEVICE.

    Raises whatever is wrong with the package; the message is what a deployer is shown.
    """
    from headrace_models.package import load_package, read_package

    folder = fetch_package(version)
    found = read_package(folder).sha256
    if found != version.sha256:
        raise ValueError(
            f"the package at {version.package_uri} has sha256 {found[:12]}…, but version {version.version} is "
            f"registered with {version.sha256[:12]}…"
        )
    return PackagedModel(load_package(folder, device=device))


def answer_example(model: ServedModel) -> float:
    """Let MODEL answer its own example twice; the seconds of the second time, when everything is warm.

    A model that cannot is not fit to serve: whatever it raises is raised.
    """
    for _ in range(2):
        started = time.perf_counter()
        model.answer([model.preprocess(model.example)])
    return time.perf_counter() - started
