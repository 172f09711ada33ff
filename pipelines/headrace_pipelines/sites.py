"""Where a run is: on this machine or on a target, found by its id, so that every command works on both alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from typing import TYPE_CHECKING, Any

from headrace.base.errors import InvalidInput, Unavailable
from headrace.base.home import home
from headrace.local.run_files import RunFiles
from headrace.local.runs import LocalRun
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
    from headrace_pipelines.kubeflow.run import ClusterRun
    from headrace_pipelines.kubeflow.submission import submit

    cluster = Cluster.named(target)
    judged = load_spec(spec.to_record(), target=target)  # again: from Python it was read for no target
    return ClusterRun(submit(cluster, judged, no_cache=no_cache, spec_file=spec_file), cluster)


def find_run(run_id: str, on: str | None = None) -> Run:
    """The run RUN_ID, on the target ON, or wherever it is known to be.

    A run that this machine neither made, sent nor looked at is looked for in the store of every target.

    Raises:
        InvalidInput: there is none.
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
    remember(run_id, target)
    return found


def _search(run_id: str) -> Run:
    for target in load_targets():
        try:
            return _on(run_id, target)
        except (InvalidInput, Unavailable):
            continue
    return LocalRun(run_id)  # which says that there is none


def runs_on(target: str) -> list[ClusterRun]:
    """Every run of the cluster TARGET, whoever sent it."""
    from headrace_pipelines.kubeflow.cluster import Cluster
    from headrace_pipelines.kubeflow.run import list_runs

    return list_runs(Cluster.named(target))


def sent_runs(tell: Callable[[str], None]) -> list[ClusterRun]:
    """The runs on targets that this machine sent or looked at; a target that is away is told of, and left out."""
    from headrace_pipelines.kubeflow.submission import TARGET_FILE, remembered

    found: list[ClusterRun] = []
    away: set[str] = set()
    for path in sorted((home() / "runs").glob(f"*/{TARGET_FILE}")):
        target = remembered(path.parent.name)
        if target is None or target in away:
            continue
        try:
            found.append(_on(path.parent.name, target))
        except (InvalidInput, Unavailable) as error:
            if isinstance(error, Unavailable) or error.code == "unknown-target":  # else the run is gone from its store
                away.add(target)
                tell(f"runs on {target} are left out: {error.message}")
    return found


def with_records(runs: Iterable[Run], tell: Callable[[str], None]) -> list[tuple[Run, dict[str, Any]]]:
    """RUNS, each with its record; those whose Kubeflow is away, and that had not ended, are told of and left out."""
    found: list[tuple[Run, dict[str, Any]]] = []
    told: set[str] = set()
    for run in runs:
        try:
            found.append((run, run.status()))
        except Unavailable as error:
            if error.message not in told:
                told.add(error.message)
                tell(f"runs that go on there are left out: {error.message}")
    return found
