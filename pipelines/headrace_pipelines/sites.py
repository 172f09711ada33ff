"""Where a run is: on this machine or on a target, found by its id, so that every command works on both alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from headrace.base.errors import HeadraceError, Unavailable
from headrace.base.home import home
from headrace.local.run_files import RunFiles
from headrace.local.runs import LocalRun, list_runs
from headrace.spec.targets import LOCAL, load_targets

if TYPE_CHECKING:
    from headrace.spec import RunSpec
    from headrace_pipelines.kubeflow.run import ClusterRun

    Run = LocalRun | ClusterRun


def start(spec: RunSpec, on: str, *, no_cache: bool = False, spec_file: str | PathLike[str] | None = None) -> Run:
    """Start a run of SPEC on this machine or on the target ON.

    Raises:
        SpecInvalid: the spec names data of this machine, and ON is elsewhere.
        NotEnoughResources: it asks for more than this machine has.
        Unavailable: the target cannot be reached.
    """
    return _start_here(spec, no_cache, spec_file) if on == LOCAL else _send(spec, on, no_cache, spec_file)


def _start_here(spec: RunSpec, no_cache: bool, spec_file: str | PathLike[str] | None) -> LocalRun:
    from headrace.local.ray_head import find_head
    from headrace.local.resources import check_resources
    from headrace.local.runs import create_run, start_runner

    check_resources(spec.to_record(), find_head())  # at once, before a runner has imported anything
    run_id = create_run(spec, no_cache=no_cache, spec_file=spec_file)
    start_runner(run_id)
    return LocalRun(run_id)


def _send(spec: RunSpec, target: str, no_cache: bool, spec_file: str | PathLike[str] | None) -> ClusterRun:
    from headrace.spec import load_spec
    from headrace_pipelines.kubeflow.cluster import Cluster
    from headrace_pipelines.kubeflow.run import submit

    cluster = Cluster.named(target)
    judged = load_spec(spec.to_record(), target=target)  # again: from Python it was read for no target
    return submit(cluster, judged, no_cache=no_cache, spec_file=spec_file)


def find_run(run_id: str, on: str | None = None) -> Run:
    """The run RUN_ID, on the target ON, or wherever it is known to be.

    A run that this machine neither made, sent nor looked at is looked for in the store of every target.

    Raises:
        InvalidInput: there is none.
        Unavailable: it is not found, and a target that may know it is away.
    """
    files = RunFiles.of(run_id)  # refuses what cannot be a run's id
    if on == LOCAL or (on is None and (files.folder / "run.json").exists()):
        return LocalRun(run_id)
    from headrace_pipelines.kubeflow.submission import remembered

    target = on or remembered(run_id)
    return _search(run_id) if target is None else _on(run_id, target)


def _on(run_id: str, target: str) -> ClusterRun:
    from headrace_pipelines.kubeflow.cluster import Cluster
    from headrace_pipelines.kubeflow.run import ClusterRun
    from headrace_pipelines.kubeflow.submission import remember

    found = ClusterRun(run_id, Cluster.named(target))
    if found.is_at_home:
        remember(run_id, target)
    return found


def _search(run_id: str) -> Run:
    """The run, on the target that it was sent to; else on one that shares the store, whose Kubeflow may be the same."""
    from headrace_pipelines.kubeflow.submission import UNKNOWN_RUN

    sharing: str | None = None
    trouble: HeadraceError | None = None
    for target in load_targets():
        try:
            found = _on(run_id, target)
            if found.is_at_home:
                return found
        except HeadraceError as error:
            trouble = trouble if error.code == UNKNOWN_RUN else error
        else:
            sharing = sharing or target
    if trouble is not None:
        raise trouble
    return LocalRun(run_id) if sharing is None else _on(run_id, sharing)  # the first says that there is none


# lists


def list_all(on: str | None, tell: Callable[[str], None]) -> list[tuple[Run, dict[str, Any]]]:
    """Runs with their records, newest first: all of ON, or those that this machine made, sent or looked at.

    What cannot be read is told of and left out: a run that goes on where Kubeflow is away, a target of another machine.
    """
    if on in (None, LOCAL):
        found = _with_records(list_runs(), tell)
        found += _sent(tell) if on is None else []
    else:
        from headrace_pipelines.kubeflow import run
        from headrace_pipelines.kubeflow.cluster import Cluster

        found = _with_records(run.list_runs(Cluster.named(on)), tell)
    return sorted(found, key=lambda each: (each[0].request["created"], each[0].run_id), reverse=True)


def _sent(tell: Callable[[str], None]) -> list[tuple[Run, dict[str, Any]]]:
    """Those on targets, target by target: while one is looked at, the environment is its own."""
    from headrace_pipelines.kubeflow.cluster import Cluster
    from headrace_pipelines.kubeflow.run import runs_of
    from headrace_pipelines.kubeflow.submission import TARGET_FILE, remembered

    run_ids: dict[str, list[str]] = {}
    for path in sorted((home() / "runs").glob(f"*/{TARGET_FILE}")):
        if (target := remembered(path.parent.name)) is not None:
            run_ids.setdefault(target, []).append(path.parent.name)
    found: list[tuple[Run, dict[str, Any]]] = []
    for target, known in run_ids.items():
        try:
            found += _with_records(runs_of(Cluster.named(target), known), tell)
        except HeadraceError as error:
            tell(f"runs on {target} are left out: {error.message}")
    return found


def _with_records(runs: Sequence[Run], tell: Callable[[str], None]) -> list[tuple[Run, dict[str, Any]]]:
    """RUNS of one place, each with its record."""
    found: list[tuple[Run, dict[str, Any]]] = []
    told: set[str] = set()
    away = False  # whether its Kubeflow is: it is waited for once, not for every run
    for run in runs:
        try:
            if away and not isinstance(run, LocalRun) and run.ended() is None:
                continue
            found.append((run, run.status()))
        except HeadraceError as error:
            away = away or isinstance(error, Unavailable)
            if error.message not in told:
                told.add(error.message)
                tell(f"runs that go on there are left out: {error.message}")
    return found
