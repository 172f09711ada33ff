"""ModelMonitor: how well an endpoint does, measured in Prometheus and told as conditions."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from headrace.api.parts import Condition, Part, Status
from headrace.api.rules import list_map, rule, rules
from headrace.api.texts import DeploymentName, Time, WebAddress

KIND = "ModelMonitor"


class PrometheusSettings(Part):
    """Where the measurements are."""

    url: WebAddress = Field(description="Address of the Prometheus that scrapes the endpoint.")


class Objectives(Part):
    """What the endpoint must keep; what is left out is measured and not judged."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.maxP50Seconds) || !has(self.maxP99Seconds) || self.maxP50Seconds <= self.maxP99Seconds",
                "maxP50Seconds is above maxP99Seconds, and no median is above the 99th percentile: swap them, or leave "
                "one out",
                field=".maxP50Seconds",
            )
        )
    )

    max_error_ratio: float | None = Field(
        default=None, ge=0, le=1, description="Largest share of requests that may be answered 5xx, 0..1."
    )
    max_p50_seconds: float | None = Field(default=None, gt=0, description="Longest median latency, in seconds.")
    max_p99_seconds: float | None = Field(default=None, gt=0, description="Longest 99th percentile, in seconds.")


class ModelMonitorSpec(Part):
    """Which endpoint is measured, how often, and what it must keep."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.windowSeconds >= self.intervalSeconds",
                "windowSeconds (300 where it is left out) is shorter than intervalSeconds, and what lies between would "
                "never be measured: raise windowSeconds, or lower intervalSeconds",
                field=".windowSeconds",
            )
        )
    )

    deployment_name: DeploymentName = Field(description="The ModelDeployment of this namespace.")
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
    measured_time: Time | None = Field(default=None, description="When the newest measurement was made.")
    requests: float | None = Field(default=None, description="Requests in the window.")
    error_ratio: float | None = Field(default=None, description="Share of them that was answered 5xx.")
    p50_seconds: float | None = Field(default=None, description="Median latency, in seconds.")
    p99_seconds: float | None = Field(default=None, description="99th percentile of latency, in seconds.")
    conditions: tuple[Condition, ...] = Field(
        default=(), max_length=32, description="One of each type.", json_schema_extra=list_map("type")
    )
