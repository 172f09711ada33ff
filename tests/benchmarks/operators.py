"""How many TrainingRuns one operator keeps right: cold start over N of them, and one change among them, beside kopf.

Each operator gets a fresh control plane (etcd, kube-apiserver, controller manager, scheduler; no fsync, no audit log,
no KubeRay) with N TrainingRuns in it, and is started. A run is reconciled when its RayJob is there and its status names
the RayJob's uid. Then runs are created one at a time: from the API server's answer until a watch shows the RayJob.

    python tests/benchmarks/operators.py [--runs 1000 10000 30000] [--only headrace kopf]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kubernetes" / "testbed"))

import httpx

from headrace.api.training_run import TrainingRunSpec
from headrace_operators.training_run.rayjob import Attempt, ray_job
from headrace_testbed.cache import cached
from headrace_testbed.control_plane import ControlPlane
from headrace_testbed.ours import install_crds, install_rbac
from headrace_testbed.processes import Daemon, free_port
from headrace_testbed.training_runs import training_run
from kuberay_double.install import collect_new_kinds, install_kuberay_kinds
from kuberay_double.wire import RAY_JOB, Resource, Wire

KOPF = "1.45.2"
NAMESPACE = "scale"
TRAINING_RUN = Resource("headrace.dev/v1alpha1", "TrainingRun", "trainingruns")
CHANGES = 200
_GIVE_UP_SECONDS = 3600
_MLFLOW = "http://127.0.0.1:9"  # nobody; nothing runs, so nobody is asked
Object = dict[str, Any]


@dataclass
class Result:
    """One line of the table."""

    operator: str
    runs: int
    seconds: float = 0.0
    peak_mib: float = 0.0
    idle_mib: float = 0.0
    cpu_seconds: float = 0.0
    server_cpu_seconds: float = 0.0
    requests: Counter[str] = field(default_factory=Counter)  # by the API server's count, on the kinds concerned
    own_requests: Counter[str] = field(default_factory=Counter)  # rest_client_requests_total, by method
    latencies: list[float] = field(default_factory=list)
    again_seconds: float = float("nan")  # started once more, with nothing to do
    again_writes: int = 0
    again_peak_mib: float = float("nan")
    load: float = 0.0

    def row(self) -> str:
        """As it stands in the table."""
        ordered = sorted(self.latencies) or [float("nan")]
        p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
        writes = {verb: count for verb, count in self.requests.items() if verb.partition(" ")[0] in _WRITES}
        cells = [f"{self.operator:<9}{self.runs:>7}{self.seconds:>8.1f}{self.runs / self.seconds:>8.0f}"]
        cells += [f"{self.peak_mib:>8.0f}{self.idle_mib:>8.0f}{self.cpu_seconds:>8.1f}{self.server_cpu_seconds:>8.1f}"]
        cells += [f"{sum(writes.values()) / self.runs:>8.2f}{p50 * 1000:>8.0f}{p99 * 1000:>8.0f}"]
        cells += [f"{self.again_seconds:>8.1f}{self.again_peak_mib:>8.0f}{self.load:>7.1f}"]
        return "".join(cells)


_WRITES = ("POST", "PATCH", "PUT", "DELETE", "APPLY")
HEADER = (
    f"{'operator':<9}{'runs':>7}{'seconds':>8}{'runs/s':>8}{'peak':>8}{'idle':>8}{'cpu s':>8}{'server':>8}{'writes':>8}"
    f"{'p50 ms':>8}{'p99 ms':>8}{'again':>8}{'peak':>8}{'load':>7}"
)
LEGEND = (
    "seconds: from the process's start until every run is reconciled. peak, idle: resident MiB. cpu s, server:\n"
    "CPU seconds of the operator, and of API server and etcd meanwhile. writes: a run.\n"
    "p50, p99: one new run among so many until its RayJob is seen. again: started once more, until it has looked at\n"
    "every run (kopf does not tell), and its peak. load: 1-minute load average when it began."
)


# -- what is measured --------------------------------------------------------------------------------------------------


def _manifest(name: str) -> Object:
    return training_run(name, _MLFLOW, workers=2)


def _template(folder: Path) -> Path:
    """Headrace's RayJob with the names left out, for kopf."""
    run = _manifest("RUN-NAME")
    run["metadata"] |= {"uid": "RUN-UID", "namespace": "RUN-NAMESPACE"}
    manifest = ray_job(run, TrainingRunSpec.model_validate(run["spec"]), Attempt(1, "registry.example/headrace:1"))
    path = folder / "ray-job.json"
    path.write_text(json.dumps(manifest))
    return path


