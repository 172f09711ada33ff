"""`headrace restore`: a backup into an empty cluster or home, planned first, carried out once agreed.

In the other order than `headrace backup`: files, then the database, then custom resources, so that nothing is ever
there before what it names. Everything may be repeated: what an earlier, killed restore has written is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from headrace.steps import backup_resources, restore_home
from headrace.steps.backup_manifest import TABLES, Part
from headrace.steps.restore_files import FileRestorer
from headrace.steps.restore_plan import Plan, counted, dump_of, plan, resources_of

if TYPE_CHECKING:
    from headrace.tracking.database_contents import Contents

__all__ = ["Plan", "carry_out", "plan"]

Tell = Callable[[str], None]


def carry_out(agreed: Plan, tell: Tell) -> dict[str, Any]:
    """Do what was AGREED; what was restored, by word, with the TrainingRuns that wait for a person.

    Raises:
        InvalidInput: a file of the backup is damaged, or something changed meanwhile.
        Unavailable: something cannot be reached. A repetition with `--existing keep` goes on where this ended.
    """
    restored: dict[str, Any] = {}
    if agreed.place.home is not None:
        restore_home.require_idle()  # a person may have taken a while to agree
        restore_home.stop_tracking(agreed.place)
    if Part.files in agreed.parts:
        files = FileRestorer(agreed.archive, agreed.place, agreed.manifest, agreed.moves, tell)
        restored |= files.restore(agreed.existing)
    if Part.mlflow in agreed.parts and agreed.database is not None:
        restored |= _load_database(agreed, agreed.database, tell)
    waiting: list[str] = []
    if Part.resources in agreed.parts:
        counts, waiting = _make_resources(agreed, tell)
        restored |= counts
    return {**agreed.to_record(), "restored": restored, "waiting": waiting}


def _load_database(agreed: Plan, expected: Contents, tell: Tell) -> dict[str, int]:
    from headrace.tracking.database_load import load

    assert agreed.manifest.mlflow is not None
    columns = agreed.manifest.mlflow["columns"]

    def rows(table: str) -> Iterator[list[Any]]:
        places = agreed.moves.columns(table, columns[table])
        for row in agreed.archive.lines(agreed.manifest.name, f"mlflow/{table}.jsonl.gz"):
            for place in places:
                row[place] = agreed.moves.value(row[place])
            yield row

    dump = dump_of(agreed.manifest, rows)
    written = load(agreed.place.require_database(), dump, expected=expected, tell=tell)
    counts = {word: written.get(table, 0) for word, table in TABLES.items()}
    tell("MLflow: " + counted(counts))
    return counts


def _make_resources(agreed: Plan, tell: Tell) -> tuple[dict[str, int], list[str]]:
    counts = dict.fromkeys(backup_resources.KINDS, 0)
    namespaces = {namespace.namespace: namespace for namespace in agreed.place.namespaces}
    waiting = []
    for wanted in resources_of(agreed):
        namespace = namespaces.get(wanted.namespace)
        if namespace is None:
            continue
        made = backup_resources.make(wanted, namespace, agreed.existing)
        counts[wanted.kind.kind] += made
        if made and wanted.waits:
            waiting.append(f"{wanted.namespace}/{wanted.name}")
    tell("custom resources: " + counted(counts))
    return counts, waiting
