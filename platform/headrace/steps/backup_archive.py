"""The place where backups lie: a folder or any fsspec URL.

    DEST/
    ├── lock.json                  who writes now
    ├── objects/<aa>/<sha256>      kept files by their content, shared by all backups here
    └── <UTC time>/                one backup
        ├── manifest.json          written last: without it there is no backup
        ├── files.jsonl.gz         every file of the stores: where, how large, its hash, whether it was kept
        ├── resources.jsonl.gz     the custom resources
        └── mlflow/<table>.jsonl.gz

A file that was kept once is not kept again, so a day's backup costs what the day has brought. One writer at a time:
the lock is taken on a condition, renewed while the writer works, and taken over from one that died. The S3 store of
DEST may be another than that of the runs: variables HEADRACE_BACKUP_AWS_* are then its.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fsspec

from headrace.base.errors import InvalidInput, RunFailed, Unavailable
from headrace.base.processes import ProcessRef
from headrace.steps import backup_manifest as manifests
from headrace.steps.backup_manifest import Manifest, PartFile
from headrace.store import conditional, streams
from headrace.store.filesystems import files_below, is_s3, is_there, open_filesystem, reached, read_whole

OWN_S3 = "HEADRACE_BACKUP_AWS_"  # variables of the destination's S3 store, where it is not the store of the runs
STALE_SECONDS = 900.0  # without a sign of life, after which a writer counts as dead
BEAT_SECONDS = 60.0


class Archive:
    """Backups at URL. Making one asks nothing of it."""

    def __init__(self, url: str) -> None:
        self.filesystem, root = _opened(url)
        self.root = root.rstrip("/")
        self.url = url.rstrip("/") if "://" in url else self.root

    @contextmanager
    def reached(self) -> Iterator[None]:
        """A block whose failures are this place's."""
        with reached(self.url, self.filesystem):
            yield

    def path(self, *parts: str) -> str:
        """Where something lies."""
        return "/".join((self.root, *parts))

    def uri(self, name: str) -> str:
        """The backup NAME, as people name it."""
        return f"{self.url}/{name}"

    # reading

    def names(self) -> list[str]:
        """The whole backups, the oldest first."""
        return [name for name in self.folders() if is_there(self.filesystem, self.path(name, manifests.FILE))]

    def folders(self) -> list[str]:
        """All that look like a backup, whole or not."""
        with self.reached():
            try:
                found = self.filesystem.ls(self.root, detail=False)
            except FileNotFoundError:
                return []
        last = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        return sorted(name for name in last if manifests.NAME.fullmatch(name))

    def manifest(self, name: str) -> Manifest:
        """What the backup NAME says of itself. Raises InvalidInput where there is no whole one."""
        where = f"{self.uri(name)}/{manifests.FILE}"
        with self.reached():
            try:
                record = json.loads(read_whole(self.filesystem, self.path(name, manifests.FILE)))
            except FileNotFoundError:
                raise self._absent(name) from None
            except ValueError as error:
                raise manifests.damaged(where) from error
        return Manifest.from_record(record, where)

    def _absent(self, name: str) -> InvalidInput:
        there = ", ".join(self.names()[-5:])
        return InvalidInput(
            f"there is no whole backup {self.uri(name)}",
            action=f"name one of the newest: {there}" if there else f"make one: headrace backup {self.url}",
            code="backup-absent",
        )

    def lines(self, name: str, file: str) -> Iterator[Any]:
        """The values in FILE of the backup NAME, as they are asked for."""
        with self.reached():
            yield from streams.read_lines(self.filesystem, self.path(name, file))

    def object_path(self, sha256: str) -> str:
        """Where the kept file SHA256 lies."""
        return self.path("objects", sha256[:2], sha256)

    def objects(self) -> dict[str, int]:
        """The sizes of all kept files, by hash."""
        with self.reached():
            try:
                found = files_below(self.filesystem, self.path("objects"))
            except FileNotFoundError:
                return {}
        sizes = {name.rpartition("/")[2]: int(info.get("size") or 0) for name, info in found.items()}
        return {name: size for name, size in sizes.items() if len(name) == 64}

    # writing

    def write_lines(self, name: str, file: str, values: Iterable[Any]) -> PartFile:
        """Write VALUES as FILE of the backup NAME."""
        with self.reached():
            written, lines = streams.write_lines(self.filesystem, self.path(name, file), values)
        return PartFile(written.bytes, written.sha256, lines)

    def write_manifest(self, manifest: Manifest) -> None:
        """Make the backup whole."""
        text = json.dumps(manifest.to_record(), indent=1, sort_keys=True, ensure_ascii=False)
        with self.reached(), streams.whole_file(self.filesystem, self.path(manifest.name, manifests.FILE)) as file:
            file.write(text.encode())

    def remove(self, name: str) -> None:
        """Remove the backup NAME: its manifest first, so that none is ever seen without its files."""
        with self.reached():
            with suppress(FileNotFoundError):
                self.filesystem.rm_file(self.path(name, manifests.FILE))
            with suppress(FileNotFoundError):
                self.filesystem.rm(self.path(name), recursive=True)

    @contextmanager
    def lock(self, holder: str) -> Iterator[Lock]:
        """Be the only writer for the length of the block. Raises RunFailed where there is another."""
        lock = Lock(self, holder)
        lock.take()
        try:
            yield lock
        finally:
            lock.give_back()


