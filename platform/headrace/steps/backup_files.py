"""The files of the stores in a backup: an index of all of them, and the bytes of those that are needed.

What a file holds is known by its hash. A file whose size and mark (time or etag) are as they were in the backup before
has the hash that it had then, so that only what is new is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec

from headrace.steps.backup_archive import Archive
from headrace.steps.backup_manifest import Artifacts
from headrace.store import streams
from headrace.store.filesystems import files_below, open_filesystem, reached

FILE = "files.jsonl.gz"
STORE, MLFLOW, HOME = "store", "mlflow", "home"
STORE_FOLDERS = ("code", "evaluations", "files", "index", "packages", "runs", "specs", "splits")
HOME_FILES = ("serve/applications.json", "targets.yaml")
RUN_FILES = ("events.jsonl", "log", "result.json", "run.json")  # of a run's process side; the rest dies with it

Tell = Callable[[str], None]


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
        with reached(self.url, self.filesystem):
            for folder in self._folders():
                yield from sorted(self._below(folder), key=lambda entry: entry.order)

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


def _is_checkpoint(entry: Entry) -> bool:
    return entry.root == STORE and entry.path.startswith("runs/") and not _is_record(entry.path)


def folder_of(url: str, roots: Iterable[Root]) -> str | None:
    """The folder URL as `root/path`, or None where it lies in no root."""
    for root in roots:
        filesystem, path = open_filesystem(url)
        if type(filesystem) is type(root.filesystem) and path.rstrip("/").startswith(f"{root.path}/"):
            return f"{root.name}/{path.rstrip('/').removeprefix(f'{root.path}/')}"
    return None


class Keeper:
    """Puts files into an archive, each content once."""

    def __init__(self, archive: Archive, roots: Iterable[Root], previous: Iterator[Entry], beat: streams.Beat) -> None:
        self._archive, self._beat = archive, beat
        self._roots = {root.name: root for root in roots}
        self._there = archive.objects()
        self._previous = previous
        self._next: Entry | None = next(previous, None)
        self.kept = self.listed = self.kept_bytes = self.new_bytes = 0
        self.notes: list[str] = []

    def entries(self, needs: Needs, tell: Tell) -> Iterator[Entry]:
        """Every file of the roots, for the index; those that NEEDS names are kept on the way."""
        for name in sorted(self._roots):
            for entry in self._roots[name].entries():
                self._beat()
                self.listed += 1
                found = self._known(entry)
                yield self._keep(found) if needs.keeps(entry) else self._read(found)
                if self.listed % 1000 == 0:
                    tell(f"{self.listed:,} files looked at, {self.kept:,} kept, {self.new_bytes / 1e6:,.1f} MB new")

    def _known(self, entry: Entry) -> Entry:
        """ENTRY with the hash that it had in the backup before, if it is the same file still."""
        while self._next is not None and self._next.order < entry.order:
            self._next = next(self._previous, None)
        before = self._next
        same = before is not None and before.order == entry.order and entry.mark and before.mark == entry.mark
        if before is None or not same or before.size != entry.size:
            return entry
        return Entry(entry.root, entry.path, entry.size, entry.mark, before.sha256)

    def _read(self, entry: Entry) -> Entry:
        """ENTRY with its hash. Checkpoints come and go and are large: they are listed without."""
        if entry.sha256 is not None or _is_checkpoint(entry):
            return entry
        try:
            sha256, size = self._hash(entry)
        except FileNotFoundError:
            return entry
        return Entry(entry.root, entry.path, size, entry.mark, sha256)

    def _keep(self, entry: Entry) -> Entry:
        for _ in range(3):  # a log that is written to is another file by the time it is copied
            try:
                sha256, size = (entry.sha256, entry.size) if entry.sha256 is not None else self._hash(entry)
                if self._there.get(sha256) == size or self._copy(entry, sha256, size):
                    self.kept += 1
                    self.kept_bytes += size
                    return Entry(entry.root, entry.path, size, entry.mark, sha256, kept=True)
            except FileNotFoundError:
                self.notes.append(f"{entry.root}/{entry.path} went away while it was copied")
                return entry
            entry = Entry(entry.root, entry.path, entry.size, entry.mark)
        self.notes.append(f"{entry.root}/{entry.path} changed all the time and was not kept")
        return entry

    def _copy(self, entry: Entry, sha256: str, size: int) -> bool:
        root = self._roots[entry.root]
        target = self._archive.object_path(sha256)
        path = f"{root.path}/{entry.path}"
        with self._archive.reached():
            copied = streams.copy(
                root.filesystem, path, self._archive.filesystem, target, sha256=sha256, size=size, beat=self._beat
            )
        if copied:
            self._there[sha256] = size
            self.new_bytes += size
        return copied

    def _hash(self, entry: Entry) -> tuple[str, int]:
        root = self._roots[entry.root]
        return streams.hash_of(root.filesystem, f"{root.path}/{entry.path}", self._beat)


def read_index(archive: Archive, name: str) -> Iterator[Entry]:
    """The entries of the backup NAME."""
    for line in archive.lines(name, FILE):
        yield Entry(*line)
