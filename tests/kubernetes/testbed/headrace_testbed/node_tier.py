"""What the node tier needs of a machine, and all of it that may take minutes, done where its progress can be seen.

`python -m headrace_testbed.node_tier` builds, packs and unpacks whatever is missing; pytest waits for none of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from headrace_testbed import builds, toolchain
from headrace_testbed.cache import cache_root
from headrace_testbed.cgroups import hierarchies, make_cgroups, remove_cgroups

_TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "apt-get": "apt"}
IMAGES = ("operator", "runtime", "mlflow", "postgres", "versitygw", "ray")


def why_not() -> str:
    """Why this machine cannot run a node, or nothing."""
    if reason := toolchain.why_not():
        return reason
    if os.geteuid() != 0:
        return "a node's kubelet and runc need root"
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            return f"a node is set up with {tool} (Debian: apt-get install {package})"
    return _no_cgroup() or _no_overlay()


def _no_cgroup() -> str:
    if not hierarchies():
        return "a node needs cgroups below /sys/fs/cgroup"
    trial = f"headrace-trial-{os.getpid()}"
    try:
        make_cgroups(trial)
    except OSError as error:
        return f"a node needs writable cgroups: {error}"
    finally:
        remove_cgroups(trial)
    return ""


def _no_overlay() -> str:
    cache_root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_root()) as folder:
        options = ",".join(f"{part}dir={folder}/{part}" for part in ("lower", "upper", "work"))
        script = f"cd {folder} && mkdir lower upper work all && mount -t overlay overlay -o {options} all"
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"a node needs overlayfs at {cache_root()}: {done.stderr.strip()}" if done.returncode else ""


def make_ready(images: Sequence[str]) -> None:
    """Build, pack and unpack what a node with IMAGES needs and is missing."""
    from headrace_testbed.images import packed_image
    from headrace_testbed.node import prepare

    for name in (*builds.missing(), *builds.NODE):
        builds.built(name)
    prepare([packed_image(name) for name in images])


def main() -> None:
    """Make ready the images named on the command line, or all, and whatever they run on."""
    started = time.monotonic()
    make_ready(sys.argv[1:] or IMAGES)
    print(f"The node's parts and images are whole ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
