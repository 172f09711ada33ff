"""What containerd keeps of images, between one node and the next: a runtime image of 7 GB takes a minute to unpack.

A store lies in the cache and belongs to one node at a time. When images were added, containerd's two databases are put
aside while nothing runs; every node begins with those, and with no layer of a container that an earlier one left. So a
node finds the images of the last one and nothing else of it. Only the layers that the store lacks are read again.
"""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from headrace_testbed.cache import cache_root

_CONTENT = "io.containerd.content.v1.content"
_SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs"
_DATABASES = ("io.containerd.metadata.v1.bolt/meta.db", f"{_SNAPSHOTS}/metadata.db")
_KEPT = ("io.containerd.metadata.v1.bolt", _CONTENT, _SNAPSHOTS)


class ImageStore:
    """A folder of the cache that nobody else uses now; containerd's `root` is below it."""

    def __init__(self) -> None:
        for number in itertools.count():
            self.folder = cache_root() / f"containerd-{number}"
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.folder / ".lock", "w")  # noqa: SIM115 - held until the node is gone
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                self._lock.close()
        self.root = self.folder / "root"
        self._aside = self.folder / "aside"

    def close(self) -> None:
        """Let the next node have it."""
        self._lock.close()

    def begin(self) -> None:
        """Put back what was put aside, and drop whatever else an earlier node left."""
        if not self._aside.exists():
            shutil.rmtree(self.root, ignore_errors=True)
            return
        for left in set(self.root.iterdir()) - {self.root / each for each in _KEPT}:
            shutil.rmtree(left)
        for database in _DATABASES:
            shutil.copy(self._aside / Path(database).name, self.root / database)
        kept = json.loads((self._aside / "kept.json").read_text())
        for folder in self._layers() - {self.root / each for each in kept}:
            shutil.rmtree(folder)
        for blob in self._blobs() - {self.root / each for each in kept}:
            blob.unlink()

    def put_aside(self, images: dict[str, str]) -> None:
        """Remember the state of now, in which containerd does not run and holds IMAGES: name and manifest's digest."""
        unfinished = self.folder / "aside.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for database in _DATABASES:
            shutil.copy(self.root / database, unfinished)
        kept = sorted(str(each.relative_to(self.root)) for each in self._layers() | self._blobs())
        (unfinished / "kept.json").write_text(json.dumps(kept))
        (unfinished / "images.json").write_text(json.dumps(images))
        shutil.rmtree(self._aside, ignore_errors=True)
        unfinished.rename(self._aside)

    @property
    def images(self) -> dict[str, str]:
        """What it remembers: name and manifest's digest."""
        file = self._aside / "images.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def _layers(self) -> set[Path]:
        return set((self.root / _SNAPSHOTS / "snapshots").iterdir())

    def _blobs(self) -> set[Path]:
        return set((self.root / _CONTENT / "blobs").glob("*/*"))

    def has_blob(self, digest: str) -> bool:
        """Whether the content of DIGEST lies in it."""
        return (self.root / _CONTENT / "blobs" / digest.replace(":", "/")).exists()


def full_name(name: str) -> str:
    """NAME as a kubelet asks for it: with a registry's host and a tag."""
    first = name.split("/")[0]
    hosted = (
        name
        if "/" in name and ("." in first or ":" in first)
        else f"docker.io/{name if '/' in name else 'library/' + name}"
    )
    return hosted if ":" in hosted.rpartition("/")[2] else f"{hosted}:latest"


@dataclass(frozen=True)
class Archive:
    """An image in OCI's layout: a folder, or a tar of one."""

    path: Path

    def read(self, name: str) -> bytes:
        """The content of a small file of it."""
        for found, _, stream in self._files():
            if found == name:
                return stream.read()
        raise FileNotFoundError(f"{self.path} has no {name}; it is no image in OCI's layout")

    def image(self) -> tuple[str, dict[str, Any]]:
        """The name and the descriptor of the only image in it."""
        manifests = json.loads(self.read("index.json"))["manifests"]
        if len(manifests) != 1:
            raise ValueError(f"{self.path} holds {len(manifests)} images; one is wanted")
        notes = manifests[0].get("annotations", {})
        name = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name")
        if not name:
            raise ValueError(f"the image in {self.path} has no name (annotation io.containerd.image.name)")
        return full_name(name), manifests[0]

    def write_lacking(self, store: ImageStore, sink: IO[bytes]) -> None:
        """Write to SINK a tar of the image without the blobs that STORE has."""
        name, descriptor = self.image()
        named = {**descriptor, "annotations": {"io.containerd.image.name": name}}
        index = json.dumps({"schemaVersion": 2, "manifests": [named]}).encode()
        with tarfile.open(fileobj=sink, mode="w|") as tar:
            _add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
            _add(tar, "index.json", index)
            for path, size, stream in self._files():
                if path.startswith("blobs/") and not store.has_blob(path.removeprefix("blobs/").replace("/", ":")):
                    entry = tarfile.TarInfo(path)
                    entry.size = size
                    tar.addfile(entry, stream)

    def _files(self) -> Iterator[tuple[str, int, IO[bytes]]]:
        if self.path.is_dir():
            for file in sorted(each for each in self.path.rglob("*") if each.is_file()):
                with open(file, "rb") as stream:
                    yield file.relative_to(self.path).as_posix(), file.stat().st_size, stream
            return
        with tarfile.open(self.path, "r:") as tar:
            for entry in tar:
                if entry.isfile() and (stream := tar.extractfile(entry)):
                    yield entry.name.removeprefix("./"), entry.size, stream


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
