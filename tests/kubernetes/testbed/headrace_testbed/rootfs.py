"""Builds the stages of a Containerfile in a chroot, where there is no container engine. Needs root.

A stage's folder in the cache is named by all that decides it: the base, each instruction, the files it copies. It keeps
what the stage has added (an overlay's upper folder). What the image takes whole, its layers, is packed at once and not
kept as files, which halves the room that torch takes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from headrace_testbed.cache import cache_root, cached, digest_of
from headrace_testbed.containerfile import Copy, Run, Stage, parse
from headrace_testbed.debian import debian_packages
from headrace_testbed.oci import Layer, pack, packed

_DEBIAN = "debian:bookworm-slim"
# Where the image debian:bookworm-slim takes packages from, made of the one line that debootstrap leaves.
_SUITES = (("", ""), (" bookworm ", " bookworm-updates "), ("/debian bookworm ", "/debian-security bookworm-security "))
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"  # this machine's, which may know a proxy that Debian does not
_KEPT_SECONDS = 3 * 86_400
_PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_IN_CHROOT = """set -eu
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$upper,workdir=$work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
[ -e "$root/etc/resolv.conf" ] || : >"$root/etc/resolv.conf"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
mount -t tmpfs tmpfs "$root/run"
: >"$root/run/certificates.crt"
mount --bind "$certificates" "$root/run/certificates.crt"
while [ "$1" != -- ]; do
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  shift 2
done
shift
exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
  SSL_CERT_FILE=/run/certificates.crt PIP_CERT=/run/certificates.crt "$@"
