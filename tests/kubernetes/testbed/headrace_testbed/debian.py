"""Programs that come from Debian: taken from the machine, else unpacked from their packages into the cache.

Unpacking instead of installing needs no root, starts no service on the machine and changes nothing outside the cache.
What a package depends on comes along, as far as the machine lacks it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from headrace_testbed.cache import cached


def _apt(*arguments: str | Path, state: Path, cwd: Path) -> None:
    """Run apt-get with package lists of its own, so that neither root nor the machine's lists are needed."""
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    own = {"State::Lists": state / "lists", "Cache": state, "Cache::Archives": state / "archives"}
    options = [part for name, value in own.items() for part in ("-o", f"Dir::{name}={value}")]
    command = ["apt-get", "-qq", "-o", "Debug::NoLocking=true", "-o", "APT::Sandbox::User=", *options, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")


def _unpack(packages: tuple[str, ...], folder: Path) -> None:
    print(f"  fetching Debian's {', '.join(packages)} ...", flush=True)
    state = folder / ".apt"
    _apt("update", state=state, cwd=folder)
    lacking = ("install", "--yes", "--download-only", "--no-install-recommends", "--reinstall")
    _apt(*lacking, *packages, state=state, cwd=folder)
    for archive in (state / "archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
    shutil.rmtree(state)


def debian_packages(name: str, *packages: str) -> Path:
    """A folder with the files of PACKAGES and of what they need, unpacked first if it is missing."""
    if shutil.which("apt-get") is None:
        raise RuntimeError(f"there is no apt-get to fetch Debian's {', '.join(packages)} with")
    return cached(f"debian-{name}", lambda folder: _unpack(packages, folder))


def debian_program(package: str, name: str) -> Path:
    """The program NAME of Debian's PACKAGE."""
    if found := shutil.which(name):
        return Path(found)
    return debian_packages(package, package) / "usr" / "bin" / name
