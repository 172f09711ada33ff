"""What pods take, read from their cgroups: memory that the kernel could not take back, and processor time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace_testbed.api import Object
from headrace_testbed.control_plane import ControlPlane

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Footprint:
    """What one pod takes.

    Args:
        mebibytes: its working set, as the kubelet counts it: memory used less file pages that were not used of late.
        cpus: processors that it used on average, while it was looked at.
    """

    mebibytes: float
    cpus: float


def footprints(plane: ControlPlane, namespace: str, seconds: float) -> dict[str, Footprint]:
    """Of the running pods of NAMESPACE by component, looked at for SECONDS."""
    running = {
        each["metadata"]["labels"].get("app.kubernetes.io/component", each["metadata"]["name"]): each
        for each in plane.api.list(f"/api/v1/namespaces/{namespace}/pods")
        if each["status"]["phase"] == "Running"
    }
    before = {name: _cpu_seconds(pod) for name, pod in running.items()}
    started = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - started
    return {
        name: Footprint(_working_set(pod) / 2**20, (_cpu_seconds(pod) - before[name]) / took)
        for name, pod in running.items()
    }


def table(found: Mapping[str, Footprint]) -> str:
    """FOUND as Markdown, with its sum."""
    rows = [*sorted(found.items()), ("all", total(found))]
    lines = [f"| {name} | {each.mebibytes:.0f} | {each.cpus * 1000:.0f} |" for name, each in rows]
    return "\n".join(["| pod | memory MiB | CPU m |", "|---|---|---|", *lines])


def total(found: Mapping[str, Footprint]) -> Footprint:
    """The sum."""
    return Footprint(sum(each.mebibytes for each in found.values()), sum(each.cpus for each in found.values()))


def _group(pod: Object, *controllers: str) -> Path:
    """The pod's folder in the hierarchy of one of CONTROLLERS, or in the only one (version 2)."""
    for root in (*(_ROOT / name for name in controllers), _ROOT):
        if root.is_dir() and (found := next(root.glob(f"headrace-node-*/**/pod{pod['metadata']['uid']}"), None)):
            return found
    raise AssertionError(f"the pod {pod['metadata']['name']} has no cgroup below {_ROOT}")


def _numbers(file: Path) -> dict[str, int]:
    return {name: int(number) for name, number in (line.split() for line in file.read_text().splitlines())}


def _working_set(pod: Object) -> int:
    group = _group(pod, "memory")
    if (group / "memory.usage_in_bytes").exists():
        used = int((group / "memory.usage_in_bytes").read_text())
        return used - _numbers(group / "memory.stat")["total_inactive_file"]
    return int((group / "memory.current").read_text()) - _numbers(group / "memory.stat")["inactive_file"]


def _cpu_seconds(pod: Object) -> float:
    group = _group(pod, "cpuacct", "cpu,cpuacct")
    if (group / "cpuacct.usage").exists():
        return int((group / "cpuacct.usage").read_text()) / 1e9
    return _numbers(group / "cpu.stat")["usage_usec"] / 1e6
