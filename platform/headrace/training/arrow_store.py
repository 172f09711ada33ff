"""The store's filesystem as Ray Train takes it: pyarrow's.

It travels, pickled, from the driver to the controller and the workers. Each of them opens it with its own credentials:
none are in it.
"""

from __future__ import annotations

from typing import Any

from pyarrow.fs import FSSpecHandler, PyFileSystem

from headrace.store import Store


class ObjectStoreHandler(FSSpecHandler):
    """An object store has no folders to make; s3fs would look for the bucket each time, and make a missing one."""

    def create_dir(self, path: str, recursive: bool) -> None:
        """Do nothing."""


def arrow_filesystem(store: Store) -> Any:
    """STORE's filesystem for `RunConfig(storage_filesystem=)`: None is this machine's own."""
    return None if store.local else PyFileSystem(ObjectStoreHandler(store.filesystem))
