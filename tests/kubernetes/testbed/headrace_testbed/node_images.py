"""Images of a file or two, made on the spot: the one that holds a pod's namespaces."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

from headrace_testbed.builds import program
from headrace_testbed.node_daemons import PAUSE

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def pause_image(folder: Path) -> Path:
    """The image of what holds a pod's namespaces, as a layout of OCI's in FOLDER."""
    return one_layer_image(folder, PAUSE, {"pause": program("pause")}, ["/pause"])


def one_layer_image(folder: Path, name: str, files: dict[str, Path], entrypoint: list[str]) -> Path:
    """An image of FILES (path in it, path here) and nothing else."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, source in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = source.stat().st_size, 0o755
            with open(source, "rb") as stream:
                tar.addfile(entry, stream)
    layer = _blob(folder, buffer.getvalue(), "application/vnd.oci.image.layer.v1.tar")
    config = {
        "architecture": _ARCHITECTURES[os.uname().machine],
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "User": "65534:65534"},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(folder, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [layer],
    }
    described = _blob(folder, json.dumps(manifest).encode(), manifest["mediaType"])
    described["annotations"] = {"io.containerd.image.name": name}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def _blob(folder: Path, content: bytes, media_type: str) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    file = folder / "blobs" / "sha256" / digest
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
