"""What a restore would do, decided before anything changes: a person reads it, and agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.base.errors import InvalidInput
from headrace.steps import backup_files, backup_resources, restore_home
from headrace.steps.backup_archive import Archive
from headrace.steps.backup_manifest import Existing, Manifest, Part, summary
from headrace.steps.backup_moves import Moves
from headrace.steps.backup_place import Place, cluster_root
from headrace.steps.backup_resources import Restored
from headrace.steps.backup_verify import find_backup, verify_parts

if TYPE_CHECKING:
    from headrace.tracking.database_contents import Contents
    from headrace.tracking.database_load import Dump


@dataclass(frozen=True)
class Plan:
    """What a restore would do. `database` is None where MLflow's is left as it is."""

    archive: Archive
    manifest: Manifest
    place: Place
    parts: frozenset[Part]
    existing: Existing
    moves: Moves
    database: Contents | None = None
    there: Mapping[str, int] = field(default_factory=dict)  # what is in the target, by word

    def lines(self) -> list[str]:
        """The change as a person judges it, one line a part."""
        counts = self.manifest.counts
        told = [f"backup {self.archive.uri(self.manifest.name)}, made by Headrace {self.manifest.headrace}"]
        if Part.mlflow in self.parts:
            words = ", ".join(f"{counts.get(word, 0)} {word}" for word in ("runs", "models", "versions", "aliases"))
            kept = "; what is there is kept" if self.database is None else ""
            told.append(f"MLflow: {words}{kept}")
        if Part.files in self.parts:
            told.append(f"files: {counts.get('kept', 0):,} of {self.manifest.kept_bytes / 1e6:,.1f} MB")
        if Part.resources in self.parts:
            told.append(", ".join(f"{counts.get(kind, 0)} {kind}" for kind in backup_resources.KINDS))
        told += [f"{old} -> {new}" for old, new in self.moves.pairs]
        if self.there and self.existing is Existing.overwrite:
            told.append("written over: " + counted(self.there))
        return told

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "uri": self.archive.uri(self.manifest.name),
            **summary(self.manifest),
            "parts": sorted(part.value for part in self.parts),
            "moves": dict(self.moves.pairs),
            "there": dict(self.there),
        }


def plan(
    place: Place,
    source: str,
    *,
    parts: frozenset[Part] | None = None,
    existing: Existing = Existing.refuse,
    pairs: Sequence[tuple[str, str]] = (),
) -> Plan:
    """What restoring SOURCE into PLACE would do. Changes nothing.

    Args:
        place: what is restored into.
        source: a backup, or a place of backups: then its newest.
        parts: what is restored; None: all that the backup has and PLACE takes.
        existing: what becomes of what is there already.
        pairs: old and new places, beside those that follow from PLACE.

    Raises:
        InvalidInput: there is no such backup, it is damaged, PLACE is not empty, or this MLflow is too old.
        Unavailable: something cannot be reached.
    """
    archive, name = find_backup(source)
    manifest = archive.manifest(name)
    verify_parts(archive, manifest)
    chosen = _chosen(manifest, place, parts)
    database = _database(place, manifest, chosen)
    moves = Moves.of([*pairs, *_own_moves(place, manifest, database)])
    drafted = Plan(archive, manifest, place, chosen, existing, moves, database)
    there = _there(drafted)
    if there and existing is Existing.refuse:
        raise InvalidInput(
            f"the target is not empty: {counted(there)}",
            action="restore into an empty one, or say what becomes of what is there: --existing keep (only what is "
            "missing is restored) or --existing overwrite",
            code="target-not-empty",
        )
    if database is not None and database.used and existing is Existing.keep:
        database = None
    return Plan(archive, manifest, place, chosen, existing, moves, database, there)


def _chosen(manifest: Manifest, place: Place, parts: frozenset[Part] | None) -> frozenset[Part]:
    has = {Part.mlflow} if manifest.mlflow is not None else set()
    has |= {Part.files} if backup_files.FILE in manifest.parts else set()
    has |= {Part.resources} if backup_resources.FILE in manifest.parts else set()
    if parts is None:
        return frozenset(has - (set() if place.namespaces else {Part.resources}))
    if missing := sorted(part.value for part in parts - has):
        raise InvalidInput(
            f"the backup {manifest.name} has no {', '.join(missing)}",
            action=f"leave it out; it has: {', '.join(sorted(part.value for part in has))}",
            code="backup-without",
        )
    if Part.resources in parts and not place.namespaces:
        raise InvalidInput("this machine takes no custom resources", action="name a cluster: --on TARGET")
    return parts


def _database(place: Place, manifest: Manifest, parts: frozenset[Part]) -> Contents | None:
    if Part.mlflow not in parts:
        return None
    from headrace.tracking.database_contents import contents
    from headrace.tracking.database_load import check_revision

    found = contents(place.require_database())
    check_revision(dump_of(manifest, lambda _: iter(())))
    return found


def _own_moves(place: Place, manifest: Manifest, database: Contents | None) -> Iterator[tuple[str, str]]:
    """The moves that follow from where the target's store, MLflow and home are."""
    old = dict(manifest.roots)
    if manifest.mlflow is not None and manifest.mlflow.get("artifact_root"):
        old[backup_files.MLFLOW] = manifest.mlflow["artifact_root"]
    new = {backup_files.STORE: place.store, backup_files.HOME: place.home}
    new[backup_files.MLFLOW] = (database.artifact_root if database else None) or cluster_root()
    for name, before in old.items():
        if after := new.get(name):
            yield before, after
    if manifest.tracking_uri and place.tracking_uri:
        yield manifest.tracking_uri, place.tracking_uri


def _there(drafted: Plan) -> dict[str, int]:
    """What the target has already of what would be restored, by word."""
    there: dict[str, int] = dict(drafted.database.used) if drafted.database is not None else {}
    if Part.files in drafted.parts and drafted.place.home is not None:
        there |= restore_home.there()
    if Part.resources in drafted.parts:
        wanted = list(resources_of(drafted))
        for namespace in drafted.place.namespaces:
            for kind in backup_resources.KINDS.values():
                names = {each.name for each in wanted if (each.kind, each.namespace) == (kind, namespace.namespace)}
                present = sum(found["metadata"]["name"] in names for found in namespace.list(kind)) if names else 0
                there |= {f"{kind.plural} in {namespace.namespace}": present} if present else {}
    return there


def counted(there: Mapping[str, int]) -> str:
    """Counts by word, for people."""
    return ", ".join(f"{count:,} {word}" for word, count in there.items())


def dump_of(manifest: Manifest, rows: Callable[[str], Iterator[Sequence[Any]]]) -> Dump:
    """The backup's database, with ROWS of each table."""
    from headrace.tracking.database_load import Dump

    assert manifest.mlflow is not None
    return Dump(manifest.mlflow["revision"], manifest.mlflow["version"], manifest.mlflow["columns"], rows)


def resources_of(plan: Plan) -> Iterator[Restored]:
    """What would be made of each object of the backup."""
    for record in plan.archive.lines(plan.manifest.name, backup_resources.FILE):
        yield backup_resources.restored(record, plan.moves, plan.manifest.name)