async def _fill(kubeconfig: Path, names: list[str]) -> None:
    """Create TrainingRuns, 32 at a time."""
    async with Wire(kubeconfig) as wire:
        left = iter(names)

        async def worker() -> None:
            for name in left:
                await wire.request("POST", TRAINING_RUN.path(NAMESPACE), _manifest(name))

        await asyncio.gather(*(worker() for _ in range(32)))


async def _until_reconciled(wire: Wire, runs: int, at: str) -> None:
    """Follow the runs from the version AT until each names its RayJob. The API server serialises an event once for all
    who watch, so this costs it little; listing would cost it more than the operator does."""
    reconciled: set[str] = set()
    async with asyncio.timeout(_GIVE_UP_SECONDS):
        while len(reconciled) < runs:
            async for _, obj in wire.watch(TRAINING_RUN.path(NAMESPACE), at):
                at = obj["metadata"]["resourceVersion"]
                if (obj.get("status") or {}).get("rayJobUID"):
                    reconciled.add(obj["metadata"]["name"])
                    if len(reconciled) == runs:
                        break


async def _version(wire: Wire, resource: Resource) -> str:
    """The newest resource version."""
    page = await wire.request("GET", resource.path(NAMESPACE), limit="1")
    return str(page["metadata"]["resourceVersion"])


async def _latencies(wire: Wire, changes: int) -> list[float]:
    """Seconds from a new run's creation until its RayJob is seen, one after the other."""
    at = await _version(wire, RAY_JOB)
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def watch() -> None:
        async for type_, obj in wire.watch(RAY_JOB.path(NAMESPACE), at):
            if type_ == "ADDED":
                seen.put_nowait(obj["metadata"]["name"])

    watching = asyncio.create_task(watch())
    found = []
    for number in range(changes):
        name = f"late-{number}"
        await wire.request("POST", TRAINING_RUN.path(NAMESPACE), _manifest(name))
        started = time.monotonic()
        while await asyncio.wait_for(seen.get(), 60) != f"{name}-1":
            pass
        found.append(time.monotonic() - started)
        await asyncio.sleep(0.02)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return found


