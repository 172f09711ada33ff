"""Where the API server is and who we are there: from a pod's ServiceAccount, or from a person's kubeconfig.

In a pod nothing of kubernetes_asyncio is imported: it would load the models of every API group, 38 MiB that nobody
uses. A kubeconfig is read by it, for it knows its many ways of logging in (exec plugins, OIDC). No other module
imports it.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_SECONDS = 60.0  # the kubelet renews a token at 80 % of its life, which is never shorter than 10 minutes


class NoConnection(Exception):
    """There is nothing that says where the API server is; the message says what was looked for."""


@dataclass(frozen=True)
class Connection:
    """How to reach the API server.

    Args:
        url: `https://HOST:PORT`, without a slash at its end.
        tls: what to trust, and our client certificate if we have one; None for plain HTTP.
        authorization: the value of the Authorization header now; None for none.
        namespace: the namespace we run in, or that the kubeconfig's context names.
        renew: forget credentials that were read, as the API server does not take them or is not trusted by them; the
            next `authorization` reads again.
    """

    url: str
    tls: ssl.SSLContext | None
    authorization: Callable[[], Awaitable[str | None]]
    namespace: str
    renew: Callable[[], None] = lambda: None


async def connect(kubeconfig: str | None, service_account: Path = SERVICE_ACCOUNT) -> Connection:
    """The connection by KUBECONFIG if it is given, else by the pod's ServiceAccount, else by the usual kubeconfig.

    Raises:
        NoConnection: there is neither.
    """
    if kubeconfig is None and os.environ.get("KUBERNETES_SERVICE_HOST") and (service_account / "token").exists():
        return in_cluster(service_account)
    return await from_kubeconfig(kubeconfig)


def in_cluster(service_account: Path = SERVICE_ACCOUNT) -> Connection:
    """The connection of a pod; its token and the API server's CA are read again every minute, for both are replaced."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    namespace = service_account / "namespace"
    mounted = _Mounted(service_account)
    return Connection(
        url=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        tls=mounted.tls,
        authorization=mounted.header,
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
        renew=mounted.forget,
    )


class _Mounted:
    """What the kubelet mounts for a ServiceAccount, and replaces."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = (folder / "ca.crt").read_text()
        self.tls = ssl.create_default_context(cadata=self._ca)
        self._read_at = -_TOKEN_SECONDS
        self._token = ""

    def forget(self) -> None:
        self._read_at = -_TOKEN_SECONDS

    async def header(self) -> str:
        now = time.monotonic()
        if now - self._read_at >= _TOKEN_SECONDS:
            self._token, self._read_at = (self._folder / "token").read_text().strip(), now
            self._trust((self._folder / "ca.crt").read_text())
        return f"Bearer {self._token}"

    def _trust(self, authorities: str) -> None:
        """Trust AUTHORITIES, too: a CA is replaced by a bundle of the old one and the new one first."""
        if authorities != self._ca:
            self.tls.load_verify_locations(cadata=authorities)
            self._ca = authorities


async def from_kubeconfig(path: str | None) -> Connection:
    """The connection that a kubeconfig's current context describes; by default $KUBECONFIG's or ~/.kube/config's."""
    from kubernetes_asyncio import config
    from kubernetes_asyncio.client import Configuration

    settings = Configuration()
    try:
        await config.load_kube_config(config_file=path, client_configuration=settings)
        _, context = config.list_kube_config_contexts(path)
    except (config.ConfigException, OSError) as error:
        looked = path or os.environ.get("KUBECONFIG") or "~/.kube/config, and no ServiceAccount is mounted"
        raise NoConnection(f"no API server to talk to: {error} (looked at {looked})") from error
    keys = settings.api_key

    async def authorization() -> str | None:
        if "BearerToken" in keys:
            return str(await settings.get_api_key_with_prefix("BearerToken"))
        return str(settings.get_basic_auth_token()) if settings.username else None

    return Connection(
        url=str(settings.host).rstrip("/"),
        tls=_tls(settings) if str(settings.host).startswith("https") else None,
        authorization=authorization,
        namespace=str((context or {"context": {}})["context"].get("namespace") or "default"),
    )


def _tls(settings: object) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=getattr(settings, "ssl_ca_cert", None))
    if certificate := getattr(settings, "cert_file", None):
        context.load_cert_chain(certificate, keyfile=getattr(settings, "key_file", None))
    if not getattr(settings, "verify_ssl", True):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
