"""What a custom resource says of the pods of its Ray cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from headrace.api.parts import Part
from headrace.api.rules import list_map, list_set, rule, rules
from headrace.api.texts import VARIABLE, ObjectName, Quantity, pattern

# What the operator or KubeRay sets in every container: a pod that sets one otherwise would not start, or not be ours.
RESERVED_VARIABLES = (
    *("HEADRACE_TRAINING_RUN", "HEADRACE_RUN_ID", "HEADRACE_ATTEMPT", "HEADRACE_RAY_CLUSTER", "HEADRACE_POD_UID"),
    *("HEADRACE_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_IP", "RAY_PORT", "RAY_CLUSTER_NAME", "FQ_RAY_IP"),
    *("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_REDIS_ADDRESS", "RAY_enable_autoscaler_v2"),
    *("REDIS_PASSWORD", "REDIS_USERNAME"),
)


class EnvironmentVariable(Part):
    """One environment variable of the containers."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"!(self.name in {list(RESERVED_VARIABLES)})",
                "${self.name} is set by the operator: remove it, what it holds follows from the other fields",
                field=".name",
            )
        )
    )

    name: Annotated[
        str,
        pattern(VARIABLE, "${self} can be no variable: write letters, digits and _, no digit first", 256),
    ] = Field(description="Name of the variable.")
    value: str = Field(default="", max_length=4096, description="Its value. Secrets belong into a Secret.")


class Toleration(Part):
    """A taint that the pods put up with."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.operator != 'Exists' || !has(self.value)",
                "operator Exists takes every value: remove value, or write operator Equal",
            ),
            rule("has(self.key) || self.operator == 'Exists'", "without a key operator must be Exists: add the key"),
            rule(
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "tolerationSeconds is for the effect NoExecute only: remove it, or write effect NoExecute",
            ),
        )
    )

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

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "quantity(self.cpu).isGreaterThan(quantity('0'))",
                "cpu is ${self.cpu}: write what the pod needs, as 2 or 500m",
                field=".cpu",
            ),
            rule(
                "quantity(self.memory).compareTo(quantity('64Mi')) >= 0",
                "memory is ${self.memory}, which no Ray pod can start with: write at least 64Mi, with the unit, as 4Gi",
                field=".memory",
            ),
        )
    )

    cpu: Quantity = Field(default="1", description="CPU cores of the pod: `2`, `500m`. Default 1.")
    memory: Quantity = Field(default="4Gi", description="Memory of the pod, shared memory included. Default 4Gi.")
    gpu: int = Field(default=0, ge=0, le=64, description="GPUs of the pod. Default 0.")


class HeadResources(PodResources):
    """What the Ray head's pod asks for. No worker runs in it."""

    cpu: Quantity = Field(default="1", description="CPU cores of the head's pod. Default 1.")
    memory: Quantity = Field(default="3Gi", description="Memory of the head's pod. Default 3Gi.")


class PodSettings(Part):
    """What every pod of the Ray cluster has."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "quantity(self.sharedMemory).compareTo(quantity('64Mi')) >= 0",
                "sharedMemory is ${self.sharedMemory}: Ray needs at least 64Mi; write the unit too, as 1Gi",
                field=".sharedMemory",
            ),
            *(
                rule(
                    f"quantity(self.sharedMemory).isLessThan(quantity(self.{pod}.memory))",
                    f"sharedMemory ${{self.sharedMemory}} is part of {pod}.memory ${{self.{pod}.memory}}, and must be "
                    f"smaller: raise {pod}.memory or lower sharedMemory",
                    field=".sharedMemory",
                )
                for pod in ("head", "worker")
            ),
        )
    )

    image: str = Field(
        default="",
        max_length=512,
        description="Image with Headrace, Ray and torch. Default: the operator's `--runtime-image`.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When the image is pulled. Default IfNotPresent."
    )
    image_pull_secrets: tuple[ObjectName, ...] = Field(
        default=(),
        max_length=8,
        description="Secrets of this namespace that the registry asks for.",
        json_schema_extra=list_set(),
    )
    service_account_name: ObjectName | None = Field(
        default=None,
        description="ServiceAccount of the pods. Default: the namespace's `default`; its token is not mounted.",
    )
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default={}, max_length=32, description="Labels that a node must have."
    )
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=16, description="Taints that pods put up with.")
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the pods.")
    shared_memory: Quantity = Field(
        default="1Gi",
        description="Size of /dev/shm, where Ray's object store and data loaders live; counts as the pod's memory.",
    )
    environment: tuple[EnvironmentVariable, ...] = Field(
        default=(),
        max_length=64,
        description="Environment variables of all containers.",
        json_schema_extra=list_map("name"),
    )
    gpu_resource: Annotated[
        str,
        pattern(r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", "${self} is no resource of GPUs: write it as nvidia.com/gpu", 253),
    ] = Field(
        default="nvidia.com/gpu",
        description="Resource name by which nodes offer GPUs. Default nvidia.com/gpu.",
    )
    head: HeadResources = Field(default=HeadResources(), description="What the head's pod asks for.")
    worker: PodResources = Field(default=PodResources(), description="What each worker's pod asks for.")
