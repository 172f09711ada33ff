"""What nothing refers to any more: found first, removed once agreed.

Roots are the runs of this home, every registered version and everything served. What is named by a hash in the words
of a root stays, and so does what that names in turn. Never touched: what a version or an endpoint needs, what is
younger than an hour or than the oldest run that still goes on, and any store that this home does not own alone, since
other machines' runs are not known here.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from headrace.base.home import home
from headrace.local import desired_state
from headrace.local.runs import LocalRun, list_runs
from headrace.store import Store

YOUNGEST_SECONDS = 3600.0  # what is younger may be in the making: written, and not yet named by anything
DAY_SECONDS = 86_400.0

_HASH = re.compile(r"[0-9a-f]{64}")
_BY_HASH = ("specs", "code", "files", "splits", "packages", "evaluations")


@dataclass(frozen=True)
class Garbage:
    """Something that can go."""

    kind: str
    path: Path
    bytes: int
    why: str

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(frozen=True)
class Findings:
    """What can go, and what was not looked at and why."""

    garbage: tuple[Garbage, ...]
    left_out: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """All of it together."""
        return sum(item.bytes for item in self.garbage)


def find(*, forget_days: float | None = None, now: float | None = None) -> Findings:
    """What can go.

    Args:
        forget_days: runs that ended longer ago than this are forgotten, with what only they refer to. None: no run is.
        now: seconds since 1970.

    Raises:
        Unavailable: the registry cannot be read, so that nothing can be said of any package.
    """
    now = time.time() if now is None else now
    runs = list_runs()
    forgotten = (
        [] if forget_days is None else [run for run in runs if _ended_before(run, now - forget_days * DAY_SECONDS)]
    )
    garbage = [_item("run", run.folder, f"ended more than {forget_days:g} days ago") for run in forgotten]
    kept = [run for run in runs if run not in forgotten]
    for run in kept:
        if run.exit_code() is not None:
            garbage += _leavings(run)
    store = Store()
    if not store.local or not Path(store.url).is_relative_to(home()):
        return Findings(
            tuple(garbage), (f"the store {store.url}: others may use it, and their runs are not known here",)
        )
    root = Path(store.url)
    oldest = min([now - YOUNGEST_SECONDS, *(_created(run) for run in kept if run.exit_code() is None)])
    garbage += _unnamed_runs(root, {run.run_id for run in kept}, oldest)
    garbage += _unreferenced(root, _roots(root, kept), oldest)
    return Findings(tuple(garbage))


def remove(garbage: Iterable[Garbage]) -> int:
    """Remove GARBAGE; how many bytes that gave back."""
    freed = 0
    for item in garbage:
        if item.path.is_dir():
            shutil.rmtree(item.path, ignore_errors=True)
        else:
            item.path.unlink(missing_ok=True)
        freed += item.bytes
    return freed


def _created(run: LocalRun) -> float:
    return datetime.fromisoformat(run.request["created"]).timestamp()


def _ended_before(run: LocalRun, moment: float) -> bool:
    ended = run.folder / "result.json"
    return run.exit_code() is not None and ended.exists() and ended.stat().st_mtime < moment


def _leavings(run: LocalRun) -> Iterator[Garbage]:
    """What an ended run no longer needs: it can only be resumed unless it succeeded."""
    temporary = run.folder / "tmp"
    if temporary.is_dir() and any(temporary.iterdir()):
        yield _item("temporary files", temporary, "the run has ended")
    store = Store(run.request["store"])
    checkpoints = Path(store.uri("runs", run.run_id, "checkpoints"))
    if store.local and run.exit_code() == 0 and checkpoints.is_dir():
        yield _item("checkpoints", checkpoints, "the run succeeded and cannot be resumed")


def _unnamed_runs(root: Path, known: set[str], oldest: float) -> Iterator[Garbage]:
    for folder in _entries(root / "runs"):
        if folder.name not in known and _touched(folder) < oldest:
            yield _item("run files", folder, "there is no such run any more")


def _roots(root: Path, runs: Iterable[LocalRun]) -> set[str]:
    """The hashes that runs, versions and endpoints name."""
    named: set[str] = set()
    for run in runs:
        for folder in (run.folder, root / "runs" / run.run_id):
            for file in folder.rglob("*.json"):
                named |= _hashes_in(file)
    for wish in desired_state.read_desired().values():
        named |= set(_HASH.findall(f"{wish.stable.package_uri} {wish.stable.sha256}"))
    return named | _registered()


def _registered() -> set[str]:
    """The hashes that registered versions name. A home without a registry has none."""
    from headrace.tracking import registry
    from headrace.tracking.connection import sqlite_path, tracking_uri

    database = sqlite_path(tracking_uri())
    if database is not None and not database.exists():
        return set()
    named: set[str] = set()
    for model in registry.list_models():
        for version in registry.list_versions(model["name"]):
            words = f"{version.package_uri} {version.package_sha256} {version.split_fingerprint}"
            named |= set(_HASH.findall(words))
    return named


def _unreferenced(root: Path, named: set[str], oldest: float) -> Iterator[Garbage]:
    """What lies under a hash that nothing names; a cache entry goes with what it leads to."""
    things = {kind: list(_entries(root / kind)) for kind in _BY_HASH}
    kept = _closure(named, [path for paths in things.values() for path in paths])
    gone: set[str] = set()
    for kind, paths in things.items():
        for path in paths:
            if _hash_of(path) not in kept and _touched(path) < oldest:
                gone.add(_hash_of(path))
                yield _item(kind, path, "no run, version or deployment refers to it")
    for entry in (root / "index").glob("*/*.json"):
        if _hashes_in(entry) & gone:
            yield _item("cache entry", entry, "what it leads to goes")
    for file in root.rglob("*.tmp"):
        if _touched(file) < oldest:
            yield _item("temporary file", file, "its writer was killed")


def _closure(named: set[str], things: Iterable[Path]) -> set[str]:
    """NAMED, and what specs and packages under those hashes name in turn."""
    by_hash: dict[str, list[Path]] = {}
    for path in things:
        by_hash.setdefault(_hash_of(path), []).append(path)
    kept: set[str] = set()
    waiting = list(named)
    while waiting:
        one = waiting.pop()
        if one in kept:
            continue
        kept.add(one)
        for path in by_hash.get(one, ()):
            file = path if path.suffix == ".json" else path / "headrace.json"
            waiting += _hashes_in(file) if file.is_file() else ()
    return kept


def _hash_of(path: Path) -> str:
    return path.name.split(".")[0]


def _hashes_in(file: Path) -> set[str]:
    try:
        return set(_HASH.findall(file.read_text(encoding="utf-8", errors="replace")))
    except FileNotFoundError:
        return set()


def _entries(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.iterdir()) if folder.is_dir() else ()


def _touched(path: Path) -> float:
    """When the newest file in PATH was written (seconds since 1970)."""
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return max(file.lstat().st_mtime for file in files)


def _item(kind: str, path: Path, why: str) -> Garbage:
    files = path.rglob("*") if path.is_dir() else [path]
    return Garbage(kind, path, sum(file.lstat().st_size for file in files if file.is_file()), why)
