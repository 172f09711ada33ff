"""What is decided before a Ray head is started or told anything: ports, environment, records, wishes, verdicts."""

from __future__ import annotations

import json
import os
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from headrace.base.aws import aws_fingerprint
from headrace.base.errors import HeadraceError, InvalidInput, Unavailable
from headrace.base.processes import ProcessRef
from headrace.local import desired_state, head_record, ports, ray_head
from headrace.local.deployments import deploy, deployments, judge, undeploy
from headrace.local.desired_state import Deployment
from headrace.local.head_record import Head
from headrace.local.ray_environment import (
    HeadPlan,
    connection_environment,
    head_command,
    head_process_environment,
    object_store_bytes,
)
from headrace.serving.client import FrontReplicas, application_record, front_statuses, replicas_of, serve_record
from headrace.serving.contract import FrontConfig, FrontStatus, StableVersion

STABLE = StableVersion("3", "/store/packages/abc", "a" * 64)
PLAN = HeadPlan(
    ports=ports.PortBlock(20_000),
    serve_port=8000,
    token_path=Path("/h/ray/token"),
    runtime_folder=Path("/h/ray/h1"),
    num_cpus=2,
    num_gpus=0,
    object_store_bytes=100,
    haproxy_binary="/env/haproxy",
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))


def head_of(leader: ProcessRef, tmp_path: Path) -> Head:
    token = tmp_path / "token"
    token.write_text("secret")
    return Head(
        "127.0.0.1:1", "http://127.0.0.1:2", 8000, token, 2, 0, tmp_path / "r", tmp_path / "log", leader, 20_000
    )


# S3


def test_a_head_that_reaches_s3_otherwise_is_refused_only_where_s3_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one:7070")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    head = replace(head_of(ProcessRef.current(), tmp_path), aws=aws_fingerprint())
    head_record.write_head(head)
    assert head_record.read_head() == head
    assert "very-secret" not in head_record.path().read_text()
    ray_head.require_same_s3(head, "s3://bucket/store")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://another:7070")
    ray_head.require_same_s3(head, "/a/folder", "https://host/data", None)
    with pytest.raises(Unavailable, match="other AWS_") as error:
        ray_head.require_same_s3(head, "/a/folder", "s3://bucket/data")
    assert "headrace down" in error.value.action


# ports


def test_the_ports_of_a_block_do_not_overlap() -> None:
    block = ports.PortBlock(20_000)
    fixed = [block.port(name) for name in ports._FIXED]
    ranges = [range(first, last + 1) for first, last in (block.replica_http, block.replica_grpc, block.workers)]
    taken = [*fixed, *(port for ports_of_range in ranges for port in ports_of_range)]
    assert len(taken) == len(set(taken))
    assert min(taken) == 20_000
    assert max(taken) < 20_000 + ports.BLOCK


def test_a_block_with_a_port_in_use_or_marked_by_another_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    order = list(range(ports.FIRST, ports.LAST, ports.BLOCK))
    random.Random("home").shuffle(order)
    monkeypatch.setattr(ports, "is_free", lambda port: not order[0] <= port < order[0] + 1)
    monkeypatch.setattr(ports, "MARK", f"test-{os.getpid()}")  # a head that starts meanwhile does not disturb
    with ports.free_block("home") as first:
        assert first.first == order[1]
        with ports.free_block("home") as second:  # as another command at the same moment would
            assert second.first == order[2]
    with ports.free_block("home") as again:
        assert again == first


def test_no_free_block_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(Unavailable, match="consecutive free ports"), ports.free_block("home"):
        pass


def test_the_endpoints_keep_their_port_unless_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port != 8000)
    assert ports.free_serve_port(8042) == 8042
    assert ports.free_serve_port(8000) == 8001
    assert ports.free_serve_port(None) == 8001
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(Unavailable):
        ports.free_serve_port(None)