def _memory(pid: int, name: str) -> float:
    """VmHWM (the peak) or VmRSS of a process, in MiB."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024 if found else 0.0


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _server_cpu(plane: ControlPlane) -> float:
    return _cpu(plane.apiserver.pid) + _cpu(plane.etcd.pid)


def _served(plane: ControlPlane) -> Counter[str]:
    """Requests that the API server has answered, on the kinds concerned, by verb and resource."""
    found: Counter[str] = Counter()
    pattern = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
    for labels, value in pattern.findall(plane.api.request("GET", "/metrics")):
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if told["resource"] in ("trainingruns", "rayjobs", "events"):
            place = told["resource"] + (f"/{told['subresource']}" if told["subresource"] else "")
            found[f"{told['verb']} {place}"] += int(float(value))
    return found


def _own_requests(port: int) -> Counter[str]:
    found: Counter[str] = Counter()
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30).text
    for labels, value in re.findall(r"^rest_client_requests_total\{(.*)\} (\S+)$", text, re.MULTILINE):
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        found[f"{told['method']} {told['code']}"] += int(float(value))
    return found


async def _again(plane: ControlPlane, process: Daemon, port: int, result: Result) -> None:
    """Start the operator once more over the same runs: it must look at each, and write nothing."""
    process.kill()
    before, started = _served(plane), time.monotonic()
    process.start()
    while _reconciled(port) < result.runs + CHANGES:
        await asyncio.sleep(0.25)
    result.again_seconds = time.monotonic() - started
    result.again_peak_mib = _memory(process.pid, "VmHWM")
    await asyncio.sleep(2)
    served = _served(plane) - before
    result.again_writes = sum(count for name, count in served.items() if name.partition(" ")[0] in _WRITES)


def _reconciled(port: int) -> int:
    """How many plans for TrainingRuns the operator has carried out."""
    try:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=30).text
    except httpx.TransportError:
        return 0
    pattern = r'^controller_runtime_reconcile_total\{controller="trainingrun",.*\} (\S+)$'
    return sum(int(float(value)) for value in re.findall(pattern, text, re.MULTILINE))


# -- the operators -----------------------------------------------------------------------------------------------------


def _headrace(plane: ControlPlane, port: int) -> Daemon:
    install_rbac(plane, NAMESPACE)
    kubeconfig = plane.kubeconfig_for_service_account(NAMESPACE, "headrace-operator")
    flags = ["--namespace", NAMESPACE, "--kubeconfig", str(kubeconfig), "--no-leader-election", "--health-address", ""]
    flags += ["--metrics-address", f"127.0.0.1:{port}", "--log-level", "warning"]
    path = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return Daemon(
        "headrace", [Path(sys.executable).parent / "headrace", "operator", *flags], plane.folder / "op.log", path
    )


def _kopf(plane: ControlPlane, port: int) -> Daemon:
    def fill(folder: Path) -> None:
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "-q", "--python", sys.executable, folder / "venv"], check=True)
        python = folder / "venv" / "bin" / "python"
        subprocess.run(
            [*uv, "pip", "install", "-q", "--python", python, f"kopf=={KOPF}", "aiohttp", "pyyaml"], check=True
        )

    venv = cached(f"bench-kopf-{KOPF}-{sys.version_info.major}.{sys.version_info.minor}", fill) / "venv"
    environment = {"KUBECONFIG": str(plane.kubeconfig), "RAY_JOB_TEMPLATE": str(_template(plane.folder))}
    file = Path(__file__).parent / "peers" / "kopf_operator.py"
    command = [venv / "bin" / "python", "-m", "kopf", "run", "--standalone", "--quiet", "-n", NAMESPACE, file]
    return Daemon("kopf", command, plane.folder / "op.log", environment)


OPERATORS: dict[str, Callable[[ControlPlane, int], Daemon]] = {"headrace": _headrace, "kopf": _kopf}


def measure(operator: str, runs: int) -> Result:
    """Measure one operator over so many runs."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-bench-operators-"))
    with ControlPlane(folder) as plane:
        install_kuberay_kinds(plane)
        install_crds(plane)
        collect_new_kinds(plane)
        plane.api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        port = free_port()
        process = OPERATORS[operator](plane, port)
        asyncio.run(_fill(plane.kubeconfig, [f"run-{number}" for number in range(runs)]))
        time.sleep(5)  # the control plane comes to rest
        result = Result(operator, runs, load=os.getloadavg()[0])
        try:
            asyncio.run(_measure(plane, process, port, result))
        finally:
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)
    return result


async def _measure(plane: ControlPlane, process: Daemon, port: int, result: Result) -> None:
    async with Wire(plane.kubeconfig) as wire:
        at = await _version(wire, TRAINING_RUN)
        before, started, server = _served(plane), time.monotonic(), _server_cpu(plane)
        process.start()
        await _until_reconciled(wire, result.runs, at)
        result.seconds = time.monotonic() - started
        result.server_cpu_seconds = _server_cpu(plane) - server
        result.cpu_seconds, result.peak_mib = _cpu(process.pid), _memory(process.pid, "VmHWM")
        await asyncio.sleep(5)
        result.requests = _served(plane) - before
        result.idle_mib = _memory(process.pid, "VmRSS")
        if result.operator == "headrace":
            result.own_requests = _own_requests(port)
        result.latencies = await _latencies(wire, CHANGES)
        if result.operator == "headrace":
            await _again(plane, process, port, result)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, nargs="+", default=[1000], help="How many TrainingRuns. Default 1000.")
    parser.add_argument("--only", nargs="+", choices=list(OPERATORS), default=list(OPERATORS), help="Default: both.")
    asked = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}, kopf {KOPF}\n\n{HEADER}", flush=True)
    results = []
    for runs in asked.runs:
        for operator in asked.only:
            results.append(measure(operator, runs))
            print(results[-1].row(), flush=True)
    print(f"\n{LEGEND}\n\nrequests by the API server's count, in the cold start:")
    for result in results:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(result.requests.items()))
        print(f"  {result.operator} {result.runs}: {counts}")
        if result.operator == "headrace":
            print(f"  headrace {result.runs}: started again it wrote {result.again_writes} times")
        if result.own_requests:
            own = ", ".join(f"{name} {count}" for name, count in sorted(result.own_requests.items()))
            print(f"  {result.operator} {result.runs}, its own rest_client_requests_total: {own}")


if __name__ == "__main__":
    main()
