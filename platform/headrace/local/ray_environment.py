"""The environment and the command line of a Ray head that is a good neighbour.

Ray listens on every address unless told otherwise in four places, shares default ports and files between heads, and
reports usage; what is set here is why this one does not. Pure: a plan of a head to the words that start it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.base.home import home
from headrace.local import haproxy
from headrace.local.ports import PortBlock
from headrace.serving.ingress import TUNING

# What a person's shell may hold for Ray and Serve is meant for other clusters.
_FOREIGN = ("RAY_", "AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT")
_OF_A_RUN = ("HEADRACE_EVENTS", "HEADRACE_RUNNER", "TMPDIR")  # the run that starts a head ends before it
_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class HeadPlan:
    """Everything decided before a head is started."""

    ports: PortBlock
    serve_port: int
    token_path: Path
    runtime_folder: Path
    num_cpus: int
    num_gpus: int
    object_store_bytes: int
    haproxy_binary: str


def without_foreign(environment: Mapping[str, str]) -> dict[str, str]:
    """ENVIRONMENT less whatever points Ray at another cluster, and what belongs to the run that starts the head."""
    kept = {name: value for name, value in environment.items() if not name.startswith(_FOREIGN)}
    return {name: value for name, value in kept.items() if name not in _OF_A_RUN}


def connection_environment(token_path: Path) -> dict[str, str]:
    """What any process needs that talks to the head: drivers, steps, workers, the head itself."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its name says nothing of it: keeps every listener on 127.0.0.1
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
    }


def head_process_environment(plan: HeadPlan, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of the head's processes, and so of every worker and replica."""
    own = {"HEADRACE_HOME": str(home())}  # absolute: the head has a working directory of its own
    return without_foreign(environment) | own | connection_environment(plan.token_path) | _ray(plan) | _serve(plan)


def _ray(plan: HeadPlan) -> dict[str, str]:
    return {
        "AUTOSCALER_METRIC_PORT": str(plan.ports.port("autoscaler_metrics")),
        "DASHBOARD_METRIC_PORT": str(plan.ports.port("dashboard_metrics")),
        "HEADRACE_LOOPBACK": "1",
        # A machine whose only node is busy (a laptop that compiles, or sleeps) must not be declared dead for it: the
        # defaults end the whole head after 15 s without an answer.
        "RAY_health_check_timeout_ms": "60000",
        "RAY_health_check_failure_threshold": "20",
        "RAY_agent_register_timeout_ms": "300000",
        "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "120",
    }


def _serve(plan: HeadPlan) -> dict[str, str]:
    ports, files = plan.ports, plan.runtime_folder / "h"
    own = {
        "HAPROXY_NBTHREAD": str(max(1, min(4, plan.num_cpus // 4))),  # one thread passes on 30,000 requests/s
        # Files and ports of its own; the defaults are shared by all heads of a machine.
        "HAPROXY_BINARY_PATH": str(files / "haproxy"),
        "HAPROXY_CONFIG_FILE_LOC": str(files / "haproxy.cfg"),
        "HAPROXY_SOCKET_PATH": str(files / "s"),  # short: a socket's path has 107 bytes
        "HAPROXY_SERVER_STATE_BASE": str(files),
        "HAPROXY_SERVER_STATE_FILE": str(files / "server-state"),
        "HAPROXY_METRICS_SOCKET_PATH": str(files / "metrics.sock"),
        "HAPROXY_METRICS_PORT": str(ports.port("haproxy_metrics")),
        "HAPROXY_STATS_PORT": str(ports.port("haproxy_stats")),
        "FALLBACK_PROXY_HTTP_PORT": str(ports.port("fallback_http")),
        "FALLBACK_PROXY_GRPC_PORT": str(ports.port("fallback_grpc")),
        "DIRECT_INGRESS_MIN_HTTP_PORT": str(ports.replica_http[0]),
        "DIRECT_INGRESS_MAX_HTTP_PORT": str(ports.replica_http[1]),
        "DIRECT_INGRESS_MIN_GRPC_PORT": str(ports.replica_grpc[0]),
        "DIRECT_INGRESS_MAX_GRPC_PORT": str(ports.replica_grpc[1]),
    }
    named = {f"RAY_SERVE_{name}": value for name, value in own.items()}
    return TUNING | named | {haproxy.BINARY_VARIABLE: plan.haproxy_binary}


def head_command(plan: HeadPlan) -> list[str]:
    """The words that start the head in the foreground, every port chosen."""
    ports = plan.ports
    flags = {
        "--node-ip-address": "127.0.0.1",
        "--port": ports.port("gcs"),
        "--dashboard-host": "127.0.0.1",
        "--dashboard-port": ports.port("dashboard"),
        "--dashboard-agent-listen-port": ports.port("dashboard_agent_http"),
        "--dashboard-agent-grpc-port": ports.port("dashboard_agent_grpc"),
        "--metrics-export-port": ports.port("metrics_export"),
        "--runtime-env-agent-port": ports.port("runtime_env_agent"),
        "--ray-client-server-port": ports.port("client_server"),
        "--node-manager-port": ports.port("node_manager"),
        "--object-manager-port": ports.port("object_manager"),
        "--min-worker-port": ports.workers[0],
        "--max-worker-port": ports.workers[1],
        "--num-cpus": plan.num_cpus,
        "--num-gpus": plan.num_gpus,
        "--object-store-memory": plan.object_store_bytes,
        "--temp-dir": plan.runtime_folder / "r",
    }
    words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    words += ["--disable-usage-stats", "--no-monitor"]  # one node does not scale, and 20 processes are enough
    return [*words, *(f"{flag}={value}" for flag, value in flags.items())]


def object_store_bytes(memory_bytes: int, shared_memory_free_bytes: int) -> int:
    """How much Ray's object store takes: a tenth of the memory, at most 1 GiB and 80 % of what /dev/shm has free.

    Training and serving pass models and data through the store's files, not through Ray's object store.
    """
    wanted = min(memory_bytes // 10, 1024 * _MEBIBYTE, int(shared_memory_free_bytes * 0.8))
    return max(wanted, 80 * _MEBIBYTE)  # Ray refuses less than 75 MiB
