"""ModelMonitor: how well an endpoint does, measured in Prometheus and told as conditions."""

from __future__ import annotations

from pydantic import Field

from headrace.api.parts import Address, Condition, ObjectName, Part, Status

KIND = "ModelMonitor"


class PrometheusSettings(Part):
    """Where the measurements are."""

    url: Address = Field(description="Address of the Prometheus that scrapes the endpoint.")


class Objectives(Part):
    """What the endpoint must keep; what is left out is measured and not judged."""

    max_error_ratio: float | None = Field(
        default=None, ge=0, le=1, description="Largest share of requests that may be answered 5xx, 0..1."
    )
    max_p50_seconds: float | None = Field(default=None, gt=0, description="Longest median latency, in seconds.")
    max_p99_seconds: float | None = Field(default=None, gt=0, description="Longest 99th percentile, in seconds.")


class ModelMonitorSpec(Part):
    """Which endpoint is measured, how often, and what it must keep."""

    deployment_name: ObjectName = Field(description="The ModelDeployment of this namespace.")
    prometheus: PrometheusSettings = Field(description="Where the measurements are.")
    interval_seconds: int = Field(default=60, ge=5, le=86400, description="Seconds between measurements. Default 60.")
    window_seconds: int = Field(default=300, ge=15, le=86400, description="Seconds that one measurement looks back.")
    min_requests: int = Field(
        default=10, ge=1, description="Requests in the window below which nothing is judged. Default 10."
    )
    objectives: Objectives = Field(default=Objectives(), description="What the endpoint must keep.")


class ModelMonitorStatus(Status):
    """The newest measurement. Conditions: Accepted, Measured (Prometheus answered with data), Healthy (every objective
    is kept; Unknown without data)."""

    observed_generation: int = Field(default=0, ge=0, description="Generation of the spec that this tells of.")
    message: str = Field(default="", max_length=4096, description="What is broken, or why nothing is known.")
    measured_time: str | None = Field(default=None, description="When the newest measurement was made.")
    requests: float | None = Field(default=None, description="Requests in the window.")
    error_ratio: float | None = Field(default=None, description="Share of them that was answered 5xx.")
    p50_seconds: float | None = Field(default=None, description="Median latency, in seconds.")
    p99_seconds: float | None = Field(default=None, description="99th percentile of latency, in seconds.")
    conditions: tuple[Condition, ...] = Field(default=(), description="See above.")
