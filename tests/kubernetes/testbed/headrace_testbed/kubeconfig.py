"""Kubeconfig files, written the one way that kubectl, the Go clients and Python's all read."""

from __future__ import annotations

from pathlib import Path

import yaml


def write_kubeconfig(path: Path, server: str, ca_file: Path, credentials: dict[str, str], namespace: str = "") -> Path:
    """Write PATH: one cluster and one user, whose CREDENTIALS are a token or the files of a client certificate."""
    place = {"namespace": namespace} if namespace else {}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority": str(ca_file)}}],
        "users": [{"name": "testbed", "user": credentials}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "testbed", **place}}],
        "current-context": "testbed",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def by_certificate(certificate: tuple[Path, Path]) -> dict[str, str]:
    """The credentials of a client certificate and its key."""
    return {"client-certificate": str(certificate[0]), "client-key": str(certificate[1])}
