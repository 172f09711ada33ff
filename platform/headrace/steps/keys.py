"""Under which key a step's work is looked up: everything that can change what comes out, and nothing else.

The store is the only cache, so these few lines decide whether anything stale is ever used.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points, version
from typing import Any

from headrace.base.jsonfile import sha256_of


def split_key(part: Mapping[str, Any], source_fingerprint: str) -> str:
    """The key of a split: its part of the spec, and the listing of the source when the run started."""
    return sha256_of({"part": dict(part), "source": source_fingerprint})


def train_key(part: Mapping[str, Any], split_fingerprint: str, versions: Mapping[str, str]) -> str:
    """The key of a training: its part of the spec (own code by hash, wherever it lies), the split, and the VERSIONS of
    all that trains (see `code_versions`)."""
    model = dict(part["model"])
    if isinstance(model.get("code"), Mapping):
        model["code"] = {"sha256": model["code"]["sha256"]}
    return sha256_of({"part": {**part, "model": model}, "split": split_fingerprint, "versions": dict(versions)})


def code_versions() -> dict[str, str]:
    """The versions of Headrace and of every distribution that adds models or tasks, also of one that fails here: a pod
    with another image comes to the same key."""
    points = (point for group in ("headrace.tasks", "headrace.models") for point in entry_points(group=group))
    plugins = {point.dist.name: point.dist.version for point in points if point.dist is not None}
    return {"headrace": version("headrace"), **dict(sorted(plugins.items()))}


def evaluation_uri(store_uri: Any, package_sha256: str, split_fingerprint: str) -> str:
    """Where the evaluation of a package on a split's test side lies; STORE_URI is `Store.uri`."""
    return str(store_uri("evaluations", package_sha256, f"{split_fingerprint}.json"))
