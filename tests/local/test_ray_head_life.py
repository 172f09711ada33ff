"""A Ray head's life among others: killed, stopped, its port taken, beside a Ray that belongs to somebody else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from headrace.base.processes import ProcessRef, end_session, session_members
from headrace.local.deployments import bring_back, deploy, deployments, undeploy
from headrace.local.desired_state import Deployment
from headrace.local.ports import free_block
from headrace.local.ray_environment import without_foreign
from headrace.local.ray_head import Head, ensure_head, find_head, head_environment, stop_head
from headrace.serving.contract import StableVersion
from headrace.serving.v2_client import infer

pytestmark = pytest.mark.timeout(900)  # a head on a busy machine takes a minute, and several tries
NAME = "life-digits"


def start_neighbour(folder: Path) -> ProcessRef | None:
    """A Ray head of somebody else, started as its manual says; None if it ended while it started (a busy machine)."""
    with free_block(f"neighbour{folder}") as ports:
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
            f"--port={ports.port('gcs')}", f"--dashboard-port={ports.port('dashboard')}", "--num-cpus=1",
            f"--dashboard-agent-listen-port={ports.port('dashboard_agent_http')}", f"--temp-dir={folder}",
            f"--min-worker-port={ports.workers[0]}", f"--max-worker-port={ports.workers[1]}",
            f"--ray-client-server-port={ports.port('client_server')}", "--object-store-memory=80000000",
        ]  # fmt: skip
        patience = {  # as our own head has: a busy machine is no dead one
            "RAY_health_check_timeout_ms": "60000",
            "RAY_health_check_failure_threshold": "20",
            "RAY_agent_register_timeout_ms": "300000",
            "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "120",
        }
        environment = without_foreign(os.environ) | patience
        environment.pop("HEADRACE_HOME")
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        leader = ProcessRef.of(process.pid)
        assert leader is not None
        while leader.alive():
            if "Ray runtime started" in log.read_text():
                return leader
            time.sleep(0.2)
        print(log.read_text()[-300:])
        end_session(leader, grace_seconds=1.0)
        return None


@pytest.fixture(scope="module")
def neighbour() -> Iterator[ProcessRef]:
    with tempfile.TemporaryDirectory(prefix="nb", dir="/tmp", ignore_cleanup_errors=True) as folder:
        leader = next(filter(None, (start_neighbour(Path(folder)) for _ in range(3))), None)
        assert leader is not None
        yield leader
        end_session(leader, grace_seconds=1.0)


@pytest.fixture(scope="module")
def url(head: Head, digits_package: Callable[[str], StableVersion]) -> Iterator[str]:
    ensure_head(print)
    yield deploy(Deployment(NAME, "digits", digits_package("1")), tell=print)["url"]
    ensure_head(print)
    undeploy(NAME)


def members(leader: ProcessRef) -> set[int]:
    return {member.pid for member in session_members(leader.pid)}


LASTING = (b"gcs_server", b"raylet", b"dashboard", b"agent")


def lasting(leader: ProcessRef) -> set[int]:
    """Of a head's processes those that live as long as it does: Ray starts and ends workers as it sees fit."""
    found = set()
    for member in session_members(leader.pid):
        try:
            command = Path(f"/proc/{member.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if any(word in command for word in LASTING):
            found.add(member.pid)
    return found


def look_for_the_head() -> tuple[Head | None, float]:
    """What `find_head` gives, and the seconds that it takes, the best of a few: a machine may be busy for a moment."""
    looks = []
    for _ in range(5):
        started = time.monotonic()
        found = find_head()
        looks.append((time.monotonic() - started, found))
    assert len({look[1] for look in looks}) == 1
    return looks[0][1], min(look[0] for look in looks)


def wait_until_ready(head: Head) -> str:
    record = next(record for record in bring_back(head, tell=print, timeout_seconds=400) if record["name"] == NAME)
    assert (record["state"], record["error"]) == ("ready", None)
    answer = infer(record["url"], {"image": np.zeros((1, 8, 8, 1), np.uint8)})
    assert answer.version == "1"
    return str(record["url"])


def test_a_head_is_found_within_a_second_and_asked_for_again_is_the_same(head: Head, url: str) -> None:
    found, seconds = look_for_the_head()
    assert seconds < 1.0
    assert found is not None
    told: list[str] = []
    assert ensure_head(told.append) == found
    assert told == []


def test_drivers_connect_with_its_environment_and_not_without(head: Head, url: str) -> None:
    found = ensure_head(print)
    program = f"""
import time, ray
ray.init({found.address!r}, log_to_driver=False, logging_level="ERROR")
since = time.monotonic()
while (free := ray.available_resources().get("CPU", 0)) < {found.num_cpus} and time.monotonic() - since < 60:
    time.sleep(0.1)  # what was done before is given back a little later
print("CPUS", int(ray.cluster_resources()["CPU"]), int(free))
"""
    environment = without_foreign(os.environ) | head_environment(found)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=400, check=True
    )
    assert f"CPUS {found.num_cpus} {found.num_cpus}" in done.stdout  # the front reserves none


def test_a_killed_head_is_cleared_away_and_its_endpoints_come_back(neighbour: ProcessRef, head: Head, url: str) -> None:
    beside = lasting(neighbour)
    assert beside
    before = ensure_head(print)
    os.kill(before.leader.pid, signal.SIGKILL)
    assert before.leader.wait(30)
    found, seconds = look_for_the_head()
    assert found is None
    assert seconds < 1.0
    assert [record["state"] for record in deployments() if record["name"] == NAME] == ["stopped"]
    told: list[str] = []
    with ThreadPoolExecutor(2) as callers:  # two commands at the same moment
        first, second = callers.map(lambda _: ensure_head(told.append), range(2))
    assert first == second
    assert first.leader != before.leader
    assert members(before.leader) == set()
    assert "clearing away what a Ray head left that was killed" in told
    assert any(line.startswith("bringing back") for line in told)
    assert wait_until_ready(first) == url
    assert neighbour.alive()
    assert beside - members(neighbour) == set()


def test_a_stopped_head_leaves_nothing_and_moves_its_endpoints_only_if_their_port_is_taken(
    neighbour: ProcessRef, head: Head, url: str
) -> None:
    before = ensure_head(print)
    started = time.monotonic()
    assert stop_head()
    print(f"stopped in {time.monotonic() - started:.1f} s")
    assert members(before.leader) == set()
    assert not stop_head()
    assert neighbour.alive()
    told: list[str] = []
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", before.serve_port))
        stranger.listen()
        after = ensure_head(told.append)
    assert after.serve_port != before.serve_port
    assert any(f"port {before.serve_port} is taken by another program" in line for line in told)
    assert wait_until_ready(after) == f"http://127.0.0.1:{after.serve_port}/{NAME}"
    assert neighbour.alive()
