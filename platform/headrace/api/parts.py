"""What the three custom resources share: how fields are spelt and bounded, references, conditions.

Everything here becomes OpenAPI for the API server (`headrace.api.crd`), so each field is of one type (no unions),
bounded where CEL rules look at it, and described: `kubectl explain` shows these sentences. Rules stand with the part or
the field that they judge (`rules`); they run in the API server, before anything is stored.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from headrace.api.rules import rule, rules
from headrace.api.texts import Address, ObjectName, Time, WebAddress

GROUP = "headrace.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
RUN_ID_LABEL = f"{GROUP}/run-id"  # of what is made for a run; an annotation of what outlives it


class Part(BaseModel):
    """Base of everything inside a custom resource: camelCase outside, unknown keys refused, values frozen."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, allow_inf_nan=False
    )

    def to_record(self) -> dict[str, Any]:
        """As it stands in an object, and as the API server gives it back, so that what has not changed compares equal:
        camelCase, no field that is null, whole numbers without a point, no number that JSON does not have."""
        record: dict[str, Any] = _as_the_server_writes(self.model_dump(mode="json", by_alias=True, exclude_none=True))
        return record


def _as_the_server_writes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_the_server_writes(inner) for key, inner in value.items() if _in_json(inner)}
    if isinstance(value, list):
        return [_as_the_server_writes(inner) for inner in value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if whole else value


def _in_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


class Status(Part):
    """Base of the status parts: what newer operators wrote is kept out of the way, not refused."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=True)  # a diverged loss is a fact


class Condition(Status):
    """One condition, as Kubernetes' own API conventions have it."""

    type: str = Field(min_length=1, max_length=316, description="What it tells of, in CamelCase.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it is so.")
    reason: str = Field(
        min_length=1, max_length=1024, description="Why, in one word of CamelCase that programs can read."
    )
    message: str = Field(default="", max_length=32768, description="Why, in a sentence for people.")
    last_transition_time: Time = Field(description="When `status` last changed (RFC 3339, UTC).")
    observed_generation: int = Field(default=0, ge=0, description="The generation of the spec that this tells of.")


class StoreSettings(Part):
    """Where the files of runs lie."""

    uri: Address = Field(description="The store, an fsspec URL: `s3://bucket/prefix`.")
    secret_name: ObjectName | None = Field(
        default=None,
        description="Secret whose keys become environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...).",
    )


class MLflowSettings(Part):
    """The MLflow server."""

    tracking_uri: WebAddress = Field(
        alias="trackingURI", description="Address of the MLflow server, as pods and the operator reach it."
    )
    secret_name: ObjectName | None = Field(
        default=None, description="Secret whose keys become environment variables (MLFLOW_TRACKING_TOKEN, ...)."
    )


class Authentication(Part):
    """Who may use the Ray cluster's own ports (jobs, dashboard); `ray start` alone lets everybody."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.mode == 'token' || !has(self.secretName)",
                "mode none asks nobody for a token: remove secretName, or write mode token",
                field=".secretName",
            )
        )
    )

    mode: Literal["token", "none"] = Field(
        default="token", description="`token`: only who knows the token. `none`: everybody in reach. Default token."
    )
    secret_name: ObjectName | None = Field(
        default=None, description="Secret with the key `auth_token`. Default: one that KubeRay makes."
    )
