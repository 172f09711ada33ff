"""A sandbox's two processes: the guard outside, and process 1 inside. `headrace_testbed.sandbox` starts them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from headrace_testbed.cgroups import make_cgroups, remove_cgroups

ADDRESS = "10.89.0.2"
SERVICES = "10.96.0.0/16"
CORES = 8  # that the node says it has: pods of tests ask for whole ones as in production, and wait most of the time
_NUMA_NODE = Path("/sys/devices/system/node/node0")
_UNSHARE = ("unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc")
MYSELF = (sys.executable, "-m", "headrace_testbed.sandbox_process")
_OVERLAID = ("/etc", "/usr", "/var/lib", "/var/log")
# What a kubelet would write if it did not stand there already; these are not of a namespace but of the whole machine.
_FOR_THE_KUBELET = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
}
_RESOLV = f"search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver {ADDRESS}\noptions ndots:5\n"


def _guard(plan: dict[str, Any]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    make_cgroups(plan["name"])
    command = [*_UNSHARE, "--propagation", "private", *MYSELF, "inside", json.dumps(plan)]
    try:
        with subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdout=subprocess.PIPE) as outer:
            assert outer.stdout is not None
            if outer.stdout.readline():
                children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
                print(children[0], flush=True)
                sys.stdin.read()  # until whoever asked has ended
            outer.kill()
    finally:
        remove_cgroups(plan["name"])
        for each in plan["rubbish"]:
            shutil.rmtree(each, ignore_errors=True)


# -- process 1, inside -------------------------------------------------------------------------------------------------


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def _overlay(path: str, packages: Path) -> None:
    """Make PATH writable without touching what it is; PACKAGES' files of it on top."""
    own = Path("/run/overlays", path.strip("/").replace("/", "-"))
    for each in ("upper", "work"):
        (own / each).mkdir(parents=True)
    lower = [str(each) for each in (packages / path.strip("/"), Path(path)) if each.is_dir()]
    options = f"lowerdir={':'.join(lower)},upperdir={own}/upper,workdir={own}/work"
    _run("mount", "-t", "overlay", "overlay", "-o", options, path)


def _lay_out(packages: Path) -> None:
    _run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run")
    for path in _OVERLAID:
        _overlay(path, packages)
    for name in ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"):
        link = Path("/usr/sbin", name)  # which the package leaves to its installation
        link.unlink(missing_ok=True)
        link.symlink_to("xtables-nft-multi")
    Path("/etc/resolv.conf").unlink(missing_ok=True)
    Path("/etc/resolv.conf").write_text(_RESOLV)
    for name, value in _FOR_THE_KUBELET.items():
        stand_in = Path("/run/sysctl", name.replace("/", "."))
        stand_in.parent.mkdir(exist_ok=True)
        stand_in.write_text(value)
        _run("mount", "--bind", stand_in, Path("/proc/sys", name))
    if _NUMA_NODE.is_dir():
        _claim_cores()
    _run("mount", "--make-rshared", "/")


def _claim_cores() -> None:
    """Let the kubelet find CORES cores, whatever there are; what a pod may use is limited as ever.

    It counts folders, but takes their numbers for processors that must be there: so the same ones are told again, with
    one more zero before their number.
    """
    told, real = Path("/run/numa-node"), len(list(_NUMA_NODE.glob("cpu[0-9]*")))
    for number in range(CORES):
        topology = told / f"cpu{'0' * (number // real)}{number % real}" / "topology"
        topology.mkdir(parents=True)
        (topology / "core_id").write_text(str(number))
        (topology / "physical_package_id").write_text("0")
    (told / "meminfo").write_text((_NUMA_NODE / "meminfo").read_text())
    _run("mount", "--bind", told, _NUMA_NODE)


def _connect() -> None:
    """A network of one machine: an address that is not loopback, a way to the Services, none to the world."""
    for words in (
        "link set lo up",
        "link add node0 type veth peer name node1",
        f"address add {ADDRESS}/24 dev node0",
        "link set node0 up",
        "link set node1 up",
        f"route add {SERVICES} dev node0",
    ):
        _run("ip", *words.split())
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _inside(plan: dict[str, Any]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    _lay_out(Path(plan["packages"]))
    _connect()
    print("ready", flush=True)
    while True:
        signal.sigwait([signal.SIGCHLD])
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    {"guard": _guard, "inside": _inside}[sys.argv[1]](json.loads(sys.argv[2]))
