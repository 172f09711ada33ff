"""ModelDeployment: one endpoint that answers with a registered version, carried out by one RayService."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from headrace.api.parts import Authentication, Condition, MLflowSettings, Part, Status, StoreSettings
from headrace.api.pods import PodSettings
from headrace.api.rules import list_map, rule, rules
from headrace.api.texts import Name, ObjectName, Time, pattern

KIND = "ModelDeployment"

# RE2 has no look-ahead, so a rule says what `headrace.spec.model.ALIAS_PATTERN` forbids besides.
ALIAS = r"^[A-Za-z][A-Za-z0-9_-]{0,99}$"


class ModelReference(Part):
    """A version in the registry: by number, or by an alias, which is followed when it moves."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.version) || has(self.alias)",
                "neither version nor alias is given: add version (a number) or alias (followed when it moves)",
            ),
            rule(
                "!has(self.version) || !has(self.alias)",
                "both version and alias are given: keep version to stay with it, or alias to follow it",
            ),
        )
    )

    name: Name = Field(description="Name in the registry.")
    version: (
        Annotated[
            str, pattern(r"^[1-9][0-9]*$", "${self} is no version: write its number, or alias instead of version", 20)
        ]
        | None
    ) = Field(default=None, description="The version's number.")
    alias: (
        Annotated[str, pattern(ALIAS, "${self} can be no alias: write letters, digits, _ and -, a letter first", 100)]
        | None
    ) = Field(
        default=None,
        description="An alias whose version is served, and again when it moves.",
        json_schema_extra=rules(
            rule(
                "!self.matches('^[vV][0-9]+$') && !self.matches('^[lL][aA][tT][eE][sS][tT]$')",
                "${self} is no alias in MLflow: write another name, or version for a fixed one",
            )
        ),
    )


class Autoscaling(Part):
    """How Ray Serve changes the number of replicas."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.minReplicas <= self.maxReplicas",
                "minReplicas (1 where it is left out) is above maxReplicas: raise maxReplicas, or lower minReplicas",
            )
        )
    )

    min_replicas: int = Field(default=1, ge=1, le=1000, description="Fewest replicas.")
    max_replicas: int = Field(ge=1, le=1000, description="Most replicas.")
    target_ongoing_requests: float = Field(
        default=2.0, gt=0, description="Requests inside one replica at once that Serve aims at."
    )


class ReplicaResources(Part):
    """What each replica reserves of Ray."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.gpus <= 1.0 || self.gpus == double(int(self.gpus))",
                "gpus above 1 must be whole, as Ray shares no GPU but one: write a whole number, or a share below 1",
                field=".gpus",
            )
        )
    )

    cpus: float = Field(default=1.0, ge=0, le=1024, description="CPU cores of a replica. Default 1.")
    gpus: float = Field(default=0.0, ge=0, le=64, description="GPUs of a replica; below 1 they share one. Default 0.")
    memory_bytes: int | None = Field(default=None, ge=1, description="Bytes of memory of a replica. Default: none.")


class GCSFaultTolerance(Part):
    """A Redis that keeps Ray's state, so that a lost head takes no endpoint away."""

    redis_address: Annotated[
        str, pattern(r"^[A-Za-z0-9.-]+:[0-9]{1,5}$", "${self} is no address of a Redis: write HOST:PORT", 261)
    ] = Field(description="HOST:PORT of the Redis.")
    password_secret_name: ObjectName | None = Field(default=None, description="Secret with the key `password`.")


class ModelDeploymentSpec(Part):
    """What is served, by how many, on what."""

    model: ModelReference = Field(description="The version that answers: by number, or by an alias that is followed.")
    replicas: int = Field(default=1, ge=1, le=1000, description="Replicas that answer, without `autoscaling`.")
    autoscaling: Autoscaling | None = Field(default=None, description="Let Serve choose the number of replicas.")
    resources: ReplicaResources = Field(default=ReplicaResources(), description="What each replica reserves of Ray.")
    workers: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Worker pods besides the head. Default 0: as many as the replicas need, and at least one where "
        "there is more than one replica (a lost head then costs seconds, not minutes).",
    )
    store: StoreSettings = Field(description="Where packages lie.")
    mlflow: MLflowSettings = Field(description="The registry.")
    pods: PodSettings = Field(
        default=PodSettings(),
        description="What the pods have: image, resources, nodes, environment. A change makes a new cluster.",
    )
    authentication: Authentication = Field(default=Authentication(), description="Who may use the Ray cluster's ports.")
    gcs_fault_tolerance: GCSFaultTolerance | None = Field(
        default=None, alias="gcsFaultTolerance", description="Keep Ray's state in a Redis. Default: no."
    )


class ModelDeploymentStatus(Status):
    """What is served now. Conditions: Accepted, Resolved (the version is known), Progressing, Available (the version
    that is wanted answers from every replica), MLflowReachable."""

    observed_generation: int = Field(default=0, ge=0, description="Generation of the spec that this tells of.")
    message: str = Field(default="", max_length=4096, description="What is being waited for, or what is wrong.")
    ray_service_name: str | None = Field(default=None, description="The RayService.")
    wanted_version: str | None = Field(default=None, description="Version that the spec asks for.")
    wanted_package_uri: str | None = Field(default=None, alias="wantedPackageURI", description="Its package.")
    wanted_package_sha256: str | None = Field(default=None, description="The package's hash.")
    config_id: str | None = Field(default=None, alias="configID", description="The front's newest configuration.")
    serving_version: str | None = Field(
        default=None, description="Version that truly answers; of several, the one that most replicas name."
    )
    replicas: int = Field(default=0, ge=0, description="Replicas that are wanted.")
    answering_replicas: int = Field(
        default=0, ge=0, description="Distinct replicas that answered the newest configuration."
    )
    url: str | None = Field(default=None, description="Base address of the V2 protocol inside the cluster.")
    resolved_time: Time | None = Field(default=None, description="When the registry's answer last changed.")
    failed_time: Time | None = Field(
        default=None,
        description="Since when the newest configuration is known to have failed.",
    )
    conditions: tuple[Condition, ...] = Field(
        default=(), max_length=32, description="One of each type.", json_schema_extra=list_map("type")
    )
