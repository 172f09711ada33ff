"""The place where backups lie: a folder or any fsspec URL.

    DEST/
    ├── lock.json                  who writes now
    ├── objects/<aa>/<sha256>      kept files by their content, shared by all backups here
    ├── damaged/<sha256>           those of which a backup's --verify found that they are other bytes by now
    └── <UTC time>/                one backup
        ├── manifest.json          written last: without it there is no backup
        ├── files.jsonl.gz         every file of the stores: where, how large, its hash, whether it was kept
        ├── resources.jsonl.gz     the custom resources
        └── mlflow/<table>.jsonl.gz

A file that was kept once is not kept again, so a day's backup costs what the day has brought. The S3 store
of DEST may be another than that of the runs: variables HEADRACE_BACKUP_AWS_* are then its.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from headrace.base.errors import InvalidInput
from headrace.steps import backup_manifest as manifests
from headrace.steps.backup_lock import Lock
from headrace.steps.backup_manifest import Manifest, PartFile
from headrace.store import streams
from headrace.store.filesystems import files_below, is_there, open_filesystem, reached, read_whole
from headrace.store.s3 import is_s3

OWN_S3 = "HEADRACE_BACKUP_AWS_"  # variables of the destination's S3 store, where it is not the store of the runs


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
        try:
            with self.reached():
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
        """The values in FILE of the backup NAME, as they are asked for. Raises InvalidInput where it is damaged."""
        with self.reached():
            try:
                yield from streams.read_lines(self.filesystem, self.path(name, file))
            except (FileNotFoundError, EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
                raise manifests.damaged(f"{self.uri(name)}/{file}") from error

    def pieces(self, path: str, size: int, what: str) -> Iterator[bytes]:
        """The file of SIZE bytes at PATH, a piece at a time. Raises InvalidInput, naming WHAT, where it is gone."""
        try:
            with self.reached():
                yield from streams.pieces(self.filesystem, path, size)
        except FileNotFoundError as error:
            raise manifests.damaged(what) from error

    def object_path(self, sha256: str) -> str:
        """Where the kept file SHA256 lies."""
        return self.path("objects", sha256[:2], sha256)

    def objects(self) -> dict[str, int]:
        """The sizes of all kept files, by hash."""
        try:
            with self.reached():
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

    def set_aside(self, sha256: str) -> None:
        """Take the kept file SHA256, whose bytes are others by now, out of the way: the next backup keeps it anew."""
        with self.reached(), suppress(FileNotFoundError):
            aside = self.path("damaged", sha256)
            if isinstance(self.filesystem, LocalFileSystem):
                Path(aside).parent.mkdir(exist_ok=True)
            self.filesystem.mv(self.object_path(sha256), aside)

    def remove(self, name: str) -> None:
        """Remove the backup NAME: its manifest first, so that none is ever seen without its files."""
        with self.reached():
            with suppress(FileNotFoundError):
                self.filesystem.rm_file(self.path(name, manifests.FILE))
            with suppress(FileNotFoundError):
                self.filesystem.rm(self.path(name), recursive=True)

    @contextmanager
    def lock(self, holder: str, tell: Callable[[str], None]) -> Iterator[Lock]:
        """Be the only writer for the length of the block. Raises RunFailed where there is another that lives.

        A folder that is not there is made, private: logs and tables are in it.
        """
        if isinstance(self.filesystem, LocalFileSystem):
            Path(self.root).mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = Lock(self.filesystem, self.path("lock.json"), self.url, holder)
        lock.take(tell)
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
    options |= {"token": own.get("SESSION_TOKEN")}
    if "ENDPOINT_URL" in own:
        options["endpoint_url"] = own["ENDPOINT_URL"]
    elif "ACCESS_KEY_ID" in own:  # AWS itself, whatever AWS_ENDPOINT_URL says of the store of the runs
        options["config_kwargs"] = {**options.get("config_kwargs", {}), "ignore_configured_endpoint_urls": True}
    if "REGION" in own:
        options["client_kwargs"] = {**options.get("client_kwargs", {}), "region_name": own["REGION"]}
    return type(filesystem)(**options), path
