"""What goes when a new backup stands: backups beyond those to keep, half ones, and files that no backup needs."""

from __future__ import annotations

from collections.abc import Callable

from headrace.base.errors import InvalidInput
from headrace.steps import backup_files
from headrace.steps.backup_archive import Archive
from headrace.steps.backup_manifest import to_remove
from headrace.store.streams import Beat


def prune(archive: Archive, keep: int | None, beat: Beat, tell: Callable[[str], None]) -> list[str]:
    """Remove all but the newest KEEP backups (None: no whole one); the names of those removed. Only under the lock.

    Half backups are those of writers that died: nobody writes while we have the lock.
    """
    whole = archive.names()
    for name in set(archive.folders()) - set(whole):
        archive.remove(name)
    old = to_remove(whole, keep) if keep is not None else []
    for name in old:
        archive.remove(name)
        beat()
        tell(f"removed {archive.uri(name)}")
    if old:
        try:
            _remove_unneeded(archive, beat)
        except InvalidInput as error:  # who needs what cannot be told: the files stay, and this backup stands
            tell(f"note: {error.message}; no kept file is removed while that backup is there")
    return old


def _remove_unneeded(archive: Archive, beat: Beat) -> None:
    needed: set[str] = set()
    for name in archive.names():
        if backup_files.FILE in archive.manifest(name).parts:
            for entry in backup_files.read_index(archive, name):
                if entry.kept and entry.sha256 is not None:
                    needed.add(entry.sha256)
                beat()
    for sha256 in set(archive.objects()) - needed:
        beat()
        with archive.reached():
            archive.filesystem.rm_file(archive.object_path(sha256))
