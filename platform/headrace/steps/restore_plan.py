"""What a restore would do, decided before anything changes: a person reads it, and agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from headrace.base.errors import InvalidInput
from headrace.steps import backup_files, backup_resources, restore_home
from headrace.steps.backup_archive import Archive
from headrace.steps.backup_manifest import Existing, Manifest, Part, summary
from headrace.steps.backup_moves import Moves
from headrace.steps.backup_place import ROOT_VARIABLE, Place, cluster_root
from headrace.steps.backup_resources import Restored
from headrace.steps.backup_verify import find_backup, verify_parts

if TYPE_CHECKING:
    from headrace.tracking.database_contents import Contents
    from headrace.tracking.database_load import Dump


@dataclass(frozen=True)
class Plan:
    """What a restore would do. `database` is None where MLflow's is left as it is; `left_out` is what of the backup is
    not restored, and how it would be."""

    archive: Archive
    manifest: Manifest
    place: Place
    parts: frozenset[Part]
    existing: Existing
    moves: Moves
    database: Contents | None = None
    there: Mapping[str, int] = field(default_factory=dict)  # what is in the target, by word
    left_out: tuple[str, ...] = ()

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
        told += [f"{old} -> {new}" for old, new in self._moves()]
        if self.there and self.existing is Existing.overwrite:
            told.append(f"written over: {counted(self.there)}; TrainingRuns that are there stay as they are")
        return [*told, *(f"not restored: {what}" for what in self.left_out)]

    def _moves(self) -> list[tuple[str, str]]:
        from headrace.tracking.connection import without_credentials

        return [(without_credentials(old), without_credentials(new)) for old, new in self.moves.pairs]

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "uri": self.archive.uri(self.manifest.name),
            **summary(self.manifest),
            "parts": sorted(part.value for part in self.parts),
            "moves": dict(self._moves()),
            "there": dict(self.there),
            "left_out": list(self.left_out),
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
        InvalidInput: there is no such backup, it is damaged, PLACE is not empty or somebody works there, it is not
            known where MLflow's files go, or this MLflow is too old.
        Unavailable: something cannot be reached.
    """
    archive, name = find_backup(source)
    manifest = archive.manifest(name)
    verify_parts(archive, manifest)
    chosen = _chosen(manifest, place, parts)
    if place.home is not None:
        restore_home.require_idle()
    if existing is Existing.overwrite:
        backup_resources.require_idle(place.namespaces)
    known = _known_database(place, manifest, chosen)
    database = known if Part.mlflow in chosen else None
    moves = Moves.of([*pairs, *_own_moves(place, manifest, known)])
    said = any(old.rstrip("/") == manifest.roots.get(backup_files.MLFLOW) for old, _ in pairs)
    if chosen & {Part.files, Part.mlflow}:
        _require_artifact_root(manifest, moves, known=said or _artifact_root(known) is not None)
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
    return replace(drafted, database=database, there=there, left_out=tuple(_left_out(drafted)))


def _has(manifest: Manifest) -> set[Part]:
    has = {Part.mlflow} if manifest.mlflow is not None else set()
    has |= {Part.files} if backup_files.FILE in manifest.parts else set()
    return has | ({Part.resources} if backup_resources.FILE in manifest.parts else set())


def _chosen(manifest: Manifest, place: Place, parts: frozenset[Part] | None) -> frozenset[Part]:
    has = _has(manifest)
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


def _left_out(drafted: Plan) -> Iterator[str]:
    """What of the backup is not restored. Without a word of it a restore looks whole that is not."""
    for part in sorted(_has(drafted.manifest) - drafted.parts):
        counts = drafted.manifest.counts
        objects = ", ".join(f"{counts.get(kind, 0)} {kind}" for kind in backup_resources.KINDS)
        yield f"{objects} (--namespace NAME)" if part is Part.resources else f"{part} (--include {part})"
    if Part.resources in drafted.parts:
        taken = {namespace.namespace for namespace in drafted.place.namespaces}
        for name in sorted({each.namespace for each in resources_of(drafted)} - taken):
            yield f"what is in the namespace {name} (--namespace {name})"


def _known_database(place: Place, manifest: Manifest, parts: frozenset[Part]) -> Contents | None:
    """What is in MLflow's database here, if it is written to, or says where the files of a backup go."""
    files_of_mlflow = Part.files in parts and backup_files.MLFLOW in manifest.roots and place.database is not None
    if Part.mlflow not in parts and not files_of_mlflow:
        return None
    from headrace.tracking.database_contents import contents
    from headrace.tracking.database_load import check_revision

    found = contents(place.require_database())
    if Part.mlflow in parts:
        check_revision(dump_of(manifest, lambda _: iter(())))
    return found


def _artifact_root(database: Contents | None) -> str | None:
    """Where MLflow keeps its files here, as its database or the server's own variable says."""
    return (database.artifact_root if database else None) or cluster_root()


def _require_artifact_root(manifest: Manifest, moves: Moves, known: bool) -> None:
    """Raise InvalidInput where the store moves and MLflow's files would not: they would go to the old cluster's."""
    store, root = (manifest.roots.get(name) for name in (backup_files.STORE, backup_files.MLFLOW))
    if known or root is None or store is None or moves.text(root) != root or moves.text(store) == store:
        return
    raise InvalidInput(
        f"it is not known where MLflow keeps its files here; in the backup that is {root}",
        action=f"start the MLflow server once, set {ROOT_VARIABLE}, or say so: --map-store {root}=NEW",
        code="artifact-root-unknown",
    )


def _own_moves(place: Place, manifest: Manifest, database: Contents | None) -> Iterator[tuple[str, str]]:
    """The moves that follow from where the target's store, MLflow and home are."""
    old = dict(manifest.roots)
    if manifest.mlflow is not None and manifest.mlflow.get("artifact_root"):
        old[backup_files.MLFLOW] = manifest.mlflow["artifact_root"]
    new = {backup_files.STORE: place.store, backup_files.HOME: place.home}
    new[backup_files.MLFLOW] = _artifact_root(database)
    for name, before in old.items():
        if after := new.get(name):
            yield before, after
    if manifest.mlflow_server and place.mlflow:
        yield manifest.mlflow_server, place.mlflow


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
