"""What is backed up, and what is restored into: this machine, or a cluster."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from headrace.base.errors import InvalidInput
from headrace.base.home import home
from headrace.spec.targets import LOCAL, find_target
from headrace.steps.backup_resources import Namespace
from headrace.store import Store

DATABASE_VARIABLE = "MLFLOW_BACKEND_STORE_URI"  # the one that `mlflow server` itself reads
LEASE = "headrace-backup"  # what the operator reads for its metric of the last good backup
URI_ANNOTATION = "headrace.dev/backup-uri"
ROOT_VARIABLE = "MLFLOW_DEFAULT_ARTIFACT_ROOT"  # likewise


@dataclass(frozen=True)
class Place:
    """One Headrace: its store, its MLflow, and what is around them.

    Args:
        store: the store's URL.
        mlflow: the MLflow server's address, without a password: it is written down, told, and put in the place of
            another's. None where MLflow is a database.
        database: MLflow's database, None where nobody said where it is.
        home: this machine's home folder, None for a cluster.
        namespaces: the cluster's namespaces; none for this machine.
        kubeconfig: the kubeconfig and context that led there.
    """

    store: str
    mlflow: str | None
    database: str | None
    home: str | None = None
    namespaces: tuple[Namespace, ...] = ()
    kubeconfig: tuple[str | None, str | None] = (None, None)

    def require_database(self) -> str:
        """MLflow's database. Raises InvalidInput where it is not known."""
        if self.database is None:
            raise InvalidInput(
                "MLflow is a server here, and a backup needs its database",
                action=f"set {DATABASE_VARIABLE}=postgresql+psycopg2://USER:PASSWORD@HOST:5432/NAME (in a cluster of "
                "the chart: kubectl create job --from=cronjob/headrace-backup now), or leave MLflow out: "
                "--include files",
                code="database-unknown",
            )
        return self.database


def this_machine() -> Place:
    """What this machine has."""
    from headrace.tracking.connection import is_server, tracking_uri

    uri = tracking_uri()
    database = os.environ.get(DATABASE_VARIABLE) or (None if is_server(uri) else uri)
    return Place(Store().url, server_address(uri), database, home=str(home()))


def server_address(uri: str | None) -> str | None:
    """URI without a password, if it is an MLflow server's."""
    from headrace.tracking.connection import is_server, without_credentials

    return without_credentials(uri) if uri is not None and is_server(uri) else None


def cluster(target: str, namespaces: Sequence[str]) -> Place:
    """The cluster TARGET; where that is `local`, the one that this process is in, or that the usual kubeconfig names,
    with its store and MLflow from the environment.

    Raises:
        InvalidInput: there is no such target, or it names no kubeconfig.
    """
    from headrace.cluster.connection import connect

    kubeconfig: tuple[str | None, str | None] = (None, None)
    if target != LOCAL:
        found = find_target(target)
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # of another site
        os.environ.update(found.environment())
        kubeconfig = (found.kubeconfig, found.context)
        if found.kubeconfig is None and not os.environ.get("KUBECONFIG"):
            raise InvalidInput(
                f"the target {target} names no kubeconfig, and custom resources are read by one",
                action="add `kubeconfig: FILE` to the target, or set KUBECONFIG",
                code="no-cluster",
            )
        namespaces = namespaces or [name for name in (found.kubeflow.namespace,) if name]
    known = [connect(*kubeconfig, name) for name in namespaces] or [connect(*kubeconfig)]
    return Place(
        Store().url,
        server_address(os.environ.get("MLFLOW_TRACKING_URI")),
        os.environ.get(DATABASE_VARIABLE),
        namespaces=tuple(known),
        kubeconfig=kubeconfig,
    )


def find_place(target: str, namespaces: Sequence[str]) -> Place:
    """This machine, unless TARGET or NAMESPACES name a cluster."""
    return this_machine() if target == LOCAL and not namespaces else cluster(target, namespaces)


def cluster_root() -> str | None:
    """Where new experiments keep their files, as an MLflow server here would be told; None where nobody says."""
    return os.environ.get(ROOT_VARIABLE)


def tell_operator(place: Place, namespace: str, uri: str) -> None:
    """Write down, in the Lease that the operator reads, that a good backup ended now at URI."""
    from headrace.api.kinds import LEASE as LEASE_KIND
    from headrace.cluster.connection import connect

    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    change = {
        "metadata": {"name": LEASE, "annotations": {URI_ANNOTATION: uri}},
        "spec": {"holderIdentity": "headrace backup", "renewTime": now},
    }
    found = connect(*place.kubeconfig, namespace)
    if found.create(LEASE_KIND, change) is None:
        found.patch(LEASE_KIND, LEASE, change)


def end_by_exception() -> None:
    """Let a TERM, as pods get it, end this process like Ctrl-C does: locks are given back on the way."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
