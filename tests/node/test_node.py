"""The node does what a node does: whatever fails above it is not its fault. And it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace_testbed.api import ApiError, Object
from headrace_testbed.cgroups import hierarchies
from headrace_testbed.control_plane import KubectlError
from headrace_testbed.images import reference
from headrace_testbed.node import Node
from headrace_testbed.node_daemons import PAUSE
from headrace_testbed.waiting import eventually

pytestmark = [pytest.mark.images("ray"), pytest.mark.timeout(900)]

_SECONDS = 180  # a pod is ready in 2; on a shared machine the first read of an image alone may take a minute
_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_ASK = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=60).read().decode())"
_SERVE = """
import http.server
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello")
    def log_message(self, *words): pass
print("listening", flush=True)
http.server.HTTPServer(("", 8080), Hello).serve_forever()
"""


def _pod(name: str, program: str, **container: Any) -> Object:
    body = {"name": "main", "image": reference("ray"), "imagePullPolicy": "Never", "securityContext": _SECURITY}
    body |= {"command": ["python3", "-c", program], "resources": {"requests": {"cpu": "10m"}}} | container
    spec = {"containers": [body], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def _state(node: Node, namespace: str, name: str) -> Object:
    return node.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")["status"]


def _until_ready(node: Node, namespace: str, name: str) -> None:
    def ready() -> bool:
        status = _state(node, namespace, name)
        assert any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ())), (
            status
        )
        return True

    eventually(ready, _SECONDS)


@pytest.fixture
def web(node: Node, namespace: str) -> str:
    """A pod "web" behind a Service "hello", which says so; the pod's name."""
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    node.api.apply(_pod("web", _SERVE, readinessProbe=probe), namespace=namespace)
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    node.api.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hello"}, "spec": spec}, namespace=namespace
    )
    _until_ready(node, namespace, "web")
    return "web"


def test_a_pod_gets_ready_tells_its_log_and_takes_commands(node: Node, namespace: str, web: str):
    assert node.kubectl("logs", "-n", namespace, web) == "listening\n"
    said = node.kubectl("exec", "-n", namespace, web, "--", "python3", "-c", "import os; print(os.getuid())")
    assert said == "65532\n"


def test_a_service_answers_other_pods_itself_the_node_and_tests(node: Node, namespace: str, web: str):
    node.api.apply(_pod("client", "import time; time.sleep(600)"), namespace=namespace)
    _until_ready(node, namespace, "client")
    for pod in ("client", web):
        for url in ("http://hello", f"http://hello.{namespace}.svc.cluster.local"):
            # kube-proxy learns of the Service no sooner than we do
            assert eventually(partial(_said, node, namespace, pod, url)) == "hello\n"
    inside = node.run(sys.executable, "-c", _ASK, f"http://hello.{namespace}")
    assert inside.stdout == "hello\n", inside.stderr
    address = node.forward_service(namespace, "hello", 80)
    assert httpx.get(f"http://{address}", timeout=60, trust_env=False).text == "hello"


def _said(node: Node, namespace: str, pod: str, url: str) -> str:
    """What POD hears from URL."""
    try:
        return node.kubectl("exec", "-n", namespace, pod, "--", "python3", "-c", _ASK, url)
    except KubectlError as error:
        raise AssertionError(error) from error


def test_a_pod_has_only_the_rights_of_its_account(node: Node, namespace: str):
    asking = """
import json, ssl, urllib.request
of = "/var/run/secrets/kubernetes.io/serviceaccount/"
url = "https://kubernetes.default.svc/api/v1/namespaces/" + open(of + "namespace").read() + "/pods"
ask = urllib.request.Request(url, headers={"Authorization": "Bearer " + open(of + "token").read()})
try:
    urllib.request.urlopen(ask, context=ssl.create_default_context(cafile=of + "ca.crt"), timeout=60)
    print(200)
except urllib.error.HTTPError as error:
    print(error.code)
"""
    node.api.apply(_pod("waiting", "import time; time.sleep(600)"), namespace=namespace)
    _until_ready(node, namespace, "waiting")
    ask = ("exec", "-n", namespace, "waiting", "--", "python3", "-c", asking)
    assert node.kubectl(*ask) == "403\n"
    node.kubectl(
        "create", "rolebinding", "-n", namespace, "see", "--clusterrole=view", f"--serviceaccount={namespace}:default"
    )
    eventually(lambda: node.kubectl(*ask) == "200\n")


def test_restricted_pod_security_refuses_a_pod_that_may_become_root(node: Node, namespace: str):
    with pytest.raises(ApiError, match="violates PodSecurity"):
        node.api.apply(_pod("root", "pass", securityContext={}), namespace=namespace)