def test_two_headraces_that_start_at_once_have_two_ports_for_their_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port != 8000)
    monkeypatch.setattr(ports, "MARK", f"test-{os.getpid()}")
    with ports.serve_port(8042) as first, ports.serve_port(8042) as second, ports.serve_port(None) as third:
        assert (first, second, third) == (8042, 8001, 8002)
    with ports.serve_port(8042) as again:
        assert again == 8042
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(Unavailable), ports.serve_port(None):
        pass


def test_a_port_is_waited_for_until_somebody_listens_or_time_is_up() -> None:
    with socket.socket() as endpoints:
        endpoints.bind(("127.0.0.1", 0))
        port = endpoints.getsockname()[1]
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(ports.wait_until_bound, port, 60)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            endpoints.listen()
            waiting.result(30)
    ports.wait_until_bound(port, 0.2)


def test_a_bound_port_is_not_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert not ports.is_free(taken.getsockname()[1])


# environment


def test_the_heads_environment_keeps_it_on_loopback_and_private() -> None:
    environment = head_process_environment(PLAN, {"PATH": "/bin", "RAY_ADDRESS": "elsewhere:1", "HEADRACE_HOME": "/h"})
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["HEADRACE_LOOPBACK"] == "1"
    assert environment["PATH"] == "/bin"
    assert "RAY_ADDRESS" not in environment
    assert connection_environment(PLAN.token_path).items() <= environment.items()


def test_the_head_inherits_nothing_of_the_run_that_starts_it(tmp_path: Path) -> None:
    given = {
        "HEADRACE_EVENTS": "/h/runs/a/events.jsonl",
        "HEADRACE_SERVE_MAX_REQUESTS": "9",
        "TMPDIR": str(tmp_path / "runs" / "a" / "tmp"),
        "HEADRACE_HOME": "relative",
    }
    environment = head_process_environment(PLAN, given)
    assert "HEADRACE_EVENTS" not in environment
    assert "TMPDIR" not in environment
    assert environment["HEADRACE_SERVE_MAX_REQUESTS"] == "9"
    assert environment["HEADRACE_HOME"] == str(tmp_path)


def test_every_port_and_file_of_the_head_is_its_own() -> None:
    environment = head_process_environment(PLAN, {})
    numbers = [int(value) for name, value in environment.items() if name.endswith("_PORT")]
    assert len(numbers) == 10
    assert all(20_000 <= number < 21_000 for number in numbers)
    files = [value for name, value in environment.items() if "HAPROXY" in name and "/" in value]
    assert all(value.startswith("/h/ray/h1") for value in files if value != "/env/haproxy")


def test_the_heads_command_leaves_no_port_to_chance() -> None:
    command = head_command(PLAN)
    assert "--head" in command
    assert "--block" in command
    assert "--node-ip-address=127.0.0.1" in command
    flags = dict(word.split("=", 1) for word in command if "=" in word)
    given = {name: int(value) for name, value in flags.items() if name.endswith("-port")}
    assert len(given) == len(set(given.values())) == 11
    assert all(20_000 <= port < 21_000 for port in given.values())


def test_the_object_store_takes_no_more_than_there_is() -> None:
    gib = 1024**3
    assert object_store_bytes(64 * gib, 32 * gib) == gib
    assert object_store_bytes(4 * gib, 32 * gib) == 4 * gib // 10
    assert object_store_bytes(64 * gib, 0) == 80 * 1024**2


def test_the_cpus_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CPUS", "3")
    assert ray_head.available_cpus() == 3
    monkeypatch.delenv("HEADRACE_CPUS")
    assert ray_head.available_cpus() >= 1


def test_the_gpus_are_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert ray_head.available_gpus() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert ray_head.available_gpus() == 0


def test_a_long_home_moves_the_sockets_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    long = tmp_path / ("x" * 40)
    long.mkdir()
    made = ray_head.new_runtime_folder(long)
    try:
        assert len(str(made)) <= ray_head.LONGEST_RUNTIME_FOLDER
        assert made.stat().st_mode & 0o077 == 0
        assert made.parent.stat().st_mode & 0o077 == 0
    finally:
        made.rmdir()


