"""Which of a run's checkpoint folders are checkpoints.

Ray Train copies a checkpoint into the run's storage and then names it in its snapshot: it exists once it is named
there. Folders that are not named are leavings of a killed worker or driver; Ray Train never removes them, so we do,
before a training starts.
"""

from __future__ import annotations

from headrace.store import Store

SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's; held by a test
PREFIX = "checkpoint_"


def committed(store: Store, checkpoints_uri: str) -> list[str] | None:
    """The folder names of the checkpoints that exist, oldest first; None where there never was one."""
    snapshot = store.read_json(f"{checkpoints_uri}/{SNAPSHOT}")
    if snapshot is None:
        return None
    return [str(result["checkpoint_dir_name"]) for result in snapshot["checkpoint_results"]]


def remove_uncommitted(store: Store, checkpoints_uri: str) -> list[str]:
    """Remove the folders that no snapshot names; returns their names. Only for whoever owns the run's attempt."""
    there = [name for name in store.names(checkpoints_uri) if name.startswith(PREFIX) and name != SNAPSHOT]
    named = set(committed(store, checkpoints_uri) or ()) if there else set()
    removed = [name for name in there if name not in named]
    for name in removed:
        store.remove_folder(f"{checkpoints_uri}/{name}")
    return removed
