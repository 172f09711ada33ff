"""A Kubernetes control plane of this process's own: real, on loopback, without root and without a node.

Everything that an API server decides is decided here as in production: RBAC, Pod Security, CRD validation, server-side
apply, ownership, namespaces that end. Only pods stay Pending, as no kubelet runs. etcd does not fsync, which is the one
thing that may be lost here and nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from headrace_testbed.api import Api, ApiError, Object
from headrace_testbed.builds import program
from headrace_testbed.components import Components, Place
from headrace_testbed.kubeconfig import write_kubeconfig
from headrace_testbed.pki import Pki
from headrace_testbed.processes import free_port
from headrace_testbed.waiting import eventually

START_SECONDS = 240  # 5 on a quiet machine; on a shared one the first read of the programs alone may take 90
EVERYTHING: Object = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class KubectlError(Exception):
    """kubectl ended with an error; its words."""


class ControlPlane:
    """etcd, kube-apiserver, kube-controller-manager and kube-scheduler, with their files in FOLDER.

    With an AUDIT_POLICY (`EVERYTHING` records who asked for what) the API server writes `audit_log`.
    """

    def __init__(
        self, folder: Path | None = None, audit_policy: Object | None = None, place: Place | None = None
    ) -> None:
        self.place = place or Place()
        self.folder = folder or Path(tempfile.mkdtemp(prefix="headrace-testbed-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pki = Pki(self.folder / "pki")
        self.url = f"https://127.0.0.1:{free_port()}"
        self._parts = parts = Components(self.folder, self.pki, self.url, audit_policy, self.place)
        self.etcd, self.apiserver = parts.etcd, parts.apiserver
        self.controller_manager, self.scheduler = parts.controller_manager, parts.scheduler
        self.audit_log = parts.audit_log
        admin = self.pki.client("admin", "admin", "system:masters")
        self.kubeconfig = parts.kubeconfig("admin", admin)
        self.api = Api(self.url, self.pki.ca_file, certificate=admin)
        self._clients = [self.api]

    def __enter__(self) -> ControlPlane:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # -- its life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until pods can be created."""
        self.etcd.start()
        self.etcd.wait_for(self._etcd_healthy, START_SECONDS)
        self.apiserver.start()
        self.apiserver.wait_for(self._serves, START_SECONDS)  # the controllers give up after 10 s of their own
        self.controller_manager.start()
        self.scheduler.start()
        self.wait_ready()

    def stop(self) -> None:
        """End it at once, for good: nothing in it is worth an orderly end. Its logs stay, its objects do not."""
        for client in self._clients:
            client.close()
        for daemon in (self.scheduler, self.controller_manager, self.apiserver, self.etcd):
            daemon.kill()
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)  # 64 MB and more, by the dozen below /tmp

    def kill_apiserver(self) -> None:
        """End the API server as a crash would. etcd keeps what it knew."""
        self.apiserver.kill()

    def start_apiserver(self) -> None:
        """Start the API server again, at the same address."""
        self.apiserver.start()
        self.wait_ready()

    def restart_apiserver(self) -> None:
        """Kill the API server and start it anew."""
        self.kill_apiserver()
        self.start_apiserver()

    def _etcd_healthy(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self._parts.etcd_url}/health", trust_env=False).is_success
        return False

    def _serves(self) -> bool:
        with contextlib.suppress(httpx.TransportError, ApiError):
            return self.api.request("GET", "/readyz") == "ok"
        return False

    def _controlled(self) -> bool:
        """Whether the controller manager works: without it no namespace gets the account that its pods need."""
        with contextlib.suppress(ApiError):
            return bool(self.api.get("/api/v1/namespaces/default/serviceaccounts/default"))
        return False

    def wait_ready(self) -> None:
        """Wait until the API server is ready and the controllers are at work."""
        self.apiserver.wait_for(self._serves, START_SECONDS)
        self.controller_manager.wait_for(self._controlled, START_SECONDS)
        assert self.scheduler.running, (
            f"the scheduler has ended. {self.scheduler.log} ends with:\n{self.scheduler.log_end()}"
        )

    @property
    def has_node(self) -> bool:
        """Whether pods run."""
        return self.place != Place()

    def open_loopback(self, port: int) -> None:
        """Make PORT of the loopback that its daemons listen on the same port of this machine's: here it is."""

    # -- its users ----------------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, input: str | None = None, kubeconfig: Path | None = None) -> str:  # noqa: A002
        """What `kubectl ARGUMENTS` prints, as the administrator unless another KUBECONFIG is given."""
        env = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
        }
        done = subprocess.run(
            [program("kubectl"), *arguments],
            env=env,
            input=input,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def service_account_token(self, namespace: str, name: str) -> str:
        """A token, good for a day, of a ServiceAccount that exists."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 86400},
        }
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        return self.api.post(path, request)["status"]["token"]

    def kubeconfig_for_service_account(self, namespace: str, name: str) -> Path:
        """A kubeconfig with which a program is the ServiceAccount NAME, with its rights and no others."""
        path = self.folder / f"{namespace}.{name}.kubeconfig"
        token = {"token": self.service_account_token(namespace, name)}
        return write_kubeconfig(path, self.url, self.pki.ca_file, token, namespace)

    def api_for_service_account(self, namespace: str, name: str) -> Api:
        """A client that is the ServiceAccount NAME; it is closed with the control plane."""
        api = Api(self.url, self.pki.ca_file, token=self.service_account_token(namespace, name))
        self._clients.append(api)
        return api

    def wait_for(self, path: str, **parameters: Any) -> Object:
        """The object at PATH, once it exists."""

        def look() -> Object | None:
            try:
                return self.api.get(path, **parameters)
            except ApiError as error:
                if error.status != 404:
                    raise
                return None

        return eventually(look)

    def audited(self, user: str = "", containing: str = "") -> Iterator[Object]:
        """What the API server was asked so far, oldest first; only by USER if given, and only lines CONTAINING that.

        Each stands here when it is over: whoever asked may know a little earlier.
        """
        for line in self.audit_log.read_bytes().split(b"\n")[:-1]:  # the last one is still written, or nothing
            if containing.encode() not in line or user.encode() not in line:  # to read them takes most of the time
                continue
            event = json.loads(line)
            if user in ("", event["user"].get("username")):  # none: whoever it was could not say who it is
                yield event