"""


class Build:
    """The stages of one Containerfile.

    Args:
        file: the Containerfile.
        context: the folder that its COPY begins at.
        arguments: values of its ARGs.
    """

    def __init__(self, file: Path, context: Path, arguments: Mapping[str, str]) -> None:
        self._context = context
        self.stages = parse(file, arguments)
        self.name = file.parent.name

    @property
    def image(self) -> Stage:
        """The last stage, which says what is in the image and how it is run."""
        return self.stages[""]

    def layers(self) -> list[Layer]:
        """The image's layers, built first where they are missing."""
        copies = [step for step in self.image.steps if isinstance(step, Copy) and step.stage]
        if self.image.base != "scratch" or len(copies) != len(self.image.steps):
            raise ValueError(f"{self.name}: the last stage is to be FROM scratch and only COPY --from= other stages")
        layers = [packed(self._built(str(copy.stage)) / "layers" / _key_of(copy.sources[0])) for copy in copies]
        _drop_unused_stages()
        return layers

    def key(self, name: str) -> str:
        """A hash of all that decides the stage NAME."""
        stage = self.stages[name]
        base = self.key(stage.base) if stage.base in self.stages else digest_of(stage.base, repr(_SUITES))
        parts: list[str] = [base, os.uname().machine]
        for step in stage.steps:
            parts.append(repr(step))
            if isinstance(step, Copy):
                parts += [self.key(step.stage)] if step.stage else list(self._contents(step))
        return digest_of(*parts)

    def _contents(self, copy: Copy) -> Iterator[str]:
        for file, place in self._files(copy):
            yield f"{place} {file.stat().st_mode & 0o111:o} {digest_of(file.read_bytes())}"

    def _files(self, copy: Copy) -> Iterator[tuple[Path, str]]:
        """What COPY brings from the context: each file, and where it goes."""
        for source in copy.sources:
            origin = self._context / source
            if origin.is_file():
                yield origin, copy.target + (origin.name if copy.target.endswith("/") else "")
                continue
            for file in sorted(origin.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    yield file, f"{copy.target.rstrip('/')}/{file.relative_to(origin)}"

    def _built(self, name: str) -> Path:
        folder = cached(f"image-stage-{name}-{self.key(name)}", lambda folder: self._fill(name, folder))
        os.utime(folder)  # that it is in use
        return folder

    def _lowers(self, name: str) -> list[Path]:
        """What the stage NAME stands on, the topmost first."""
        base = self.stages[name].base
        if base in self.stages:
            return [self._built(base) / "upper", *self._lowers(base)]
        if base != _DEBIAN:
            raise ValueError(f"{self.name}: only stages and {_DEBIAN} can be built on here, not {base}")
        return [cached(f"image-base-{digest_of(base, repr(_SUITES))}", _bootstrap)]

    def _fill(self, name: str, folder: Path) -> None:
        stage, lowers = self.stages[name], self._lowers(name)
        (folder / "upper").mkdir()
        print(f"  image {self.name}: stage {name} ...", flush=True)
        started = time.monotonic()
        for step in stage.steps:
            if isinstance(step, Run):
                _run(step, lowers, folder)
            elif step.stage:
                _copy_folder(self._built(step.stage) / "upper" / step.sources[0].strip("/"), folder, step.target)
            else:
                for file, place in self._files(step):
                    target = folder / "upper" / place.lstrip("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, target)
        self._pack_layers(name, folder)
        print(f"  image {self.name}: stage {name} took {time.monotonic() - started:.0f} s", flush=True)

    def _pack_layers(self, name: str, folder: Path) -> None:
        """Pack what the image takes of the stage NAME, and let the files go."""
        for step in self.image.steps:
            if isinstance(step, Copy) and step.stage == name:
                files = folder / "upper" / step.sources[0].strip("/")
                pack(files, folder / "layers" / _key_of(step.sources[0]), done=Path.unlink)  # torch has no room twice
                shutil.rmtree(files)


def _drop_unused_stages() -> None:
    """Every commit makes new stages; those that no build of the last days has asked for go."""
    for folder in cache_root().glob("image-stage-*"):
        with contextlib.suppress(FileNotFoundError):  # another session was quicker
            if time.time() - folder.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(folder)


def _key_of(path: str) -> str:
    return path.strip("/").replace("/", "-")


def _copy_folder(source: Path, folder: Path, target: str) -> None:
    shutil.copytree(source, folder / "upper" / target.strip("/"), symlinks=True, dirs_exist_ok=True)


def _run(step: Run, lowers: list[Path], folder: Path) -> None:
    """Run STEP in a chroot over LOWERS and what FOLDER's stage has so far; all of it ends with us."""
    with tempfile.TemporaryDirectory(prefix=".image-", dir=cache_root()) as mounts:
        places = {"root": Path(mounts, "root"), "work": folder / "work", "upper": folder / "upper"}
        for place in places.values():
            place.mkdir(exist_ok=True)
        caches = [part for target in step.caches for part in (str(_cache_folder(target)), target)]
        passed_on = [f"{name}={os.environ[name]}" for name in _PASSED_ON if name in os.environ]
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-c"]
        command += [_IN_CHROOT, "in-chroot", *caches, "--", *passed_on, "/bin/sh", "-c", step.command]
        lower = ":".join(str(path) for path in lowers)
        variables = {name: str(path) for name, path in places.items()} | {"lower": lower, "certificates": _CERTIFICATES}
        done = subprocess.run(command, env=os.environ | variables, stdin=subprocess.DEVNULL, check=False)
        shutil.rmtree(places["work"])
    if done.returncode:
        raise RuntimeError(f"`{step.command}` failed ({done.returncode}); what it said stands above")


def _cache_folder(target: str) -> Path:
    """The user's own cache for what a stage mounts at TARGET: uv's, so that wheels are fetched once."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / Path(target).name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bootstrap(folder: Path) -> None:
    """What stands for the image debian:bookworm-slim: debootstrap's smallest variant, with the same sources."""
    print("  image: debootstrap of Debian 12 ...", flush=True)
    debootstrap = debian_packages("debootstrap", "debootstrap") / "usr"
    scripts = debootstrap / "share" / "debootstrap"
    command = [debootstrap / "sbin" / "debootstrap", "--variant=minbase", "bookworm", folder]
    done = subprocess.run(
        command, env=os.environ | {"DEBOOTSTRAP_DIR": str(scripts)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"debootstrap failed ({done.returncode}): {done.stdout[-2000:]}{done.stderr[-2000:]}")
    sources = folder / "etc/apt/sources.list"
    line = sources.read_text()
    sources.write_text("".join(line.replace(*change) for change in _SUITES))
