"""A restore into this machine's home: whether somebody lives there, and that nobody writes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headrace.base.errors import InvalidInput
from headrace.steps.backup_place import Place


def there() -> dict[str, int]:
    """What of Headrace this home has, by word."""
    from headrace.local.desired_state import read_desired
    from headrace.local.runs import list_runs

    found = {"runs of this machine": len(list_runs()), "deployments": len(read_desired())}
    return {word: count for word, count in found.items() if count}


@contextmanager
def nobody_writes(uri: str, place: Place) -> Iterator[None]:
    """Stop what Headrace itself has running on the database URI, if that is this machine's own.

    Raises:
        InvalidInput: a run goes on here.
    """
    from headrace.tracking.connection import own_uri

    if place.home is not None and uri == own_uri():
        from headrace.local.runs import list_runs
        from headrace.tracking import service, ui

        if running := [run.run_id for run in list_runs() if run.running()]:
            raise InvalidInput(
                f"runs go on here: {', '.join(running)}",
                action=f"headrace cancel {running[0]}; it can be resumed afterwards",
                code="target-busy",
            )
        ui.stop()
        service.stop()
    yield
