"""Images as files: layers packed once, and OCI archives that containerd, docker, podman and skopeo read.

A layer is an uncompressed tar, so that its digest is its diff id and nobody has to decompress six gigabytes; registries
compress on push. An archive is written as a stream: the layers stay in the cache and are never copied beside it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from headrace_testbed.containerfile import Stage, oci_config

_TIME = 1_700_000_000  # every file's: the same contents shall be the same layer
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Layer:
    """A tar with its digest (`sha256:...`) and size in bytes."""

    file: Path
    digest: str
    size: int

    def compressed_size(self) -> int:
        """What a registry would show for it: its bytes after gzip."""
        squeezer, size = zlib.compressobj(6, zlib.DEFLATED, 31), 0
        with open(self.file, "rb") as tar:
            while block := tar.read(_BLOCK):
                size += len(squeezer.compress(block))
        return size + len(squeezer.flush())


@dataclass(frozen=True)
class Image:
    """What `docker build` would have made: a name, what it runs, its layers, the lowest first."""

    name: str
    config: Mapping[str, Any]
    layers: Sequence[Layer]

    @property
    def size(self) -> int:
        """Bytes of its layers, not compressed."""
        return sum(layer.size for layer in self.layers)


class _Hashing(io.RawIOBase):
    """A file that hashes what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.hash, self.size = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self._file.write(data)


def _keep(path: Path) -> None:
    """What `pack` does with a file that it has packed, unless it is told otherwise."""


def pack(folder: Path, target: Path, done: Callable[[Path], None] = _keep) -> Layer:
    """Pack FOLDER's contents as a layer into the folder TARGET; each file that is packed is given to DONE."""
    target.mkdir(parents=True)
    with open(target / "layer.tar", "wb") as file:
        sink = _Hashing(file)
        with tarfile.open(fileobj=sink, mode="w|", bufsize=_BLOCK, format=tarfile.GNU_FORMAT) as tar:  # type: ignore[call-overload]
            for path in _sorted_below(folder):
                _add(tar, path, str(path.relative_to(folder)))
                if path.is_file():
                    done(path)
    layer = {"digest": f"sha256:{sink.hash.hexdigest()}", "size": sink.size}
    (target / "layer.json").write_text(json.dumps(layer))
    return packed(target)


def packed(target: Path) -> Layer:
    """The layer that `pack` has put into TARGET."""
    return Layer(target / "layer.tar", **json.loads((target / "layer.json").read_text()))


def _sorted_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _sorted_below(path)


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    entry = tar.gettarinfo(path, name)
    entry.mtime, entry.uname, entry.gname = _TIME, "", ""
    if entry.isreg():
        with open(path, "rb") as file:
            tar.addfile(entry, file)
    else:
        tar.addfile(entry)


def image(name: str, stage: Stage, layers: Sequence[Layer]) -> Image:
    """The image NAME that STAGE describes, made of LAYERS."""
    return Image(name, oci_config(stage), layers)


def write_archive(images: Sequence[Image], target: IO[bytes], known: Collection[str] = ()) -> None:
    """Write IMAGES to TARGET as one OCI archive, each under its name; `ctr images import -` reads it as it comes.

    Blobs with KNOWN digests are left out: whoever reads it has them.
    """
    with tarfile.open(fileobj=target, mode="w|", bufsize=_BLOCK) as tar:
        _add_bytes(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        written = set(known)
        manifests = [_write_image(tar, each, written) for each in images]
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
        _add_bytes(tar, "index.json", json.dumps(index).encode())


def _write_image(tar: tarfile.TarFile, image: Image, written: set[str]) -> dict[str, Any]:
    """Write IMAGE's blobs; its entry of the index."""
    for layer in image.layers:
        if layer.digest not in written:
            with open(layer.file, "rb") as file:
                tar.addfile(_entry(_blob(layer.digest), layer.size), file)
            written.add(layer.digest)
    config = _write_blob(tar, _CONFIG, _configuration(image), written)
    layers = [{"mediaType": _LAYER, "digest": layer.digest, "size": layer.size} for layer in image.layers]
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers}
    names = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name}
    return _write_blob(tar, _MANIFEST, manifest, written) | {"annotations": names}


def _configuration(image: Image) -> dict[str, Any]:
    return {
        "architecture": _ARCHITECTURES.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": dict(image.config),
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in image.layers]},
        "history": [{"created_by": "headrace_testbed"} for _ in image.layers],
    }


def _write_blob(tar: tarfile.TarFile, kind: str, value: Mapping[str, Any], written: set[str]) -> dict[str, Any]:
    data = json.dumps(value, sort_keys=True).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if digest not in written:
        _add_bytes(tar, _blob(digest), data)
        written.add(digest)
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(_entry(name, len(data)), io.BytesIO(data))


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = size, _TIME
    return entry
