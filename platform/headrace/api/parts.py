"""What the three custom resources share: how fields are spelt and bounded, references, pods, conditions.

Everything here becomes OpenAPI for the API server (`headrace.api.crd`), so each field is of one type (no unions),
bounded where CEL rules look at it, and described: `kubectl explain` shows these sentences.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "headrace.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
URL = r"^[a-z][a-z0-9+.-]*://.+$"

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
Quantity = Annotated[str, Field(max_length=20, pattern=QUANTITY)]
Text = Annotated[str, Field(min_length=1, max_length=1024)]
Address = Annotated[str, Field(min_length=1, max_length=1024, pattern=URL)]


class Part(BaseModel):
    """Base of everything inside a custom resource: camelCase outside, unknown keys refused, values frozen."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def to_record(self) -> dict[str, Any]:
        """As it stands in an object: camelCase, nothing that is null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Status(Part):
    """Base of the status parts: what newer operators wrote is kept out of the way, not refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Condition(Status):
    """One condition, as Kubernetes' own API conventions have it."""

    type: str = Field(max_length=316, description="What it tells of, in CamelCase.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it is so.")
    reason: str = Field(
        min_length=1, max_length=1024, description="Why, in one word of CamelCase that programs can read."
    )
    message: str = Field(default="", max_length=32768, description="Why, in a sentence for people.")
    last_transition_time: str = Field(description="When `status` last changed (RFC 3339, UTC).")
    observed_generation: int = Field(default=0, ge=0, description="The generation of the spec that this tells of.")


class EnvironmentVariable(Part):
    """One environment variable of the containers."""

    name: str = Field(
        min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Name of the variable."
    )
    value: str = Field(default="", max_length=4096, description="Its value. Secrets belong into a Secret.")


class Toleration(Part):
    """A taint that the pods put up with."""

    key: str | None = Field(default=None, max_length=316, description="The taint's key; empty: every key.")
    operator: Literal["Exists", "Equal"] = Field(default="Equal", description="How `value` is compared.")
    value: str | None = Field(default=None, max_length=253, description="The taint's value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="The taint's effect; empty: every effect."
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, description="Seconds a pod stays after a NoExecute taint appeared."
    )


class PodResources(Part):
    """What one pod asks for; request and limit alike, so that it is never evicted for what it was promised."""

    cpu: Quantity = Field(default="1", description="CPU cores of the pod: `2`, `500m`. Default 1.")
    memory: Quantity = Field(default="4Gi", description="Memory of the pod, shared memory included. Default 4Gi.")
    gpu: int = Field(default=0, ge=0, le=64, description="GPUs of the pod. Default 0.")


class HeadResources(PodResources):
    """What the Ray head's pod asks for. No worker runs in it."""

    cpu: Quantity = Field(default="1", description="CPU cores of the head's pod. Default 1.")
    memory: Quantity = Field(default="3Gi", description="Memory of the head's pod. Default 3Gi.")


class PodSettings(Part):
    """What every pod of the Ray cluster has."""

    image: str = Field(
        default="",
        max_length=512,
        description="Image with Headrace, Ray and torch. Default: the operator's `--runtime-image`.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When the image is pulled. Default IfNotPresent."
    )
    image_pull_secrets: tuple[ObjectName, ...] = Field(
        default=(), max_length=8, description="Secrets of this namespace that the registry asks for."
    )
    service_account_name: ObjectName | None = Field(
        default=None,
        description="ServiceAccount of the pods. Default: the namespace's `default`; its token is not mounted.",
    )
    node_selector: dict[str, str] = Field(default={}, max_length=32, description="Labels that a node must have.")
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=16, description="Taints that pods put up with.")
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the pods.")
    shared_memory: Quantity = Field(
        default="1Gi",
        description="Size of /dev/shm, where Ray's object store and data loaders live; counts as the pod's memory.",
    )
    environment: tuple[EnvironmentVariable, ...] = Field(
        default=(), max_length=64, description="Environment variables of all containers."
    )
    gpu_resource: str = Field(
        default="nvidia.com/gpu",
        max_length=253,
        pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
        description="Resource name by which nodes offer GPUs. Default nvidia.com/gpu.",
    )
    head: HeadResources = Field(default=HeadResources(), description="What the head's pod asks for.")
    worker: PodResources = Field(default=PodResources(), description="What each worker's pod asks for.")


class StoreSettings(Part):
    """Where the files of runs lie."""

    uri: Address = Field(description="The store, an fsspec URL: `s3://bucket/prefix`.")
    secret_name: ObjectName | None = Field(
        default=None,
        description="Secret whose keys become environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...).",
    )


class MLflowSettings(Part):
    """The MLflow server."""

    tracking_uri: Address = Field(
        alias="trackingURI", description="Address of the MLflow server, as pods and the operator reach it."
    )
    secret_name: ObjectName | None = Field(
        default=None, description="Secret whose keys become environment variables (MLFLOW_TRACKING_TOKEN, ...)."
    )


class Authentication(Part):
    """Who may use the Ray cluster's own ports (jobs, dashboard); `ray start` alone lets everybody."""

    mode: Literal["token", "none"] = Field(
        default="token", description="`token`: only who knows the token. `none`: everybody in reach. Default token."
    )
    secret_name: ObjectName | None = Field(
        default=None, description="Secret with the key `auth_token`. Default: one that KubeRay makes."
    )
