"""What the stand-in holds: pipelines, experiments, runs, schedules; who may ask; and how its cluster behaves."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kfp_stand_in.script import Script, Work

NEVER = "0001-01-01T00:00:00Z"
Record = dict[str, Any]


@dataclass(frozen=True)
class Beats:
    """Seconds that Kubeflow spends by itself, as measured on the real one as shipped, times `scale`."""

    scale: float = 0.01
    pending: float = 1.0
    requeue: float = 10.0
    driver: float = 3.5
    pod: float = 6.0
    terminate: float = 2.5

    def seconds(self, name: str) -> float:
        """One of them, scaled."""
        return float(getattr(self, name)) * self.scale


@dataclass
class World:
    """One Kubeflow.

    Args:
        multi_user: every call names a namespace and needs a token with a role there.
        tokens: the namespaces that each token has a role in; "*" has all. None: nobody asks.
        retry_policy: Argo's in every template: "OnError" as shipped, "Always" where it was taken out.
        missing_images: images that cannot be pulled.
        config_maps, secrets: of the workspace, for what pods read.
    """

    work: Work = field(default_factory=Script)
    multi_user: bool = False
    tokens: dict[str, set[str]] | None = None
    beats: Beats = field(default_factory=Beats)
    retry_policy: str = "OnError"
    missing_images: set[str] = field(default_factory=set)
    config_maps: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    largest_page: int = 200

    pipelines: dict[str, Record] = field(default_factory=dict)
    versions: dict[str, Record] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)  # by version
    experiments: dict[str, Record] = field(default_factory=dict)
    runs: dict[str, Record] = field(default_factory=dict)
    recurring: dict[str, Record] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def namespace_of_experiment(self, identity: str) -> str:
        """The namespace that an experiment is in."""
        return str(self.experiments.get(identity, {}).get("namespace") or "")


def now() -> str:
    """The present time as the API writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_id() -> str:
    """An id as Kubeflow's."""
    return str(uuid.uuid4())