def _opened(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of URL, on the S3 store that is meant for backups where the environment names one."""
    filesystem, path = open_filesystem(url)
    own = {name.removeprefix(OWN_S3): value for name, value in os.environ.items() if name.startswith(OWN_S3) and value}
    if not own or not is_s3(filesystem):
        return filesystem, path
    options = dict(filesystem.storage_options)
    options |= {"key": own.get("ACCESS_KEY_ID"), "secret": own.get("SECRET_ACCESS_KEY")}
    if "ENDPOINT_URL" in own:
        options["endpoint_url"] = own["ENDPOINT_URL"]
    elif "ACCESS_KEY_ID" in own:  # AWS itself, whatever AWS_ENDPOINT_URL says of the store of the runs
        options["config_kwargs"] = {**options.get("config_kwargs", {}), "ignore_configured_endpoint_urls": True}
    if "REGION" in own:
        options["client_kwargs"] = {**options.get("client_kwargs", {}), "region_name": own["REGION"]}
    return type(filesystem)(**options), path


class Lock:
    """The right to write to an archive. `beat` keeps it."""

    def __init__(self, archive: Archive, holder: str) -> None:
        self._archive, self._holder = archive, holder
        self._path = archive.path("lock.json")
        self._draw = secrets.token_hex(8)
        self._found: conditional.Found = None
        self._beaten = 0.0

    def take(self) -> None:
        """Take it, from a dead writer too."""
        filesystem = self._archive.filesystem
        with self._archive.reached():
            found = conditional.read(filesystem, self._path)
            if found is not None and (other := _living(found[0])) is not None:
                raise RunFailed(
                    f"{other} is writing to {self._archive.url}",
                    action=f"wait until it has ended; if it was killed, its lock ends {STALE_SECONDS / 60:.0f} minutes "
                    "after its last sign of life",
                    code="backup-locked",
                )
            if not conditional.replace(filesystem, self._path, self._record(), found):
                raise self._lost()
            self._found = conditional.read(filesystem, self._path)
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """Say that the writer lives, once a minute at most. Raises RunFailed where another took over."""
        if time.monotonic() - self._beaten > BEAT_SECONDS:
            self.check()

    def check(self) -> None:
        """Renew it now. Raises RunFailed where another took over."""
        with self._archive.reached():
            if not conditional.replace(self._archive.filesystem, self._path, self._record(), self._found):
                raise self._lost()
            self._found = conditional.read(self._archive.filesystem, self._path)
        self._beaten = time.monotonic()

    def give_back(self) -> None:
        """Remove it, if it is ours."""
        with suppress(OSError, Unavailable), self._archive.reached():
            found = conditional.read(self._archive.filesystem, self._path)
            if found is not None and json.loads(found[0]).get("draw") == self._draw:
                self._archive.filesystem.rm_file(self._path)

    def _record(self) -> bytes:
        process = ProcessRef.current().to_record()
        told = {"holder": self._holder, "time": time.time(), "draw": self._draw}
        return json.dumps({**told, "host": socket.gethostname(), "process": process}).encode()

    def _lost(self) -> RunFailed:
        return RunFailed(
            f"another writer took over at {self._archive.url}",
            action="look at what it writes; this backup is not whole and does not count",
            code="backup-locked",
        )


def _living(data: bytes) -> str | None:
    """Who holds the lock that says DATA, if its writer may still live; of this machine's own it is known at once."""
    try:
        record = json.loads(data)
        process = ProcessRef.from_record(record.get("process")) if record.get("host") == socket.gethostname() else None
        dead = process is not None and not process.alive()
        return str(record["holder"]) if not dead and time.time() - float(record["time"]) < STALE_SECONDS else None
    except (ValueError, KeyError, TypeError):
        return None
