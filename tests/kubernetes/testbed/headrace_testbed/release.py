"""Our chart on a node, in its smallest profile, of images that were packed here: what a platform engineer installs."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx

from headrace_testbed.api import Object
from headrace_testbed.helm import NAMESPACE, Helm
from headrace_testbed.images import OURS, reference
from headrace_testbed.node import Node
from headrace_testbed.waiting import eventually

WORKSPACE = "team-a"
# Packed for the node in place of what their makers publish: Debian's PostgreSQL, and Versity's gateway from its module.
THEIRS = ("postgres", "versitygw")
IMAGES = (*OURS, *THEIRS)
START_SECONDS = 600  # 40 on a quiet machine
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
_WORKLOADS = ("deployments", "statefulsets")


def _image(name: str) -> Object:
    repository, _, tag = reference(name).rpartition(":")
    return {"repository": repository, "tag": tag}


class Release:
    """The chart, installed in NAMESPACE of NODE with one workspace; its files in FOLDER."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.helm = Helm(folder, node.kubeconfig)
        self._mlflow = ""

    @staticmethod
    def values() -> Object:
        """What is said to the chart. There are no volumes on the node, so data dies with its pod."""
        images = {name: _image(name) for name in OURS}
        images |= {"postgresql": _image("postgres"), "s3": _image("versitygw")}
        gone = {"persistence": {"enabled": False}}
        return {
            "profile": "small",
            "workspaces": [WORKSPACE],
            "images": images,
            "postgresql": gone,
            "s3": gone,
            "mlflow": {"allowedHosts": ["127.0.0.1:*"]},
        }

    def install(self) -> str:
        """Install it and wait until all of its pods are ready; the notes that helm prints."""
        for name in (NAMESPACE, WORKSPACE):
            self.node.api.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": _RESTRICTED}})
        notes = self.helm.install(NAMESPACE, self.values())
        eventually(lambda: not self.unready(), START_SECONDS, 0.5)
        return notes

    def workloads(self) -> Iterator[Object]:
        """Its Deployments and StatefulSets."""
        for kind in _WORKLOADS:
            yield from self.node.api.list(f"/apis/apps/v1/namespaces/{NAMESPACE}/{kind}")

    def unready(self) -> list[str]:
        """Those of which a pod is missing or not ready."""
        found = list(self.workloads())
        return [
            each["metadata"]["name"]
            for each in found
            if each.get("status", {}).get("readyReplicas", 0) < each["spec"]["replicas"]
        ] or ([] if found else ["nothing is there"])

    def site(self) -> dict[str, Any]:
        """What the chart tells the steps of a workspace."""
        found = self.node.api.get(f"/api/v1/namespaces/{WORKSPACE}/configmaps/headrace-site")
        site: dict[str, Any] = json.loads(found["data"]["HEADRACE_SITE"])
        return site

    def s3(self) -> Any:
        """A client of the store, through its Service, with the workspace's key."""
        secret = self.node.api.get(f"/api/v1/namespaces/{WORKSPACE}/secrets/headrace-store")["data"]
        key, value = (
            base64.b64decode(secret[name]).decode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        )
        address = f"http://{self.node.forward_service(NAMESPACE, 'headrace-s3', 7070)}"
        return boto3.client(
            "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=value
        )

    def mlflow(self) -> httpx.Client:
        """A client of MLflow's REST API, through its Service."""
        if not self._mlflow:
            self._mlflow = f"http://{self.node.forward_service(NAMESPACE, 'headrace-mlflow', 5000)}"
        return httpx.Client(base_url=f"{self._mlflow}/api/2.0/mlflow", timeout=60, trust_env=False)
