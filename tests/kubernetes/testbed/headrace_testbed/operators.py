"""The operators of others that ours works with, as real processes beside the control plane: KubeRay and Kueue.

Each is installed from its makers' own manifests, with its own ServiceAccount and no rights beyond those they give.
Only its Deployment is left out, as there is no node: the process here takes its place.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import httpx
import yaml

from headrace_testbed.api import ApiError, Object
from headrace_testbed.builds import built, manifests
from headrace_testbed.control_plane import START_SECONDS, ControlPlane
from headrace_testbed.ours import wait_until_served
from headrace_testbed.processes import Daemon, free_port
from headrace_testbed.waiting import eventually

_CRDS = Path(__file__).parent.parent / "crds"
_KUBERAY_1_7, _PROMETHEUS_OPERATOR = _CRDS / "kuberay-1.7", _CRDS / "prometheus-operator-0.85"
_LEFT_OUT = ("Deployment", "APIService", "Namespace")


def _healthy(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _apply(plane: ControlPlane, objects: Iterable[Object]) -> None:
    """Apply OBJECTS and wait until the API server serves the kinds among them."""
    kinds = []
    for manifest in objects:
        plane.api.apply(manifest, "testbed", force=True)
        if manifest["kind"] == "CustomResourceDefinition":
            kinds.append(manifest)
    for definition in kinds:
        wait_until_served(plane, definition)


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def install_kuberay_1_7(plane: ControlPlane) -> None:
    """Make the kinds of KubeRay 1.7 known: the version that our manifests must be valid under as well as 1.6."""
    _install_archived(plane, _KUBERAY_1_7)


def install_prometheus_operator_kinds(plane: ControlPlane) -> None:
    """Make the Prometheus Operator's kinds known, so that the API server judges ours."""
    _install_archived(plane, _PROMETHEUS_OPERATOR)


def _install_archived(plane: ControlPlane, folder: Path) -> None:
    archives = sorted(folder.glob("*.yaml.gz"))
    _apply(plane, [yaml.load(gzip.decompress(archive.read_bytes()), yaml.CSafeLoader) for archive in archives])


class KubeRayOperator:
    """KubeRay's operator, version 1.6. Where there is no node it reaches dashboards through the API server's proxy."""

    NAMESPACE = "kuberay-system"

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._health = f"127.0.0.1:{free_port()}"
        self.metrics_address = f"127.0.0.1:{free_port()}"
        self._flags = () if plane.has_node else ("-use-kubernetes-proxy",)
        self.daemon: Daemon | None = None

    def _objects(self) -> Iterable[Object]:
        for manifest in manifests("kuberay"):
            if manifest["kind"] not in (*_LEFT_OUT, "Service"):
                in_our_namespace = json.dumps(manifest).replace(
                    '"namespace": "default"', f'"namespace": "{self.NAMESPACE}"'
                )
                yield json.loads(in_our_namespace)

    def start(self) -> None:
        """Install it and wait until it works."""
        _apply(self._plane, [_namespace(self.NAMESPACE), *self._objects()])
        self.daemon = Daemon(
            "ray-operator",
            [
                *self._plane.place.prefix,
                built("kuberay") / "ray-operator",
                f"-kubeconfig={self._plane.kubeconfig_for_service_account(self.NAMESPACE, 'kuberay-operator')}",
                "-enable-leader-election=false",
                *self._flags,
                "-enable-metrics",
                f"-metrics-addr={self.metrics_address}",
                f"-health-probe-bind-address={self._health}",
            ],
            self._plane.folder / "ray-operator.log",
        )
        self.daemon.start()
        for address in (self._health, self.metrics_address):
            self._plane.open_loopback(int(address.rpartition(":")[2]))
        self.daemon.wait_for(lambda: _healthy(f"http://{self._health}/readyz"), START_SECONDS)

    def stop(self) -> None:
        """End it. What it installed stays until the control plane goes."""
        if self.daemon:
            self.daemon.kill()


