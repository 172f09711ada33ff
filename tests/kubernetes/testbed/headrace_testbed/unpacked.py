"""Looks into an image, and runs its command as a pod would, without a node: as its user, on a read-only root."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

from headrace_testbed.oci import Image

_AS_A_POD = """set -eu
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=1777 tmpfs "$root/home/headrace"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
ip link set lo up
exec setpriv --no-new-privs env -u root -u user -u inside PATH="$inside" \
  /usr/sbin/chroot --userspec="$user" --groups= "$root" "$@"
"""
_UNSHARE = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private")


class Contents:
    """The files of IMAGE by their path, as its layers lay them over each other; a context manager."""

    def __init__(self, image: Image) -> None:
        self._tars = [tarfile.open(layer.file) for layer in image.layers]  # noqa: SIM115 - closed on exit
        self.files: dict[str, tarfile.TarInfo] = {}
        self._tar_of: dict[str, tarfile.TarFile] = {}
        for tar in self._tars:
            for member in tar:
                self.files[member.name] = member
                self._tar_of[member.name] = tar

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, *_: object) -> None:
        for tar in self._tars:
            tar.close()

    @property
    def size(self) -> int:
        """Bytes of all files, as `docker images` counts them."""
        return sum(member.size for member in self.files.values())

    def read(self, path: str, size: int = -1) -> bytes:
        """The first SIZE bytes of the file at PATH, or all."""
        file = self._tar_of[path].extractfile(self.files[path])
        assert file is not None, f"{path} is no file"
        return file.read(size)


def unpack(image: Image, folder: Path) -> Path:
    """Lay the files of IMAGE into FOLDER, with their owners."""
    for layer in image.layers:
        command = ["tar", "-x", "--numeric-owner", "--keep-directory-symlink", "-C", folder, "-f", layer.file]
        subprocess.run(command, check=True)
    folder.chmod(0o755)
    return folder


def run(image: Image, root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run COMMAND in the files of IMAGE at ROOT, as a restricted pod would; it may write to /tmp and its home."""
    variables = dict(variable.split("=", 1) for variable in image.config["Env"])
    ours = {"root": str(root), "user": image.config["User"], "inside": variables["PATH"], "PATH": os.environ["PATH"]}
    return subprocess.run(
        [*_UNSHARE, "sh", "-c", _AS_A_POD, "as-a-pod", *command],
        env=variables | ours,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
