"""Where the API server is and who we are there: from a pod's ServiceAccount, or from a person's kubeconfig.

The Kubernetes client is taken for what it knows best, the many ways of logging in (tokens that are replaced, exec
plugins, OIDC, client certificates); requests are our own, so that each is retried in the one way that is told here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.base.errors import InvalidInput, MissingExtra
from headrace.cluster.cluster import Cluster
from headrace.cluster.transport import PATIENCE_SECONDS, Transport

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def connect(
    kubeconfig: str | None = None,
    context: str | None = None,
    namespace: str | None = None,
    *,
    on_trouble: Callable[[str], None] | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Cluster:
    """The cluster that KUBECONFIG's CONTEXT names; by default the one that this pod is in, else the usual kubeconfig's.

    Args:
        namespace: where objects are; by default the pod's own, or the context's.
        on_trouble: told when the API server does not answer, and when it does again.
        patience_seconds: how long an API server that is away is waited for; then Unavailable is raised.

    Raises:
        InvalidInput: nothing says where an API server is.
        MissingExtra: the Kubernetes client is not installed.
    """
    if kubeconfig is None and context is None and _in_pod():
        client, own = _in_cluster()
    else:
        client, own = _by_kubeconfig(kubeconfig, context)
    transport = Transport(client, on_trouble=on_trouble, patience_seconds=patience_seconds)
    return Cluster(transport, namespace or own)


def _in_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (SERVICE_ACCOUNT / "token").exists()


def _in_cluster() -> tuple[Any, str]:
    client, config = _library()
    settings = client.Configuration()
    config.load_incluster_config(settings)
    return client.ApiClient(settings), (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()


def _by_kubeconfig(path: str | None, context: str | None) -> tuple[Any, str]:
    client, config = _library()
    settings = client.Configuration()
    path = path or os.environ.get("KUBECONFIG")  # the library looks only when it is imported
    try:
        config.load_kube_config(config_file=path, context=context, client_configuration=settings)
        contexts, current = config.list_kube_config_contexts(path)
    except (config.ConfigException, OSError) as error:
        looked = path or os.environ.get("KUBECONFIG") or "~/.kube/config"
        raise InvalidInput(
            f"no Kubernetes API server to talk to: {error} (looked at {looked})",
            action="name a kubeconfig and its context, or set KUBECONFIG; in a pod a ServiceAccount must be mounted",
            code="no-cluster",
        ) from error
    chosen = next((each for each in contexts if each["name"] == context), current)
    return client.ApiClient(settings), str(chosen["context"].get("namespace") or "default")


def _library() -> tuple[Any, Any]:
    try:
        from kubernetes import client, config  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtra("cluster", "talking to Kubernetes") from error
    return client, config
