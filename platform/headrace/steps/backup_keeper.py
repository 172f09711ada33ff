"""The bytes of the files that a backup keeps, each content once.

What a file holds is known by its hash. A file whose size and mark (time or etag) are as they were in the backup before
has the hash that it had then, so that only what is new is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from headrace.steps.backup_archive import Archive
from headrace.steps.backup_files import Entry, Needs, Root, is_checkpoint
from headrace.steps.backup_progress import Progress
from headrace.store import streams


class Keeper:
    """Puts files into an archive, each content once."""

    def __init__(
        self,
        archive: Archive,
        roots: Iterable[Root],
        previous: Iterator[Entry],
        beat: streams.Beat,
        tell: Callable[[str], None],
    ) -> None:
        self._archive, self._lock_beat, self._progress = archive, beat, Progress(tell)
        self._at = ""  # the file that is looked at
        self._roots = {root.name: root for root in roots}
        self._there = archive.objects()
        self._previous = previous
        self._next: Entry | None = next(previous, None)
        self.kept = self.listed = self.kept_bytes = self.new_bytes = 0
        self.notes: list[str] = []

    def entries(self, needs: Needs) -> Iterator[Entry]:
        """Every file of the roots, for the index; those that NEEDS names are kept on the way."""
        for name in sorted(self._roots):
            for entry in self._roots[name].entries():
                self._at = f"{entry.root}/{entry.path}"
                self.listed += 1
                self._beat()
                found = self._known(entry)
                yield self._keep(found) if needs.keeps(entry) else self._read(found)

    def _beat(self) -> None:
        """Between two pieces of work: the lock is kept, and people are told."""
        self._lock_beat()
        self._progress(self._words)

    def _words(self) -> str:
        new = f"{self.new_bytes / 1e6:,.1f} MB new"
        return f"{self.listed:,} files looked at, {self.kept:,} kept, {new}: {self._at}"

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
        if entry.sha256 is not None or is_checkpoint(entry):
            return entry
        try:
            sha256, size = self._hash(entry)
        except (FileNotFoundError, streams.ChangedMeanwhile):
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
            except streams.ChangedMeanwhile:
                pass
            except FileNotFoundError:
                self.notes.append(f"{entry.root}/{entry.path} went away while it was copied")
                return entry
            entry = Entry(entry.root, entry.path, entry.size, entry.mark)
        self.notes.append(f"{entry.root}/{entry.path} changed all the time and was not kept")
        return entry

    def _copy(self, entry: Entry, sha256: str, size: int) -> bool:
        source, target = self._roots[entry.root].pieces(entry), self._archive.object_path(sha256)
        with self._archive.reached():
            copied = streams.copy(source, self._archive.filesystem, target, sha256=sha256, size=size, beat=self._beat)
        if copied:
            self._there[sha256] = size
            self.new_bytes += size
        return copied

    def _hash(self, entry: Entry) -> tuple[str, int]:
        return streams.hash_of(self._roots[entry.root].pieces(entry), self._beat)
