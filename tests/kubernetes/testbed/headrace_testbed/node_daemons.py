"""The daemons that make a machine a node, with their settings: containerd, kubelet, kube-proxy and a DNS server."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from headrace_testbed.api import Object
from headrace_testbed.builds import program
from headrace_testbed.processes import Daemon
from headrace_testbed.sandbox_process import ADDRESS

PAUSE = "headrace.testbed/pause:1"
CONTAINERD = "/run/containerd/containerd.sock"
DNS_READY = 8181
KUBELET_HEALTH = 10248
NAME = "node"
_PODS = "10.244.0.0/24"
_CONTAINERD_TOML = """\
version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
disable_apparmor = true
sandbox_image = "{pause}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"
"""
# Routed pods, each with a cable of its own: a Service's way back to the pod that asks needs no bridge netfilter.
_CNI: Object = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "ptp",
            "ipMasq": False,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": _PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
_COREFILE = """\
.:53 {{
    bind {address}
    ready {address}:{ready}
    errors
    kubernetes cluster.local {{
        kubeconfig {kubeconfig}
        ttl 0
    }}
}}
"""


class NodeDaemons:
    """The daemons with their files in FOLDER, none of them started; PREFIX before a command runs it in the sandbox."""

    def __init__(self, folder: Path, prefix: tuple[str, ...], images: Path, cgroup: str) -> None:
        self._folder, self._prefix, self._images, self._cgroup = folder, prefix, images, cgroup

    def _daemon(self, name: str | Path, *flags: str | Path) -> Daemon:
        return Daemon(Path(name).name, [*self._prefix, name, *flags], self._folder / f"{Path(name).name}.log")

    def containerd(self) -> Daemon:
        """The container runtime."""
        cni = self._folder / "cni"
        cni.mkdir(exist_ok=True)
        (cni / "10-pods.conflist").write_text(json.dumps(_CNI))
        config = self._folder / "containerd.toml"
        config.write_text(_CONTAINERD_TOML.format(root=self._images, socket=CONTAINERD, pause=PAUSE, cni=cni))
        return self._daemon("containerd", "--config", config)

    def kubelet(self, kubeconfig: Path, ca_file: Path) -> Daemon:
        """What runs pods."""
        own = self._folder / "kubelet"
        own.mkdir(exist_ok=True)
        (self._folder / "resolv.empty").touch()
        config = self._folder / "kubelet.yaml"
        config.write_text(yaml.safe_dump(self._kubelet_config(ca_file)))
        flags = [f"--config={config}", f"--kubeconfig={kubeconfig}", f"--root-dir={own}", f"--cert-dir={own / 'pki'}"]
        return self._daemon(program("kubelet"), *flags, f"--hostname-override={NAME}", f"--node-ip={ADDRESS}")

    def _kubelet_config(self, ca_file: Path) -> Object:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(ca_file)}},
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._cgroup}",
            "oomScoreAdj": 0,
            "failSwapOn": False,
            "clusterDNS": [ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self._folder / "resolv.empty"),
            "podLogsDir": str(self._folder / "pod-logs"),
            "volumePluginDir": str(self._folder / "volume-plugins"),
            "localStorageCapacityIsolation": False,
            "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            # No registry can give an image back.
            "imageGCHighThresholdPercent": 100,
            "serializeImagePulls": False,
        }

    def kube_proxy(self, kubeconfig: Path) -> Daemon:
        """What makes Services reachable."""
        flags = [f"--kubeconfig={kubeconfig}", f"--hostname-override={NAME}", f"--cluster-cidr={_PODS}"]
        flags += ["--proxy-mode=iptables", "--oom-score-adj=0", "--conntrack-max-per-core=0", "--conntrack-min=0"]
        flags += ["--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s"]
        return self._daemon(program("kube-proxy"), *flags)

    def coredns(self, kubeconfig: Path) -> Daemon:
        """What resolves Services' names."""
        corefile = self._folder / "Corefile"
        corefile.write_text(_COREFILE.format(address=ADDRESS, ready=DNS_READY, kubeconfig=kubeconfig))
        return self._daemon(program("coredns"), "-conf", corefile)


def dns_rights() -> list[Object]:
    """What the DNS server may read."""
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": rules,
        },
        binding("system:coredns", "system:coredns"),
        binding("system:node-proxier-of-the-test-bed", "system:node-proxier", "system:kube-proxy"),
    ]


def binding(name: str, role: str, user: str = "") -> Object:
    """USER (NAME, if not told) has the rights of ROLE."""
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user or name}],
    }
