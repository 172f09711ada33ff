"""The test bed for people: `make cluster-up` starts a control plane with KubeRay that stays until `make cluster-down`.
With a node (`NODE=1`, as root) pods run too, and our images are in it.

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

from headrace_testbed import builds, node_tier
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.images import packed_image, reference
from headrace_testbed.node import Node
from headrace_testbed.operators import KubeRayOperator

_NO_NODE = "no node, so pods stay Pending (NODE=1 makes one)"


def _keeper(folder: Path) -> int | None:
    """The keeper's process id, if it lives."""
    try:
        pid = int((folder / "keeper.pid").read_text())
        return pid if str(folder) in _words(pid) else None
    except (OSError, ValueError):
        return None


def _words(pid: int) -> list[str]:
    """A process's command line."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def keep(folder: Path) -> None:
    """Hold a cluster in FOLDER until SIGTERM."""
    _hold(folder, ControlPlane(folder / "cluster"))


def keep_node(folder: Path) -> None:
    """Hold a cluster with a node."""
    _hold(folder, Node(folder / "cluster", images=[packed_image(name) for name in _images()]))


def _images() -> list[str]:
    return os.environ.get("IMAGES", "").split() or list(node_tier.IMAGES)


def _hold(folder: Path, cluster: ControlPlane) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with cluster as plane:
        KubeRayOperator(plane).start()
        (folder / "kubeconfig").symlink_to(plane.kubeconfig)
        while True:
            signal.pause()


def up(folder: Path) -> None:
    """Start a cluster in FOLDER unless one is there, and say how to talk to it."""
    for name in ("etcd", "kubernetes", "kuberay"):
        builds.built(name)
    seconds = _start_keeper(folder, "keep")
    print(f"A control plane and KubeRay are up ({seconds:.0f} s); {_NO_NODE}.")
    _say_how(folder)


def up_node(folder: Path) -> None:
    """The same with a node."""
    if reason := node_tier.why_not():
        sys.exit(f"No node can run here: {reason}.")
    node_tier.make_ready(_images())
    seconds = _start_keeper(folder, "keep-node")
    print(f"A control plane, a node and KubeRay are up ({seconds:.0f} s). The node has no way out and these images:")
    print(f"  {' '.join(reference(name) for name in _images())}")
    print(f"  {folder / 'cluster' / 'nn'} COMMAND runs a command inside, where Services have their names.")
    _say_how(folder)


def _say_how(folder: Path) -> None:
    print(f"  export KUBECONFIG={folder / 'kubeconfig'}")
    print(f"  {builds.program('kubectl')} get namespaces")
    print("  make cluster-down ends it and forgets all that is in it.")


def _start_keeper(folder: Path, action: str) -> float:
    """Start the process that does ACTION in FOLDER unless one lives, and wait for its cluster; the seconds it took."""
    started = time.monotonic()
    keeper_id = _keeper(folder)
    if keeper_id and action not in _words(keeper_id):
        other = "with" if action == "keep" else "without"
        sys.exit(f"A cluster {other} a node is up in {folder}: end it first (make cluster-down), or give CLUSTER=...")
    if not keeper_id:
        shutil.rmtree(folder / "cluster", ignore_errors=True)
        (folder / "kubeconfig").unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "keeper.log", "wb") as log:
            command = [sys.executable, __file__, action, str(folder)]
            keeper = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        (folder / "keeper.pid").write_text(str(keeper.pid))
        while not (folder / "kubeconfig").exists():
            if keeper.poll() is not None:
                sys.exit(f"The cluster did not start:\n{(folder / 'keeper.log').read_text()}")
            time.sleep(0.1)
    return time.monotonic() - started


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
    actions = {"up": up, "up-node": up_node, "down": down, "keep": keep, "keep-node": keep_node}
    parser.add_argument("action", choices=actions)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    actions[arguments.action](arguments.folder.absolute())


if __name__ == "__main__":
    main()