class Kueue:
    """Kueue's manager with its webhooks, managing Jobs and Ray's three kinds.

    Its certificates reach it as a kubelet would bring them: read from the Secret that it fills itself. The API server
    reaches its webhooks through a Service of type ExternalName, the one kind that may point to loopback.
    """

    NAMESPACE = "kueue-system"
    FRAMEWORKS = ("batch/job", "ray.io/rayjob", "ray.io/raycluster", "ray.io/rayservice")
    _SERVICE = "kueue-webhook-service"
    _SECRET = "kueue-webhook-server-cert"

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._folder = plane.folder / "kueue"
        self._health = f"127.0.0.1:{free_port()}"
        self._webhook_port = free_port()
        self.daemon: Daemon | None = None

    def _config(self) -> Path:
        config = {
            "apiVersion": "config.kueue.x-k8s.io/v1beta2",
            "kind": "Configuration",
            "namespace": self.NAMESPACE,
            "health": {"healthProbeBindAddress": self._health},
            "metrics": {"bindAddress": f"127.0.0.1:{free_port()}"},
            "webhook": {"host": "127.0.0.1", "port": self._webhook_port, "certDir": str(self._folder / "certificates")},
            "internalCertManagement": {
                "enable": True,
                "webhookServiceName": self._SERVICE,
                "webhookSecretName": self._SECRET,
            },
            "leaderElection": {"leaderElect": False},
            "manageJobsWithoutQueueName": False,
            "integrations": {"frameworks": list(self.FRAMEWORKS)},
            "featureGates": {"VisibilityOnDemand": False},
        }
        path = self._folder / "config.json"
        path.write_text(json.dumps(config))
        return path

    def _concerns_us(self, webhook: Object) -> bool:
        """Whether it is about Kueue's kinds or a framework that is on; the others would refuse what tests make."""
        path = webhook["clientConfig"]["service"]["path"]
        return any(part in path for part in ("-kueue-x-k8s-io-", "-ray-io-", "-batch-v1-job"))

    def _objects(self) -> Iterable[Object]:
        for manifest in manifests("kueue"):
            if manifest["kind"] in _LEFT_OUT or "visibility" in manifest["metadata"]["name"]:
                continue
            if manifest["kind"].endswith("WebhookConfiguration"):
                manifest["webhooks"] = [each for each in manifest["webhooks"] if self._concerns_us(each)]
            if manifest["kind"] == "Service":
                if manifest["metadata"]["name"] != self._SERVICE:
                    continue
                manifest["spec"] = {"type": "ExternalName", "externalName": "localhost"}
            yield manifest

    def _serve_on_port(self, manifest: Object) -> Object:
        """Point every reference to the webhooks' Service at the port of the process."""
        text = json.dumps(manifest).replace(
            f'"name": "{self._SERVICE}"', f'"name": "{self._SERVICE}", "port": {self._webhook_port}'
        )
        return json.loads(text) if manifest["kind"] != "Service" else manifest

    def start(self) -> None:
        """Install it and wait until it works and its webhooks are trusted."""
        (self._folder / "certificates").mkdir(parents=True, exist_ok=True)
        _apply(self._plane, [_namespace(self.NAMESPACE), *map(self._serve_on_port, self._objects())])
        kubeconfig = self._plane.kubeconfig_for_service_account(self.NAMESPACE, "kueue-controller-manager")
        self.daemon = Daemon(
            "kueue",
            [
                built("kueue") / "kueue",
                f"--config={self._config()}",
                f"--kubeconfig={kubeconfig}",
            ],
            self._plane.folder / "kueue.log",
        )
        self.daemon.start()
        self._bring_certificates()
        self.daemon.wait_for(lambda: _healthy(f"http://{self._health}/readyz"), START_SECONDS)
        self.daemon.wait_for(self._is_trusted, START_SECONDS)

    def _is_trusted(self) -> bool:
        """Whether the API server has heard of the certificate that Kueue has put into its webhooks' configuration."""
        flavor = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "trial"}}
        try:
            path = "/apis/kueue.x-k8s.io/v1beta2/resourceflavors"
            return bool(self._plane.api.request("POST", path, params={"dryRun": "All"}, json=flavor))
        except ApiError as error:
            if error.status != 500:
                raise
            return False

    def _bring_certificates(self) -> None:
        secret = f"/api/v1/namespaces/{self.NAMESPACE}/secrets/{self._SECRET}"
        data = eventually(lambda: self._plane.api.get(secret).get("data"), START_SECONDS)
        for name in ("tls.key", "tls.crt", "ca.crt"):  # the certificate last but one: Kueue starts when it is there
            (self._folder / "certificates" / name).write_bytes(base64.b64decode(data[name]))

    def stop(self) -> None:
        """End it. Its webhooks refuse Ray's kinds from then on, as they do when a real one is down."""
        if self.daemon:
            self.daemon.kill()