# the record of the head


def test_the_head_is_found_by_its_record_and_only_if_its_leader_lives(tmp_path: Path) -> None:
    assert head_record.read_head() is None
    head = head_of(ProcessRef.current(), tmp_path)
    head_record.write_head(head)
    assert head_record.read_head() == head
    dead = head_of(ProcessRef(head.leader.pid, head.leader.started - 1, head.leader.boot), tmp_path)
    head_record.write_head(dead)
    assert ray_head.find_head() is None


def test_a_head_that_is_still_starting_is_not_found_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_head, "answers", lambda head: True)
    starting = head_of(ProcessRef.current(), tmp_path)
    head_record.write_head(starting)
    assert ray_head.find_head() is None
    head_record.write_head(replace(starting, up=True))
    assert ray_head.find_head() == replace(starting, up=True)


def test_a_record_of_before_the_reboot_is_not_taken_for_a_head(tmp_path: Path) -> None:
    now = ProcessRef.current()
    head_record.write_head(head_of(ProcessRef(now.pid, now.started, "another-boot"), tmp_path))
    assert ray_head.find_head() is None


def test_a_broken_record_is_no_head() -> None:
    head_record.path().parent.mkdir(parents=True)
    for text in ("", "{", "[]", '{"format": 1}', '{"format": 99, "leader": {}}'):
        head_record.path().write_text(text)
        assert head_record.read_head() is None
        assert head_record.remembered_serve_port() is None


def test_the_endpoints_port_outlives_the_head(tmp_path: Path) -> None:
    head_record.write_head(head_of(ProcessRef.current(), tmp_path))
    head_record.forget_head(8007)
    assert head_record.read_head() is None
    assert head_record.remembered_serve_port() == 8007


