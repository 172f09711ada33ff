"""The artifact store."""

from headrace.store.store import Store, attempt_order

__all__ = ["Store", "attempt_order"]
