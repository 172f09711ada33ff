"""The files of the stores: where they lie, in which order they are listed, and which of them a backup keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.core import split_protocol

from headrace.steps.backup_archive import Archive
from headrace.steps.backup_manifest import Artifacts
from headrace.store import streams
from headrace.store.filesystems import files_below, open_filesystem, reached

FILE = "files.jsonl.gz"
STORE, MLFLOW, HOME = "store", "mlflow", "home"
STORE_FOLDERS = ("code", "evaluations", "files", "index", "packages", "runs", "specs", "splits")
HOME_FILES = ("serve/applications.json", "targets.yaml")
RUN_FILES = ("events.jsonl", "log", "result.json", "run.json")  # of a run's process side; the rest dies with it


@dataclass(frozen=True)
class Entry:
    """A file of the root ROOT. `mark` is its time or etag; `sha256` is None where nobody has read it."""

    root: str
    path: str
    size: int
    mark: str
    sha256: str | None = None
    kept: bool = False

    @property
    def order(self) -> tuple[str, ...]:
        """Entries come in this order."""
        return (self.root, *self.path.split("/"))

    def to_line(self) -> list[Any]:
        """As the index has it."""
        return [self.root, self.path, self.size, self.mark, self.sha256, self.kept]


@dataclass(frozen=True)
class Root:
    """A place that files come from."""

    name: str
    url: str
    filesystem: fsspec.AbstractFileSystem
    path: str

    @classmethod
    def at(cls, name: str, url: str) -> Root:
        """The root NAME at URL."""
        filesystem, path = open_filesystem(url)
        return cls(name, url, filesystem, path.rstrip("/"))

    def entries(self) -> Iterator[Entry]:
        """Its files in order; those of one folder are in memory at once."""
        for folder in self._folders():
            yield from sorted(self._below(folder), key=lambda entry: entry.order)

    def pieces(self, entry: Entry) -> Iterator[bytes]:
        """What ENTRY holds, a piece at a time. Raises as `streams.pieces` does, and Unavailable."""
        with self.reached():
            yield from streams.pieces(self.filesystem, f"{self.path}/{entry.path}", entry.size)

    @contextmanager
    def reached(self) -> Iterator[None]:
        """A block whose failures are this place's."""
        with reached(self.url, self.filesystem):
            yield

    def _folders(self) -> Iterator[str]:
        """The folders (and files) whose content is looked at one after the other."""
        if self.name == HOME:
            yield from sorted(("runs", *HOME_FILES))
            return
        for top in STORE_FOLDERS if self.name == STORE else ("",):
            yield from (f"{top}/{child}".strip("/") for child in self._children(top))

    def _children(self, folder: str) -> list[str]:
        place = f"{self.path}/{folder}".rstrip("/")
        try:
            with self.reached():  # a bucket that is not there is no empty one
                found = self.filesystem.ls(place, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = {str(path).rstrip("/").rpartition("/")[2] for path in found if str(path).rstrip("/") != place}
        return sorted(names)

    def _below(self, folder: str) -> Iterator[Entry]:
        place = f"{self.path}/{folder}"
        for name, info in self._found(place).items():
            path = f"{folder}/{name}" if name else folder
            if self.name != HOME or _belongs(path):
                yield Entry(self.name, path, int(info.get("size") or 0), _mark(info))

    def _found(self, place: str) -> dict[str, dict[str, Any]]:
        try:
            with self.reached():
                info = self.filesystem.info(place)
                return {"": info} if info["type"] == "file" else files_below(self.filesystem, place)
        except FileNotFoundError:  # gone since it was listed
            return {}


def _belongs(path: str) -> bool:
    parts = path.split("/")
    return path in HOME_FILES or (parts[0] == "runs" and len(parts) == 3 and parts[2] in RUN_FILES)


def _mark(info: Mapping[str, Any]) -> str:
    for key in ("ETag", "etag", "mtime", "LastModified", "last_modified", "created"):
        if info.get(key):
            return str(info[key]).strip('"')
    return ""


@dataclass(frozen=True)
class Needs:
    """Which files are kept."""

    artifacts: Artifacts
    folders: frozenset[str] = frozenset()  # `root/path` of folders that registered versions and endpoints need
    packages: frozenset[str] = frozenset()  # their packages' hashes

    def keeps(self, entry: Entry) -> bool:
        """Whether ENTRY is kept. Records of runs always are: without them a run is a name."""
        if self.artifacts is Artifacts.all or entry.root == HOME:
            return True
        if entry.root == STORE and (_is_record(entry.path) or entry.path.startswith("specs/")):
            return True
        if self.artifacts is Artifacts.none:
            return False
        parts = entry.path.split("/")
        if entry.root == STORE and parts[0] == "evaluations" and parts[1] in self.packages:
            return True
        places = (f"{entry.root}/{'/'.join(parts[:depth])}" for depth in range(1, len(parts) + 1))
        return any(place in self.folders for place in places)


def _is_record(path: str) -> bool:
    parts = path.split("/")
    return parts[0] == "runs" and len(parts) > 2 and parts[2] != "checkpoints"


def is_checkpoint(entry: Entry) -> bool:
    """Whether ENTRY is a checkpoint of a run."""
    return entry.root == STORE and entry.path.startswith("runs/") and not _is_record(entry.path)


def folder_of(url: str, roots: Iterable[Root]) -> str | None:
    """The folder URL as `root/path`, or None where it lies in no root; of roots in each other the inner one counts.

    Anybody may have written URL: nothing is opened for it, so none is refused, and no host that it names is asked.
    """
    for root in sorted(roots, key=lambda root: -len(root.path)):
        known = root.filesystem.protocol
        if (split_protocol(url)[0] or "file") not in ((known,) if isinstance(known, str) else known):
            continue
        path = str(root.filesystem._strip_protocol(url)).rstrip("/")
        if path.startswith(f"{root.path}/"):
            return f"{root.name}/{path.removeprefix(f'{root.path}/')}"
    return None


def read_index(archive: Archive, name: str) -> Iterator[Entry]:
    """The entries of the backup NAME."""
    for line in archive.lines(name, FILE):
        yield Entry(*line)