def test_what_a_process_needs_of_the_head_names_token_and_dashboard(tmp_path: Path) -> None:
    environment = ray_head.head_environment(head_of(ProcessRef.current(), tmp_path))
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")
    assert environment["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:2"
    assert "secret" not in json.dumps(environment)


# the desired state


def wish(**changes: object) -> Deployment:
    given: dict = {"name": "digits", "model": "digits", "stable": STABLE, "replicas": 2, "config_id": "c2"} | changes
    return Deployment(**given)


def test_the_desired_state_comes_back_as_it_was_written() -> None:
    assert desired_state.read_desired() == {}
    both = {"digits": wish(), "cats": wish(name="cats", resources={"gpus": 1})}
    with desired_state.locked():
        desired_state.write_desired(both)
    assert desired_state.read_desired() == both


def test_a_broken_desired_state_is_not_overwritten() -> None:
    desired_state.path().parent.mkdir(parents=True)
    for text in ("{", '{"format": 9, "applications": {}}', '{"format": 1, "applications": {"a": {}}}'):
        desired_state.path().write_text(text)
        with pytest.raises(HeadraceError, match="cannot be read"):
            desired_state.read_desired()


def test_every_wish_has_a_name_of_its_own() -> None:
    assert desired_state.new_config_id("3") != desired_state.new_config_id("3")


def test_without_a_head_a_deployment_is_stopped_and_can_be_taken_back() -> None:
    desired_state.write_desired({"digits": wish()})
    assert deployments() == [
        {
            "name": "digits", "url": None, "model": "digits", "version": "3", "replicas": 2, "state": "stopped",
            "error": None,
        }
    ]  # fmt: skip
    assert undeploy("digits")
    assert not undeploy("digits")
    assert deployments() == []


@pytest.mark.parametrize("name", ["Digits", "9digits", "a_b", "", "x" * 60, "grün"])
def test_a_name_that_cannot_be_a_path_is_refused_before_anything_is_started(name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be a deployment's name"):
        deploy(Deployment(name, "digits", STABLE), tell=lambda _: None)


# what Serve is told and tells


def test_a_front_reserves_no_cpu_and_takes_a_change_at_once() -> None:
    config = FrontConfig("c1", "digits", STABLE)
    record = application_record("digits", config, 2)
    assert record["route_prefix"] == "/digits"
    (front,) = record["deployments"]
    assert front["ray_actor_options"] == {"num_cpus": 0}
    assert front["rolling_update_percentage"] == 1.0
    assert FrontConfig.from_record(front["user_config"]) == config
    with_gpu = application_record("digits", config, 1, {"cpus": None, "gpus": 1, "memory_bytes": 5})
    assert with_gpu["deployments"][0]["ray_actor_options"] == {"num_cpus": 0, "num_gpus": 1, "memory": 5}
    whole = serve_record([record], host="127.0.0.1", port=8000)
    assert whole["http_options"] == {"host": "127.0.0.1", "port": 8000, "keep_alive_timeout_s": 90}


def test_a_change_of_version_changes_nothing_but_the_user_config() -> None:
    def without_config(version: str) -> dict:
        stable = StableVersion(version, "/p", "b" * 64)
        record = application_record("digits", FrontConfig(version, "digits", stable), 1)
        del record["deployments"][0]["user_config"]
        return record

    assert without_config("1") == without_config("2")


def test_what_serve_says_of_replicas_is_read() -> None:
    details = {
        "applications": {
            "digits": {
                "status": "RUNNING",
                "message": "",
                "deployed_app_config": None,  # while it is being deleted
                "deployments": {
                    "front": {
                        "target_num_replicas": 2,
                        "replicas": [{"state": "RUNNING"}, {"state": "STARTING"}],
                    }
                },
            }
        }
    }
    assert replicas_of(details, "digits") == FrontReplicas("RUNNING", "", 2, 1)
    assert replicas_of(details, "cats") is None
    assert replicas_of({}, "cats") is None


def status(replica: str, config_id: str | None = "c2", **rest: str | None) -> FrontStatus:
    return FrontStatus(replica, config_id, "3", None, rest.get("error"), rest.get("wanted", "c2"))


def test_a_wish_is_proven_when_as_many_replicas_answer_it_as_run() -> None:
    both = {"a": status("a"), "b": status("b")}
    running = FrontReplicas("RUNNING", "", 2, 2)
    assert judge(wish(), running, both).proven
    assert not judge(wish(), running, {"a": status("a")}).proven
    assert not judge(wish(), running, {"a": status("a"), "b": status("b", "c1")}).proven
    assert not judge(wish(), FrontReplicas("DEPLOYING", "", 2, 2), both).proven
    assert not judge(wish(), FrontReplicas("RUNNING", "", 2, 1), both).proven
    assert not judge(wish(), FrontReplicas("RUNNING", "", 1, 1), both).proven  # Serve has not heard of the second yet
    assert not judge(wish(), None, {}).proven


def test_a_wish_fails_with_the_fronts_own_error_but_not_with_that_of_an_earlier_wish() -> None:
    running = FrontReplicas("RUNNING", "", 2, 2)
    failed = {"a": status("a", "c1", error="damaged")}
    assert judge(wish(), running, failed).error == "damaged"
    assert judge(wish(config_id="c3"), running, failed).error is None


def test_a_wish_fails_with_serves_reason_where_the_front_never_came_up() -> None:
    verdict = judge(wish(), FrontReplicas("DEPLOY_FAILED", "Traceback\n  ...\nImportError: no torch\n", 0, 0), {})
    assert verdict.error == "ImportError: no torch"


def test_the_fronts_are_asked_until_enough_different_ones_answered() -> None:
    names = iter("aabab")

    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://x/digits/headrace/v1/status"
        return httpx.Response(200, json=status(next(names)).to_record())

    found = front_statuses("http://x/digits", 2, transport=httpx.MockTransport(answer))
    assert sorted(found) == ["a", "b"]
    assert next(names) == "a"


def test_fronts_that_do_not_answer_are_not_there() -> None:
    failing = httpx.MockTransport(lambda request: httpx.Response(503, json={"error": "no replica"}))
    assert front_statuses("http://x/digits", 1, transport=failing) == {}
