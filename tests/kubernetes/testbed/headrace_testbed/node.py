"""A Kubernetes cluster of one node of this process's own: real pods, as root, leaving nothing behind.

A control plane like the other tests' and beside it containerd, a kubelet, kube-proxy and a DNS server, all in a sandbox
without a way out. Tests stand outside and reach in: the API server as always, Services and pods through `forward`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from headrace_testbed.api import ApiError, Object
from headrace_testbed.components import Place
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.debian import debian_packages
from headrace_testbed.doors import Doors
from headrace_testbed.image_store import take_store
from headrace_testbed.node_daemons import DNS_READY, NAME, NodeDaemons, dns_rights
from headrace_testbed.node_images import Importer, fingerprint, lacking, pause_image
from headrace_testbed.oci import Image
from headrace_testbed.sandbox import Sandbox
from headrace_testbed.sandbox_process import ADDRESS

START_SECONDS = 180  # 5 on a quiet machine
_PACKAGES = ("containerd", "runc", "containernetworking-plugins", "iptables", "conntrack")


def packages() -> Path:
    """Debian's packages of a node, unpacked first if they are missing."""
    return debian_packages("node", *_PACKAGES)


def prepare(images: Sequence[Image] = ()) -> None:
    """Do what may take minutes, once: unpack Debian's packages, and IMAGES into the store."""
    node = Node(images=images)
    try:
        node.start_runtime()
    finally:
        node.stop()
        shutil.rmtree(node.folder, ignore_errors=True)


class Node(ControlPlane):
    """A control plane and a node, with their files in FOLDER; a context manager. IMAGES are there from the start."""

    def __init__(
        self, folder: Path | None = None, audit_policy: Object | None = None, images: Sequence[Image] = ()
    ) -> None:
        folder = folder or Path(tempfile.mkdtemp(prefix="headrace-node-"))
        folder.mkdir(parents=True, exist_ok=True)
        cgroup = f"headrace-node-{os.getpid()}-{folder.name}"
        self.sandbox = Sandbox(cgroup, folder, packages(), rubbish=("etcd", "kubelet", "volumes"))
        super().__init__(folder, audit_policy, Place(self.sandbox.prefix, ADDRESS))
        self._images = [pause_image(), *images]
        self._store = take_store([layer for image in self._images for layer in image.layers])
        self._importer = Importer(self.sandbox.prefix, self._store)
        self._doors = Doors(self.sandbox)
        self._open_ports: set[int] = set()
        parts = NodeDaemons(folder, self.sandbox.prefix, self._store.root, cgroup)
        self.containerd = parts.containerd()
        self.kubelet = parts.kubelet(
            self._kubeconfig_of("kubelet", f"system:node:{NAME}", "system:nodes"), self.pki.ca_file
        )
        self.kube_proxy = parts.kube_proxy(self._kubeconfig_of("kube-proxy", "system:kube-proxy"))
        self.coredns = parts.coredns(self._kubeconfig_of("coredns", "system:coredns"))

    def _kubeconfig_of(self, name: str, user: str, group: str = "") -> Path:
        return self._parts.kubeconfig(name, self.pki.client(name, user, group))

    # -- its life -----------------------------------------------------------------------------------------------------

    def start_runtime(self) -> None:
        """Start the container runtime, with its images."""
        self._store.begin()
        self.sandbox.start()
        self._start_containerd()
        self._prepare_images()

    def start(self) -> None:
        """Start all of it and wait until pods run."""
        self.start_runtime()
        for url in (self.url, self._parts.etcd_url):
            self.open_loopback(int(url.rpartition(":")[2]))
        super().start()
        for manifest in dns_rights():
            self.api.apply(manifest, "testbed", force=True)
        for daemon in (self.coredns, self.kubelet, self.kube_proxy):
            daemon.start()
        self.coredns.wait_for(lambda: self._answers(DNS_READY), START_SECONDS)
        self.kubelet.wait_for(self._ready, START_SECONDS)

    def stop(self) -> None:
        """End all of it; nothing is left but logs."""
        self.sandbox.stop()  # all daemons end with it
        super().stop()
        for daemon in (self.kube_proxy, self.kubelet, self.coredns, self.containerd):
            daemon.kill()
        self._doors.close()
        self._store.close()

    def _start_containerd(self) -> None:
        self.containerd.start()
        self.containerd.wait_for(self._importer.answers, START_SECONDS)

    def _ready(self) -> bool:
        with contextlib.suppress(ApiError):
            conditions = self.api.get(f"/api/v1/nodes/{NAME}")["status"]["conditions"]
            return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
        return False

    def _answers(self, port: int) -> bool:
        try:
            self.connect(ADDRESS, port).close()
        except OSError:
            return False
        return True

    # -- its images ---------------------------------------------------------------------------------------------------

    def import_image(self, image: Image) -> None:
        """Give it IMAGE for as long as it lives."""
        self._importer.give(image)

    def _prepare_images(self) -> None:
        """Bring what the store does not remember yet, and have it remembered."""
        if new := lacking(self._store, self._images):
            for image in new:
                print(f"  unpacking the image {image.name} ({image.size / 1e6:.0f} MB) ...", flush=True)
                self._importer.give(image)
            outdated = self._importer.forget_other_tags(self._store.images, self._images)
            self.containerd.stop()
            self._store.share(layer for image in self._images for layer in image.layers)
            known = {name: mark for name, mark in self._store.images.items() if name not in outdated}
            self._store.put_aside(known | {each.name: fingerprint(each) for each in new})
            self._start_containerd()

    # -- its volumes --------------------------------------------------------------------------------------------------

    def make_volume(self, name: str, size: str = "1Gi") -> None:
        """A PersistentVolume without a class, which the next claim that fits takes. It goes with the node."""
        folder = self.folder / "volumes" / name
        folder.mkdir(parents=True)
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NAME]}
        spec = {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        }
        self.api.post("/api/v1/persistentvolumes", {"metadata": {"name": name}, "spec": spec})

    # -- ways in ------------------------------------------------------------------------------------------------------

    def connect(self, address: str, port: int) -> socket.socket:
        """A connection, usable here, to ADDRESS inside: a pod's, a Service's, the node's or its loopback."""
        return self._doors.connect(address, port)

    def open_loopback(self, port: int) -> None:
        """Make PORT of the sandbox's loopback the same port of this machine's."""
        if port not in self._open_ports:
            self._open_ports.add(self._doors.open("127.0.0.1", port, port))

    def forward(self, address: str, port: int) -> str:
        """`127.0.0.1:PORT` here, behind which is ADDRESS inside, as long as the node lives."""
        return f"127.0.0.1:{self._doors.open(address, port)}"

    def forward_service(self, namespace: str, name: str, port: int) -> str:
        """The same for a Service with a ClusterIP."""
        service = self.api.get(f"/api/v1/namespaces/{namespace}/services/{name}")
        return self.forward(service["spec"]["clusterIP"], port)

    def run(self, *command: str | Path, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run COMMAND inside, where Services have their names."""
        whole = [*self.sandbox.prefix, *command]
        return subprocess.run(whole, capture_output=True, text=True, timeout=seconds, check=False)
