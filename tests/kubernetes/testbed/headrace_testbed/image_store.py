"""What containerd keeps of images, between one node and the next: a runtime image of 7 GB takes a minute to unpack.

A store lies in the cache and belongs to one node at a time. When images were added, containerd's two databases are put
aside while nothing runs; every node begins with those, and with no layer of a container that an earlier one left. So a
node finds the images of the last one and nothing else of it. Only the layers that the store lacks are read again.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from headrace_testbed.cache import cache_root
from headrace_testbed.oci import Layer

_CONTENT = "io.containerd.content.v1.content"
_SNAPSHOTS = "io.containerd.snapshotter.v1.overlayfs"
_DATABASES = ("io.containerd.metadata.v1.bolt/meta.db", f"{_SNAPSHOTS}/metadata.db")
_KEPT = ("io.containerd.metadata.v1.bolt", _CONTENT, _SNAPSHOTS)


class ImageStore:
    """A folder of the cache that nobody else uses now; containerd's `root` is below it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(folder / ".lock", "w")  # noqa: SIM115 - held until the node is gone
        self.root = folder / "root"
        self._aside = folder / "aside"

    def taken(self) -> bool:
        """Take it, unless another node has it."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            return False
        return True

    def lacks(self, layers: Iterable[Layer]) -> int:
        """How many bytes of LAYERS it does not remember."""
        file = self._aside / "kept.json"
        kept = {Path(each).name for each in json.loads(file.read_text())} if file.exists() else set()
        return sum(each.size for each in layers if each.digest.removeprefix("sha256:") not in kept)

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
        """Remember the state of now, in which containerd has ended and holds IMAGES: name and fingerprint."""
        unfinished = self.folder / "aside.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for database in _DATABASES:
            with open(self.root / database, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # containerd's own lock of it
                shutil.copy(self.root / database, unfinished)
        kept = sorted(str(each.relative_to(self.root)) for each in self._layers() | self._blobs())
        (unfinished / "kept.json").write_text(json.dumps(kept))
        (unfinished / "images.json").write_text(json.dumps(images))
        shutil.rmtree(self._aside, ignore_errors=True)
        unfinished.rename(self._aside)

    def share(self, layers: Iterable[Layer]) -> None:
        """Hold LAYERS once, while containerd does not run: what it copied becomes the cache's own file again."""
        for layer in layers:
            blob = self.root / _CONTENT / "blobs" / layer.digest.replace(":", "/")
            if blob.exists() and not blob.samefile(layer.file):
                twin = blob.with_name(f".{blob.name}")
                twin.unlink(missing_ok=True)
                os.link(layer.file, twin)
                twin.replace(blob)

    @property
    def images(self) -> dict[str, str]:
        """What it remembers: name and fingerprint."""
        file = self._aside / "images.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def _layers(self) -> set[Path]:
        return set((self.root / _SNAPSHOTS / "snapshots").iterdir())

    def _blobs(self) -> set[Path]:
        return set((self.root / _CONTENT / "blobs").glob("*/*"))

    @property
    def blobs(self) -> set[str]:
        """The digests of all content in it."""
        return {f"{each.parent.name}:{each.name}" for each in self._blobs()}


def take_store(layers: Sequence[Layer]) -> ImageStore:
    """A store that nobody uses: of those, the one that lacks least of LAYERS; a new one if all are in use."""
    free = []
    for number in itertools.count():
        folder = cache_root() / f"containerd-{number}"
        if free and not folder.exists():
            break
        store = ImageStore(folder)
        if store.taken():
            free.append(store)
    best = min(free, key=lambda store: store.lacks(layers))
    for store in free:
        if store is not best:
            store.close()
    return best
