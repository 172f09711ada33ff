"""Which of a run's checkpoint folders are checkpoints.

Ray Train copies a checkpoint into the run's storage and then names it in its snapshot: it exists once it is named
there. Folders that are not named are leavings of a killed worker or driver; Ray Train never removes them, so we do,
before a training starts.
"""

from __future__ import annotations

import json

from headrace.store import Store

SNAPSHOT = "checkpoint_manager_snapshot.json"  # Ray Train's; held by a test
PREFIX = "checkpoint_"


def committed(store: Store, checkpoints_uri: str) -> list[str] | None:
    """The folder names of the checkpoints that exist, oldest first; None where there never was one."""
    try:
        snapshot = json.loads(store.filesystem.cat_file(store.path(f"{checkpoints_uri}/{SNAPSHOT}")))
    except FileNotFoundError:
        return None
    return [str(result["checkpoint_dir_name"]) for result in snapshot["checkpoint_results"]]


def remove_uncommitted(store: Store, checkpoints_uri: str) -> list[str]:
    """Remove the folders that no snapshot names; returns their names. Only for whoever owns the run's attempt."""
    root = store.path(checkpoints_uri)
    if not store.filesystem.isdir(root):
        return []
    named = set(committed(store, checkpoints_uri) or ())
    removed = []
    for path in store.filesystem.ls(root, detail=False):
        name = str(path).rstrip("/").rsplit("/", 1)[-1]
        if name.startswith(PREFIX) and name != SNAPSHOT and name not in named:
            store.filesystem.rm(path, recursive=True)
            removed.append(name)
    return removed
