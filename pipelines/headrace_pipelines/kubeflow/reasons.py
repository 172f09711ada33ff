"""Why a step failed or does not start, where the step itself could not say: its pod's status, its log, the artifact.

Kubeflow's API has none of it. Pods are looked at by the target's kubeconfig, if it names one; the `executor-logs`
artifact by the target's pipeline_root. Without either the answer is only where to look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from headrace.base.errors import HeadraceError, InvalidInput, RunFailed
from headrace.store.filesystems import open_filesystem, reached, read_whole
from headrace_pipelines.kubeflow.cluster import Cluster

if TYPE_CHECKING:
    from headrace.cluster import Cluster as Kubernetes
    from headrace.cluster.pods import Pod

RUN_LABEL = "pipeline/runid"  # on every pod that Kubeflow makes for a run
NAMESPACE = "kubeflow"  # of a single-user Kubeflow's pods
CONTAINER = "main"  # of a step's pod: ours; the others are Argo's and Kubeflow's
LOG = "executor-logs"
LOG_LINES = 5000
INSIDE = "minio://"  # how Kubeflow calls the store that it brings
CLOCKS_SECONDS = 2.0  # that two machines' clocks may differ; a pod's is whole seconds
PATIENCE_SECONDS = 5.0  # with an API server that is only asked for a better word


def _kubernetes(cluster: Cluster) -> Kubernetes | None:
    """The cluster that the target's kubeconfig names; None where it names none."""
    target = cluster.target
    if target.kubeconfig is None:
        return None
    from headrace.cluster import connect

    namespace = target.kubeflow.namespace or NAMESPACE
    return connect(target.kubeconfig, target.context, namespace, patience_seconds=PATIENCE_SECONDS)


def pods_of(cluster: Cluster, kubeflow_run: str) -> list[Pod]:
    """The pods of a run, oldest first; none where the target names no kubeconfig.

    Raises:
        Unavailable: the cluster does not answer.
    """
    kubernetes = _kubernetes(cluster)
    if kubernetes is None:
        return []
    from headrace.cluster.pods import pods

    return pods(kubernetes, f"{RUN_LABEL}={kubeflow_run}")


def why_waiting(cluster: Cluster, kubeflow_run: str) -> str | None:
    """What keeps the pods of a run from starting, in words; None where nothing is known."""
    return "; ".join(f"{pod.name}: {pod.waits}" for pod in pods_of(cluster, kubeflow_run) if pod.waits) or None


def explained(
    cluster: Cluster, kubeflow_run: str, step: str, otherwise: HeadraceError, *, since: float | None
) -> HeadraceError:
    """The error of a STEP that left no word, as its pod or its log tells it; else OTHERWISE.

    Args:
        since: when Kubeflow began with the step, in seconds since 1970: older pods are of others.
    """
    with suppress(HeadraceError):  # what cannot be looked at from here tells nothing
        for pod in reversed(pods_of(cluster, kubeflow_run)):
            if pod.failure and (since is None or pod.created is None or pod.created > since - CLOCKS_SECONDS):
                return RunFailed(
                    f"the pod of step {step} failed: {pod.failure} ({pod.name})",
                    action=otherwise.action,
                    code="out-of-memory" if "OOMKilled" in pod.failure else otherwise.code,
                )
    with suppress(HeadraceError):
        if (last := _last_words(cluster, kubeflow_run, step)) is not None:
            return RunFailed(f"step {step} failed: {last}", action=otherwise.action, code="step-failed")
    return otherwise


def logs(cluster: Cluster, kubeflow_run: str, tell: Callable[[str], None]) -> Iterator[str]:
    """What the pods of a run printed, pod by pod, while they are there; else the artifacts of it.

    TELL is given why one of the two cannot be had.
    """
    for source in (_pod_logs, _artifacts):
        there = False
        try:
            for name, text in source(cluster, kubeflow_run):
                there = True
                yield f"== {name}\n{text}\n"
        except HeadraceError as error:
            tell(error.message)
        if there:
            return


def _pod_logs(cluster: Cluster, kubeflow_run: str) -> Iterator[tuple[str, str]]:
    kubernetes = _kubernetes(cluster)
    if kubernetes is not None:
        for pod in pods_of(cluster, kubeflow_run):
            yield pod.name, kubernetes.log(pod.name, CONTAINER, lines=LOG_LINES)


def _last_words(cluster: Cluster, kubeflow_run: str, step: str) -> str | None:
    """The last line of the step's log, which is a traceback's error."""
    for path, text in _artifacts(cluster, kubeflow_run):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if f"/{step}/" in path and lines:
            return lines[-1][:400]
    return None


def _artifacts(cluster: Cluster, kubeflow_run: str) -> Iterator[tuple[str, str]]:
    """The logs that Kubeflow's launcher put below `<root>/<pipeline>/<run>/<task>/<execution>/`, by path.

    Raises:
        HeadraceError: the root cannot be read from here.
    """
    root = cluster.target.kubeflow.pipeline_root
    if root is None:
        return
    if root.startswith(INSIDE):
        raise InvalidInput(
            f"the log artifacts are in the store inside Kubeflow ({root}), which only Kubeflow reaches",
            action="let pipeline_root be on the S3 store of the target",
        )
    filesystem, path = open_filesystem(root)
    with reached(root, filesystem), suppress(FileNotFoundError):
        for found in sorted(filesystem.glob(f"{path.rstrip('/')}/*/{kubeflow_run}/*/*/{LOG}")):
            yield str(found), read_whole(filesystem, found).decode("utf-8", "replace")
