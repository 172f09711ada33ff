"""`headrace backup`: MLflow's database, the stores' files and the custom resources, in one place, whole or not at all.

What refers is read before what it refers to: custom resources, then the database in one snapshot, then files. Versions
and packages are written before anything names them and never change, so what a backup names is in it, however busy the
cluster is meanwhile.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from headrace.base.errors import InvalidInput
from headrace.steps import backup_files, backup_resources
from headrace.steps.backup_archive import Archive
from headrace.steps.backup_files import Entry
from headrace.steps.backup_keeper import Keeper
from headrace.steps.backup_lock import Lock
from headrace.steps.backup_manifest import TABLES, Artifacts, Manifest, Part, new_name, summary
from headrace.steps.backup_needs import Found, needs_of, refuse_empty, roots_of, strike_off
from headrace.steps.backup_place import Place
from headrace.steps.backup_progress import Progress
from headrace.steps.backup_prune import prune
from headrace.steps.backup_verify import verify_anew
from headrace.tracking.database import Snapshot

Tell = Callable[[str], None]


def backup(
    place: Place,
    destination: str,
    *,
    parts: frozenset[Part],
    artifacts: Artifacts = Artifacts.registered,
    keep: int | None = None,
    verify: bool = False,
    tell: Tell,
) -> dict[str, Any]:
    """Make a backup of PLACE at DESTINATION; what it holds, as its manifest says, with its `uri`.

    Args:
        place: what is backed up.
        destination: a folder or any fsspec URL; many backups may lie there.
        parts: what is taken.
        artifacts: which of the stores' files are kept.
        keep: how many backups stay there, this one included; None: all.
        verify: read all of it again before an older one goes.
        tell: is told the progress.

    Raises:
        InvalidInput: PLACE has not what was asked for, or what was written is damaged.
        Unavailable: the database, a store, the cluster or DESTINATION cannot be reached, or a store is empty that
            registered versions need; there is no new backup then.
        RunFailed: another backup is being written there.
    """
    if Part.resources in parts and not place.namespaces:
        raise InvalidInput(
            "this machine has no custom resources", action="leave out `resources`, or name a cluster: --on TARGET"
        )
    archive, started = Archive(destination), time.monotonic()
    record: dict[str, Any] = {}
    with archive.lock(_holder(), tell) as lock:
        manifest = Manifest(_free_name(archive), version("headrace"), artifacts, {}, place.mlflow)
        found = Found(manifest)
        if Part.resources in parts:
            _take_resources(place, archive, found, tell)
        if Part.mlflow in parts:
            _take_database(place, archive, found, lock, tell)
        elif Part.files in parts and artifacts is Artifacts.registered:
            _ask_database(place, found)
        if Part.files in parts:
            _take_files(place, archive, found, lock, tell)
        lock.check()
        seconds = round(time.monotonic() - started, 3)
        whole = replace(found.manifest, seconds=seconds, notes=tuple(found.notes))
        archive.write_manifest(whole)
        if verify:
            record["verified"] = verify_anew(archive, whole.name, lock.beat, tell)
        record["removed"] = prune(archive, None if found.missing else keep, lock.beat, tell)
    return {"uri": archive.uri(whole.name), **summary(whole), **record}


def default_parts(place: Place) -> frozenset[Part]:
    """All that PLACE has."""
    return frozenset(Part) if place.namespaces else frozenset({Part.mlflow, Part.files})


def _holder() -> str:
    who = "somebody"
    with suppress(OSError, KeyError):  # a container may have no name for its user
        who = getpass.getuser()
    return f"{who} on {socket.gethostname()} (process {os.getpid()})"


def _free_name(archive: Archive) -> str:
    """The name of now; another backup may have been made in this second."""
    while (name := new_name(datetime.now(UTC))) in archive.folders():
        time.sleep(0.2)
    return name


def _take_resources(place: Place, archive: Archive, found: Found, tell: Tell) -> None:
    counts = dict.fromkeys(backup_resources.KINDS, 0)

    def counted() -> Iterator[dict[str, Any]]:
        for record in backup_resources.collect(place.namespaces):
            counts[record["kind"]] += 1
            found.under_way |= backup_resources.needed_to_go_on(record)
            yield record

    part = archive.write_lines(found.manifest.name, backup_resources.FILE, counted())
    _add(found, {backup_resources.FILE: part}, counts)
    tell("custom resources: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))


def _take_database(place: Place, archive: Archive, found: Found, lock: Lock, tell: Tell) -> None:
    from headrace.tracking.database import snapshot

    name = found.manifest.name
    with snapshot(place.require_database()) as database:
        parts, columns, progress = {}, database.tables, Progress(tell)
        for table in columns:
            parts[f"mlflow/{table}.jsonl.gz"] = archive.write_lines(
                name, f"mlflow/{table}.jsonl.gz", _beating(table, database.rows(table), lock, progress)
            )
        _note_needed(database, found)
        facts: dict[str, Any] = {
            "version": version("mlflow"),
            "revision": database.revision,
            "dialect": database.dialect,
        }
        facts["artifact_root"] = found.manifest.roots.get(backup_files.MLFLOW)
    counts = {word: parts[f"mlflow/{table}.jsonl.gz"].lines for word, table in TABLES.items()}
    found.manifest = replace(found.manifest, mlflow={**facts, "columns": columns})
    _add(found, parts, counts)
    tell("MLflow: " + ", ".join(f"{count} {word}" for word, count in counts.items()))


def _ask_database(place: Place, found: Found) -> None:
    """Which files registered versions need, where the database itself is not taken."""
    from headrace.tracking.database import snapshot

    with snapshot(place.require_database()) as database:
        _note_needed(database, found)


def _note_needed(database: Snapshot, found: Found) -> None:
    found.needed = database.needed()
    root = database.artifact_root()
    found.manifest = replace(found.manifest, roots={} if root is None else {backup_files.MLFLOW: root})


def _beating(table: str, rows: Iterator[Any], lock: Lock, progress: Progress) -> Iterator[Any]:
    for number, row in enumerate(rows):
        if number % 1000 == 0:
            lock.beat()
            progress(lambda number=number: f"{table}: {number:,} rows")  # type: ignore[misc]
        yield row


def _take_files(place: Place, archive: Archive, found: Found, lock: Lock, tell: Tell) -> None:
    roots = roots_of(place, found)
    needs, owners, trainings = needs_of(place, found, roots)
    keeper, empty = Keeper(archive, roots, _previous(archive), lock.beat, tell), {root.name for root in roots}

    def listed() -> Iterator[list[Any]]:
        for entry in keeper.entries(needs):
            empty.discard(entry.root)
            if entry.kept:
                strike_off(owners, entry)
                strike_off(trainings, entry)
            yield entry.to_line()

    part = archive.write_lines(found.manifest.name, backup_files.FILE, listed())
    refuse_empty(roots, empty, owners)
    found.missing = sorted(owners.values())
    gone = [*found.missing, *sorted(trainings.values())]
    found.notes += [*keeper.notes, *(f"{what} is gone, and is not in this backup" for what in gone)]
    if found.missing:
        found.notes.append("no older backup was removed: bring back what is gone from one, or delete what names it")
    found.manifest = replace(
        found.manifest,
        roots={root.name: root.url for root in roots},
        kept_bytes=keeper.kept_bytes,
        new_bytes=keeper.new_bytes,
    )
    _add(found, {backup_files.FILE: part}, {"files": keeper.listed, "kept": keeper.kept})
    tell(f"files: {keeper.listed:,}, of which {keeper.kept:,} are kept ({keeper.kept_bytes / 1e6:,.1f} MB)")


def _previous(archive: Archive) -> Iterator[Entry]:
    """The index of the newest backup; nothing where there is none, or none that can be read."""
    names = archive.names()
    with suppress(InvalidInput):
        if names and backup_files.FILE in archive.manifest(names[-1]).parts:
            yield from backup_files.read_index(archive, names[-1])


def _add(found: Found, parts: dict[str, Any], counts: dict[str, int]) -> None:
    manifest = found.manifest
    found.manifest = replace(manifest, parts={**manifest.parts, **parts}, counts={**manifest.counts, **counts})
