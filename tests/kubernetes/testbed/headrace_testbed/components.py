"""The four daemons of a control plane: which flags each is given, and why where that is not plain."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from headrace_testbed.api import Object
from headrace_testbed.builds import built
from headrace_testbed.kubeconfig import by_certificate, write_kubeconfig
from headrace_testbed.pki import Pki
from headrace_testbed.processes import Daemon, free_port


@dataclass(frozen=True)
class Place:
    """Where daemons run: on this machine's loopback, or with a node, behind an address that pods can reach."""

    prefix: tuple[str, ...] = ()  # what runs a command there
    address: str = "127.0.0.1"


class Components:
    """The daemons of the control plane in FOLDER, none of them started."""

    def __init__(self, folder: Path, pki: Pki, url: str, audit_policy: Object | None, place: Place) -> None:
        self._folder, self._pki, self._url, self._place = folder, pki, url, place
        self._binaries = built("kubernetes")
        self._token_public, self._token_key = pki.key_pair("service-accounts")
        self.etcd_url = f"http://127.0.0.1:{free_port()}"
        self.audit_log = folder / "audit.log"
        self.etcd = self._etcd()
        self.apiserver = self._apiserver(audit_policy)
        self.controller_manager = self._controller_manager()
        self.scheduler = self._scheduler()

    def kubeconfig(self, name: str, certificate: tuple[Path, Path]) -> Path:
        """A kubeconfig for whoever CERTIFICATE names."""
        path = self._folder / f"{name}.kubeconfig"
        return write_kubeconfig(path, self._url, self._pki.ca_file, by_certificate(certificate))

    def _daemon(self, program: Path, *flags: str) -> Daemon:
        return Daemon(program.name, [*self._place.prefix, program, *flags], self._folder / f"{program.name}.log")

    def _etcd(self) -> Daemon:
        peer = f"http://127.0.0.1:{free_port()}"
        return self._daemon(
            built("etcd") / "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={self.etcd_url}",
            f"--advertise-client-urls={self.etcd_url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )

    def _apiserver(self, audit_policy: Object | None) -> Daemon:
        certificate, key = self._pki.server("kube-apiserver")
        audit = []
        if audit_policy:
            policy = self._folder / "audit-policy.json"
            policy.write_text(json.dumps(audit_policy))
            audit = [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]
            audit.append("--audit-log-maxsize=10000")  # MB: by default another file is begun at 100
        return self._daemon(
            self._binaries / "kube-apiserver",
            f"--etcd-servers={self.etcd_url}",
            f"--secure-port={self._url.rpartition(':')[2]}",
            *self._reached_at(),
            "--authorization-mode=Node,RBAC",
            # Pod Security is on by default; as on OpenShift, who makes another wait for its deletion needs that right.
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
            f"--client-ca-file={self._pki.ca_file}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._token_public}",
            f"--service-account-signing-key-file={self._token_key}",
            "--service-cluster-ip-range=10.96.0.0/16",
            *audit,
        )

    def _reached_at(self) -> list[str]:
        """Flags for who may reach the API server, and whom it reaches."""
        address = self._place.address
        if address == "127.0.0.1":  # which is no valid endpoint
            return ["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"]
        certificate, key = self._pki.client("kubelet-client", "kube-apiserver", "system:masters")
        kubelet = [f"--kubelet-client-certificate={certificate}", f"--kubelet-client-key={key}"]
        kubelet.append("--kubelet-preferred-address-types=InternalIP")  # its name is nobody's
        return ["--bind-address=0.0.0.0", f"--advertise-address={address}", *kubelet]

    def _controller_manager(self) -> Daemon:
        certificate = self._pki.client("kube-controller-manager", "system:kube-controller-manager")
        return self._daemon(
            self._binaries / "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig('kube-controller-manager', certificate)}",
            f"--service-account-private-key-file={self._token_key}",
            f"--root-ca-file={self._pki.ca_file}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",  # tests delete namespaces by the dozen
            "--kube-api-burst=400",
        )

    def _scheduler(self) -> Daemon:
        certificate = self._pki.client("kube-scheduler", "system:kube-scheduler")
        kubeconfig = self.kubeconfig("kube-scheduler", certificate)
        return self._daemon(
            self._binaries / "kube-scheduler", f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"
        )
