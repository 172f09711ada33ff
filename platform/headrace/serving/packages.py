"""Where a replica gets a model's package from, so that it depends on the store and on nothing else.

A package in a local store is read where it lies. A remote one is copied once per machine into a cache named by its
hash; a copy is whole or absent, and every file is checked against the manifest's hashes when the package is loaded.
What is in the cache needs no store: a replica restarts while S3 is down.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.base import home
from headrace.base.errors import InvalidInput
from headrace.base.locks import file_lock
from headrace.serving.contract import StableVersion
from headrace.store.filesystems import files_below, get_within, open_filesystem, reached
from headrace_models.tasks.base import Arrays, Signature

if TYPE_CHECKING:
    from headrace_models.package import LoadedModel

logger = logging.getLogger("headrace.serving")

MARKER = "headrace.json"
DAMAGED = "package-damaged"  # the error code of a package that is not what its manifest says
COPY_SECONDS = 600.0  # for a whole package: a store that trickles must not hold a new version for ever


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

    Raises:
        FileNotFoundError: there is no package.
        Unavailable: the store refuses or does not answer.
    """
    filesystem, root = open_filesystem(version.package_uri)
    if isinstance(filesystem, LocalFileSystem):
        if not Path(root, MARKER).is_file():
            raise FileNotFoundError(f"there is no package at {version.package_uri}")
        return Path(root)
    cache = cache or home.folder("cache", "packages")
    target = cache / version.sha256
    with file_lock(cache / f"{version.sha256}.lock", holder=f"a replica that copies package {version.sha256[:12]}"):
        if not (target / MARKER).is_file():
            with reached(version.package_uri, filesystem):
                _copy(filesystem, version.package_uri, root, target)
    return target


def is_copied(version: StableVersion, cache: Path | None = None) -> bool:
    """Whether this machine needs VERSION's store no more."""
    return Path(cache or home.home() / "cache" / "packages", version.sha256, MARKER).is_file()


def _copy(filesystem: fsspec.AbstractFileSystem, uri: str, root: str, target: Path) -> None:
    """Copy what is below ROOT to the folder TARGET, which is there when it is whole."""
    deadline = time.monotonic() + COPY_SECONDS
    names = sorted(files_below(filesystem, root))
    if MARKER not in names:
        raise FileNotFoundError(f"there is no package at {uri}")
    shutil.rmtree(target, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=".partial-"))
    try:
        for name in names:
            local = partial / name
            local.parent.mkdir(parents=True, exist_ok=True)
            get_within(filesystem, f"{root.rstrip('/')}/{name}", str(local), max(1.0, deadline - time.monotonic()))
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_served_model(version: StableVersion, device: str) -> ServedModel:
    """Fetch VERSION's package, hold it to the hash that the deployer named, and load it on DEVICE.

    A copy in the cache that was damaged since is fetched once more. Raises whatever is wrong with the package; the
    message is what a deployer is shown.
    """
    folder = fetch_package(version)
    try:
        return _load(folder, version, device)
    except InvalidInput as error:
        if error.code != DAMAGED or _is_local(version):
            raise
        logger.warning("%s; it is fetched anew", error.message)
    (folder / MARKER).unlink(missing_ok=True)
    try:
        return _load(fetch_package(version), version, device)
    except InvalidInput as error:
        raise InvalidInput(f"{version.package_uri}: {error.message}", action=error.action, code=error.code) from error


def _load(folder: Path, version: StableVersion, device: str) -> PackagedModel:
    from headrace_models.package import load_package, read_package

    found = read_package(folder).sha256
    if found != version.sha256:
        raise InvalidInput(
            f"the package at {version.package_uri} has sha256 {found[:12]}…, but version {version.version} is "
            f"registered with {version.sha256[:12]}…",
            action="register what is there, or train it again",
            code=DAMAGED,
        )
    return PackagedModel(load_package(folder, device=device))


def _is_local(version: StableVersion) -> bool:
    return "://" not in version.package_uri


def answer_example(model: ServedModel) -> float:
    """Let MODEL answer its own example twice; the seconds of the second time, when everything is warm.

    A model that cannot is not fit to serve: whatever it raises is raised.
    """
    for _ in range(2):
        started = time.perf_counter()
        model.answer([model.preprocess(model.example)])
    return time.perf_counter() - started
