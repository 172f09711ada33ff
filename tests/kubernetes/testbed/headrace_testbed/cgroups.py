"""A node's own cgroup in every hierarchy: what its pods are limited and counted by, and all that outlives them."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_END_SECONDS = 60


def hierarchies() -> list[Path]:
    """The roots of all cgroup hierarchies of this machine: one with cgroup v2, a dozen with v1, else none."""
    if not _CGROUPS.is_dir():
        return []
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return sorted(each for each in _CGROUPS.iterdir() if each.is_dir() and not each.is_symlink())


def make_cgroups(name: str) -> None:
    """The cgroup NAME in every hierarchy, ready to take processes.

    With cgroup v2 the controllers that the root does not give to its children yet are given, and stay so: whoever else
    has begun to use one would lose it.
    """
    for root in hierarchies():
        own = root / name
        own.mkdir(exist_ok=True)
        for inherited in ("cpuset.cpus", "cpuset.mems"):
            if (own / inherited).exists() and root != _CGROUPS:
                (own / inherited).write_text((root / inherited).read_text())
    if hierarchies() == [_CGROUPS]:
        wanted = " ".join(f"+{each}" for each in (_CGROUPS / "cgroup.controllers").read_text().split())
        for parent in (_CGROUPS, _CGROUPS / name):
            (parent / "cgroup.subtree_control").write_text(wanted)


def remove_cgroups(name: str) -> None:
    """Remove the cgroup NAME with all below it from every hierarchy, once its processes are gone."""
    deadline = time.monotonic() + _END_SECONDS
    for own in [root / name for root in hierarchies() if (root / name).exists()]:
        while own.exists():
            for folder, _, _ in os.walk(own, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            if own.exists():
                if time.monotonic() > deadline:
                    print(f"{own} still has processes; it is left behind", file=sys.stderr, flush=True)
                    break
                time.sleep(0.05)
