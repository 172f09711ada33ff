"""Files of a backup back into the stores, each whole and with the bytes that it had.

Where the store has another address than before, records that name it are changed on the way: those of runs, the cache's
entries, and this machine's own. What is named by its content is never changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from headrace.base.errors import Superseded
from headrace.steps import backup_files, backup_manifest
from headrace.steps.backup_archive import Archive
from headrace.steps.backup_files import HOME, STORE, Entry, Root
from headrace.steps.backup_manifest import Existing, Manifest
from headrace.steps.backup_moves import Moves
from headrace.steps.backup_place import Place
from headrace.steps.backup_progress import Progress
from headrace.store import Store, streams

_ATTEMPT = re.compile(r"runs/[^/]+/attempt\.json")
# Files that are never other bytes: one of another size is half of one, and is written anew.
_BY_CONTENT = ("code", "files", "packages", "specs", "splits")


class FileRestorer:
    """Writes the kept files of one backup to where they belong in PLACE."""

    def __init__(
        self, archive: Archive, place: Place, manifest: Manifest, moves: Moves, tell: Callable[[str], None]
    ) -> None:
        self._archive, self._manifest, self._moves, self._tell = archive, manifest, moves, tell
        self._progress, self._files, self._bytes = Progress(tell), 0, 0
        self._roots: dict[str, Root | None] = {}
        for name, url in manifest.roots.items():
            new = {STORE: place.store, HOME: place.home}.get(name, moves.text(url))
            self._roots[name] = None if new is None else Root.at(name, new)

    def restore(self, existing: Existing) -> dict[str, int]:
        """Write what is missing, and where EXISTING says so over what is there; files and bytes that were written."""
        there = 0
        for entry in backup_files.read_index(self._archive, self._manifest.name):
            root = self._roots.get(entry.root)
            if not entry.kept or root is None:
                continue
            if self._stays(root, entry, existing):
                there += 1
                continue
            self._write(root, entry)
            self._files, self._bytes = self._files + 1, self._bytes + entry.size
            self._beat()
        self._tell(f"files: {self._files:,} written ({self._bytes / 1e6:,.1f} MB), {there:,} were there")
        return {"files": self._files, "bytes": self._bytes}

    def _beat(self) -> None:
        self._progress(lambda: f"{self._files:,} files written, {self._bytes / 1e6:,.1f} MB")

    def _stays(self, root: Root, entry: Entry, existing: Existing) -> bool:
        """Whether what is there is to stay there."""
        try:
            with root.reached():
                present = root.filesystem.info(f"{root.path}/{entry.path}")
        except FileNotFoundError:
            return False
        if existing is Existing.overwrite:
            return False
        by_content = root.name == STORE and entry.path.split("/")[0] in _BY_CONTENT
        return not by_content or bool(present.get("size") == entry.size)

    def _rewritten(self, entry: Entry) -> bool:
        record = entry.root == HOME or entry.path.startswith(("runs/", "index/"))
        return bool(self._moves.pairs) and record and entry.path.endswith(".json") and entry.root in (STORE, HOME)

    def _write(self, root: Root, entry: Entry) -> None:
        assert entry.sha256 is not None
        what = f"{self._archive.url}: {entry.root}/{entry.path}"
        source = self._archive.pieces(self._archive.object_path(entry.sha256), entry.size, what)
        target = f"{root.path}/{entry.path}"
        if root.name == STORE and _ATTEMPT.fullmatch(entry.path):
            self._claim(root, entry, _intact(source, entry, what))
        elif self._rewritten(entry):
            self._write_moved(root, _intact(source, entry, what), target)
        else:
            with root.reached():
                copied = streams.copy(
                    source, root.filesystem, target, sha256=entry.sha256, size=entry.size, beat=self._beat
                )
            if not copied:
                raise backup_manifest.damaged(what)

    def _claim(self, root: Root, entry: Entry, data: bytes) -> None:
        """A run's newest attempt is never taken back: one that a newer one has superseded would write again."""
        with suppress(Superseded):
            Store(root.url).claim_attempt(entry.path.split("/")[1], str(json.loads(data)["attempt"]))

    def _write_moved(self, root: Root, data: bytes, target: str) -> None:
        try:
            value: Any = self._moves.value(json.loads(data))
            data = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
        except ValueError:  # no JSON after all
            pass
        with root.reached(), streams.whole_file(root.filesystem, target) as file:
            file.write(data)


def _intact(source: Iterable[bytes], entry: Entry, what: str) -> bytes:
    data = b"".join(source)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise backup_manifest.damaged(what)
    return data
