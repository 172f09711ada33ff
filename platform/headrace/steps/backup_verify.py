"""Whether a backup can still be trusted: every byte of it is read and held to its hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from headrace.base.errors import Finding, InvalidInput
from headrace.steps import backup_files, backup_manifest
from headrace.steps.backup_archive import Archive
from headrace.steps.backup_manifest import Manifest
from headrace.steps.backup_progress import Progress
from headrace.store import streams

MOST_FINDINGS = 20


def find_backup(source: str) -> tuple[Archive, str]:
    """The backup that SOURCE names: itself, or the newest in that place. Raises InvalidInput where there is none."""
    place, _, last = source.rstrip("/").rpartition("/")
    if place and backup_manifest.NAME.fullmatch(last):
        return Archive(place), last
    archive = Archive(source)
    names = archive.names()
    if not names:
        raise InvalidInput(
            f"there is no whole backup at {archive.url}",
            action="name the folder or URL that backups were written to, or one of them: DEST/20261126T043000Z",
            code="backup-absent",
        )
    return archive, names[-1]


def verify_parts(archive: Archive, manifest: Manifest, beat: streams.Beat = lambda: None) -> None:
    """Hold the backup's own files to the manifest. Raises InvalidInput, naming what is damaged."""
    bad = [
        f"{manifest.name}/{path}"
        for path, part in manifest.parts.items()
        if not _intact(archive, archive.path(manifest.name, path), part.sha256, part.bytes, beat)
    ]
    _refuse(archive, bad)


def verify_anew(archive: Archive, name: str, beat: streams.Beat, tell: Callable[[str], None]) -> dict[str, Any]:
    """As `verify`, for the backup NAME that was just written, under its lock: damage does not outlive it.

    Files are kept once, so the bytes may be of a backup long ago. What is damaged is set aside, and kept anew by the
    next backup.
    """
    return _verified(archive, name, beat, tell, archive.set_aside)


def verify(archive: Archive, name: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """Read all of the backup NAME; `{"files", "bytes"}` that were read. Raises InvalidInput, naming what is damaged."""
    return _verified(archive, name, lambda: None, tell, lambda _: None)


def _verified(
    archive: Archive,
    name: str,
    keep_lock: streams.Beat,
    tell: Callable[[str], None],
    on_damage: Callable[[str], None],
) -> dict[str, Any]:
    manifest = archive.manifest(name)
    verify_parts(archive, manifest, keep_lock)
    files, size = len(manifest.parts), sum(part.bytes for part in manifest.parts.values())
    bad, progress = [], Progress(tell)

    def beat() -> None:
        keep_lock()
        progress(lambda: f"{files:,} files read, {size / 1e6:,.1f} MB")

    for entry in _distinct(archive, manifest):
        assert entry.sha256 is not None
        if not _intact(archive, archive.object_path(entry.sha256), entry.sha256, entry.size, beat):
            bad.append(f"{entry.root}/{entry.path}")
            on_damage(entry.sha256)
        files, size = files + 1, size + entry.size
    _refuse(archive, bad)
    tell(f"verified: {files:,} files, {size / 1e6:,.1f} MB")
    return {"files": files, "bytes": size}


def _distinct(archive: Archive, manifest: Manifest) -> Iterator[backup_files.Entry]:
    seen: set[str] = set()
    if backup_files.FILE in manifest.parts:
        for entry in backup_files.read_index(archive, manifest.name):
            if entry.kept and entry.sha256 is not None and entry.sha256 not in seen:
                seen.add(entry.sha256)
                yield entry


def _intact(archive: Archive, path: str, sha256: str, size: int, beat: streams.Beat = lambda: None) -> bool:
    try:
        return streams.hash_of(archive.pieces(path, size, path), beat) == (sha256, size)
    except InvalidInput:
        return False


def _refuse(archive: Archive, bad: list[str]) -> None:
    if not bad:
        return
    error = backup_manifest.damaged(f"{archive.url}: {bad[0]}")
    if len(bad) == 1:
        raise error
    findings = [Finding(path, "not the bytes that were written", "", "") for path in bad[:MOST_FINDINGS]]
    raise InvalidInput(
        f"{archive.url}: {len(bad)} files are damaged", action=error.action, code=error.code, findings=findings
    )