def test_a_container_beyond_its_memory_is_killed_and_a_job_completes(node: Node, namespace: str):
    limited = {"requests": {"cpu": "10m"}, "limits": {"memory": "64Mi"}}
    node.api.apply(_pod("greedy", "b'x' * (200 << 20)", resources=limited), namespace=namespace)
    template = {"spec": _pod("job", "print(6 * 7)")["spec"]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": {"template": template}}
    node.api.apply(job, namespace=namespace)

    def killed() -> bool:
        status = _state(node, namespace, "greedy")
        states = [each["state"] for each in status.get("containerStatuses", ())]
        assert [each.get("terminated", {}).get("reason") for each in states] == ["OOMKilled"], status
        return True

    eventually(killed, _SECONDS)
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs/job"
    eventually(lambda: node.api.get(path).get("status", {}).get("succeeded") == 1, _SECONDS)
    assert node.kubectl("logs", "-n", namespace, "job/job") == "42\n"


def test_a_volume_keeps_what_one_pod_wrote_for_the_next(node: Node, namespace: str):
    node.make_volume(f"of-{namespace}")
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec}
    node.api.apply(claim, namespace=namespace)
    for name, program in (
        ("writer", "open('/data/x', 'w').write('kept')"),
        ("reader", "print(open('/data/x').read())"),
    ):
        pod = _pod(name, program, volumeMounts=[{"name": "data", "mountPath": "/data"}])
        pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        pod["spec"]["securityContext"] = {"fsGroup": 65532}
        node.api.apply(pod, namespace=namespace)
        eventually(lambda name=name: _state(node, namespace, name)["phase"] == "Succeeded", _SECONDS)
    assert node.kubectl("logs", "-n", namespace, "reader") == "kept\n"


# -- nothing is left ---------------------------------------------------------------------------------------------------

_ELSEWHERE = {
    "/etc": ("cni", "containerd", "kubernetes"),
    "/opt": ("cni",),
    "/run": ("containerd", "netns", "xtables.lock", "runc", "kubernetes"),
    "/usr/sbin": ("iptables", "runc"),
    "/var/lib": ("cni", "containerd", "kubelet"),
    "/var/log": ("containers", "pods"),
}
_SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
_HOLDER = """
import signal, sys
from pathlib import Path
from headrace_testbed.node import Node
with Node(Path(sys.argv[1])) as node:
    print(node.kubeconfig, flush=True)
    print(node.kubectl(*"run held --image".split(), sys.argv[2], "--image-pull-policy=Never"), flush=True)
    node.kubectl(*"wait --for=condition=Ready --timeout=240s pod/held".split())
    print("running", flush=True)
    signal.pause()
"""


def _inside(folder: Path) -> str:
    """The process namespace of the node in FOLDER."""
    (pid,) = re.findall(r"--target (\d+)", (folder / "nn").read_text())
    return os.readlink(f"/proc/{pid}/ns/pid")


def _processes(folder: Path, inside: str) -> list[str]:
    """What runs of the node in FOLDER: what names it, is in its cgroups, or is in its process namespace."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            told = [command, (process / "cgroup").read_text(), os.readlink(process / "cwd")]
            ours = os.readlink(process / "ns" / "pid") == inside
        except OSError:
            continue
        if int(process.name) != os.getpid() and (ours or any(folder.name in each for each in told)):
            found.append(command)
    return found


def _machine() -> dict[str, object]:
    """What a node might change of the machine."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return {
        "mounts": [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()],
        "interfaces": [line.split(": ")[1] for line in links.splitlines()],
        "sysctls": {name: Path("/proc/sys", name).read_text() for name in _SYSCTLS},
        "files": [Path(at, name).exists() for at, names in _ELSEWHERE.items() for name in names],
    }


def _cgroups(folder: Path) -> list[Path]:
    return [each for root in hierarchies() for each in root.glob(f"*{folder.name}*")]


def _big(folder: Path) -> list[str]:
    """What is in FOLDER besides logs and settings."""
    return [each for each in ("etcd", "kubelet", "volumes") if (folder / each).exists()]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name no other process says."""
    with tempfile.TemporaryDirectory(prefix="headrace-second-node-") as name:
        yield Path(name)


def test_a_node_that_ends_leaves_nothing_but_its_logs(folder: Path):
    before = _machine()
    with Node(folder) as second:
        second.kubectl(*f"run held --image {PAUSE} --image-pull-policy=Never".split())
        second.kubectl(*f"wait --for=condition=Ready --timeout={_SECONDS}s pod/held".split())
        inside = _inside(folder)
        assert _cgroups(folder)
        running = " ".join(_processes(folder, inside))
        assert all(each in running for each in ("kubelet", "containerd-shim", "/pause"))
        assert _machine()["interfaces"] == before["interfaces"]
    eventually(lambda: _processes(folder, inside) == [])  # the kernel ends the last of them by itself
    assert _cgroups(folder) == []
    assert _machine() == before
    assert _big(folder) == []


def test_a_node_whose_starter_is_killed_leaves_nothing_that_runs(folder: Path):
    before = _machine()
    command = [sys.executable, "-c", _HOLDER, str(folder), PAUSE]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as holder:
        assert holder.stdout is not None
        assert "running\n" in iter(holder.stdout.readline, ""), "the node of the test did not start"
        inside = _inside(folder)
        assert _cgroups(folder)
        holder.send_signal(signal.SIGKILL)
    eventually(lambda: (_processes(folder, inside), _cgroups(folder), _big(folder)) == ([], [], []))
    assert _machine() == before
