"""How images get into a node, and the one that every node needs: what holds a pod's namespaces."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from headrace_testbed.builds import program
from headrace_testbed.cache import cached, digest_of
from headrace_testbed.containerfile import Stage
from headrace_testbed.image_store import ImageStore
from headrace_testbed.node_daemons import PAUSE
from headrace_testbed.oci import Image, image, pack, packed, write_archive


def pause_image() -> Image:
    """The image of what holds a pod's namespaces: one program."""
    source = program("pause")

    def fill(folder: Path) -> None:
        (folder / "files").mkdir()
        shutil.copy2(source, folder / "files" / "pause")
        pack(folder / "files", folder / "layer")

    layer = packed(cached(f"image-pause-{digest_of(source.read_bytes())}", fill) / "layer")
    stage = Stage("scratch", configuration=[("ENTRYPOINT", '["/pause"]'), ("USER", "65534:65534")])
    return image(PAUSE, stage, [layer])


def fingerprint(image: Image) -> str:
    """What tells IMAGE from another of its name."""
    return digest_of(json.dumps(image.config, sort_keys=True), *(each.digest for each in image.layers))


def lacking(store: ImageStore, images: Sequence[Image]) -> list[Image]:
    """Those of IMAGES that STORE does not remember."""
    return [each for each in images if store.images.get(each.name) != fingerprint(each)]


class Importer:
    """Gives images to the containerd that PREFIX reaches; layers that lie in STORE are not read again."""

    def __init__(self, prefix: Sequence[str], store: ImageStore) -> None:
        self._ctr = [*prefix, "ctr", "--namespace", "k8s.io"]
        self._store = store

    def answers(self) -> bool:
        """Whether containerd does."""
        return subprocess.run([*self._ctr, "version"], capture_output=True, check=False).returncode == 0

    def give(self, image: Image) -> None:
        """Import IMAGE and unpack it."""
        command = [*self._ctr, "images", "import", "-"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as ctr:
            assert ctr.stdin is not None
            assert ctr.stdout is not None
            with contextlib.suppress(BrokenPipeError):  # it has something to say
                write_archive([image], ctr.stdin, self._store.blobs)
                ctr.stdin.close()
            said = ctr.stdout.read().decode()
        if ctr.returncode:
            raise RuntimeError(f"containerd does not take the image {image.name}: {said.strip()}")

    def forget_other_tags(self, names: Iterable[str], images: Sequence[Image]) -> list[str]:
        """Drop those of NAMES that are other tags of IMAGES, and whatever no image needs any more; what was dropped."""
        wanted = {each.name for each in images}
        repositories = {name.rpartition(":")[0] for name in wanted}
        outdated = [name for name in names if name not in wanted and name.rpartition(":")[0] in repositories]
        for words in (["tag", PAUSE, "unused:1"], ["rm", "--sync", "unused:1", *outdated]):  # which collects
            subprocess.run([*self._ctr, "images", *words], capture_output=True, check=True)
        return outdated
