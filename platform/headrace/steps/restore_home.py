"""A restore into this machine's home: whether somebody lives there, and that nobody writes meanwhile."""

from __future__ import annotations

from headrace.base.errors import InvalidInput
from headrace.steps.backup_place import Place


def there() -> dict[str, int]:
    """What of Headrace this home has, by word."""
    from headrace.local.desired_state import read_desired
    from headrace.local.runs import list_runs

    found = {"runs of this machine": len(list_runs()), "deployments": len(read_desired())}
    return {word: count for word, count in found.items() if count}


def require_idle() -> None:
    """Raise InvalidInput where a run goes on here: it writes to what a restore writes to."""
    from headrace.local.runs import list_runs

    if running := [run.run_id for run in list_runs() if run.running()]:
        raise InvalidInput(
            f"runs go on here: {', '.join(running)}",
            action=f"headrace cancel {running[0]}; it can be resumed afterwards",
            code="target-busy",
        )


def stop_tracking(place: Place) -> None:
    """End what Headrace itself has running on MLflow's database, if that is this machine's own."""
    from headrace.tracking import service, ui
    from headrace.tracking.connection import own_uri

    if place.database == own_uri():
        ui.stop()
        service.stop()
