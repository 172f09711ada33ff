"""The test bed for people: `make cluster-up` starts a control plane with KubeRay that stays until `make cluster-down`.

A keeper process holds the daemons, since none of them outlives whoever started it; ending the keeper ends them all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "testbed"))

from headrace_testbed import builds
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.operators import KubeRayOperator


def _keeper(folder: Path) -> int | None:
    """The keeper's process id, if it lives."""
    try:
        pid = int((folder / "keeper.pid").read_text())
        return pid if str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") else None
    except (OSError, ValueError):
        return None


def keep(folder: Path) -> None:
    """Hold a cluster in FOLDER until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ControlPlane(folder / "cluster") as plane:
        KubeRayOperator(plane).start()
        (folder / "kubeconfig").symlink_to(plane.kubeconfig)
        while True:
            signal.pause()


def up(folder: Path) -> None:
    """Start a cluster in FOLDER unless one is there, and say how to talk to it."""
    for name in ("etcd", "kubernetes", "kuberay"):
        builds.built(name)
    started = time.monotonic()
    if not _keeper(folder):
        shutil.rmtree(folder / "cluster", ignore_errors=True)
        (folder / "kubeconfig").unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "keeper.log", "wb") as log:
            command = [sys.executable, __file__, "keep", str(folder)]
            keeper = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        (folder / "keeper.pid").write_text(str(keeper.pid))
        while not (folder / "kubeconfig").exists():
            if keeper.poll() is not None:
                sys.exit(f"The cluster did not start:\n{(folder / 'keeper.log').read_text()}")
            time.sleep(0.1)
    print(f"A control plane and KubeRay are up ({time.monotonic() - started:.0f} s); no node, so pods stay Pending.")
    print(f"  export KUBECONFIG={folder / 'kubeconfig'}")
    print(f"  {builds.program('kubectl')} get namespaces")
    print("  make cluster-down ends it and forgets all that is in it.")


def down(folder: Path) -> None:
    """End the cluster in FOLDER and remove what it kept."""
    if pid := _keeper(folder):
        os.kill(pid, signal.SIGTERM)
        while _keeper(folder):
            time.sleep(0.05)
        print("The cluster is down.")
    else:
        print(f"No cluster is up in {folder}.")
    for name in ("keeper.pid", "keeper.log", "kubeconfig"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "cluster", ignore_errors=True)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["up", "down", "keep"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    {"up": up, "down": down, "keep": keep}[arguments.action](arguments.folder.absolute())


if __name__ == "__main__":
    main()
