"""What a deployer and a front say to each other. Imported by both sides, and by the operator: no ray, no torch.

A deployer writes `user_config`; each replica of the front answers `GET <route>/headrace/v1/status`. A change is proven
when as many distinct replicas as Serve reports have answered its `config_id`; a load error keeps the old version and
stands in the status until the next configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STATUS_PATH = "/headrace/v1/status"


@dataclass(frozen=True)
class StableVersion:
    """The version that answers: `package_uri` is an fsspec URL, `sha256` the package's."""

    version: str
    package_uri: str
    sha256: str

    def to_record(self) -> dict[str, str]:
        """Plain JSON values; the constructor takes them back by name."""
        return {"version": self.version, "package_uri": self.package_uri, "sha256": self.sha256}


@dataclass(frozen=True)
class Candidate:
    """A version under trial in an application of its own; `weight` is percent of requests."""

    version: str
    application: str
    weight: float


@dataclass(frozen=True)
class Shadow:
    """A version that gets copies of `percent` of the requests and whose answers nobody sees."""

    version: str
    percent: float


@dataclass(frozen=True)
class FrontConfig:
    """A front's whole `user_config`."""

    config_id: str
    model: str
    stable: StableVersion
    candidates: tuple[Candidate, ...] = ()
    shadow: Shadow | None = None

    def to_record(self) -> dict[str, Any]:
        """As it stands in Serve's `user_config`."""
        return {
            "config_id": self.config_id,
            "model": self.model,
            "stable": self.stable.to_record(),
            "candidates": [
                {"version": c.version, "application": c.application, "weight": c.weight} for c in self.candidates
            ],
            "shadow": None if self.shadow is None else {"version": self.shadow.version, "percent": self.shadow.percent},
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> FrontConfig:
        """The inverse of `to_record`. Raises KeyError or TypeError for another shape."""
        shadow = record.get("shadow")
        return cls(
            config_id=str(record["config_id"]),
            model=str(record["model"]),
            stable=StableVersion(**record["stable"]),
            candidates=tuple(Candidate(**c) for c in record.get("candidates") or ()),
            shadow=None if shadow is None else Shadow(**shadow),
        )


@dataclass(frozen=True)
class FrontStatus:
    """One replica's answer. `config_id` and `stable` are what answers now; `loading` is the version being loaded;
    `error` is why the newest configuration did not come into force, and `wanted` is that newest one's id, so that an
    error is never taken for that of another configuration."""

    replica: str
    config_id: str | None
    stable: str | None
    loading: str | None
    error: str | None
    wanted: str | None = None

    def to_record(self) -> dict[str, Any]:
        """As the status path answers it."""
        return {
            "replica": self.replica,
            "config_id": self.config_id,
            "stable": self.stable,
            "loading": self.loading,
            "error": self.error,
            "wanted": self.wanted,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> FrontStatus:
        """The inverse of `to_record`; unknown keys are ignored, so that newer fronts can say more."""
        return cls(
            str(record["replica"]), *(record.get(k) for k in ("config_id", "stable", "loading", "error", "wanted"))
        )
