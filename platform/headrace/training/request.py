"""What goes into a training and what comes out of it: plain values, because they cross three process borders.

The train step hands a request to the driver process, the driver to Ray Train's controller, the controller to the
workers; the result goes the same way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from headrace.base.processes import ProcessRef


@dataclass(frozen=True)
class Connection:
    """How to reach a Ray head.

    Args:
        address: "HOST:PORT" of its GCS.
        env: environment variables a driver needs (loopback, token); nothing else of the caller's environment changes.
        log_dir: where its logs are, for error messages.
        leader: the head's own process, where it runs on this machine: its death ends a training at once.
        single_machine: no worker can be on another node, so node preemption need not be watched.
    """

    address: str
    env: Mapping[str, str] = field(default_factory=dict)
    log_dir: str | None = None
    leader: ProcessRef | None = None
    single_machine: bool = True

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "env": dict(self.env)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Connection:
        """The inverse of `to_record`."""
        return cls(**{**record, "leader": ProcessRef.from_record(record["leader"])})


@dataclass(frozen=True)
class TrainingRequest:
    """One training, or one evaluation of models that exist.

    Args:
        run_id: the run it belongs to.
        attempt: the run's attempt ("2.1"); every write on behalf of an older one is refused.
        train: the train part of the spec: `tasks`, `model` (own code as {"sha256", "uri"}) and `train`.
        split_fingerprint: which split of the store.
        store_url: the store.
        checkpoints_uri: where checkpoints go; a request with the same one resumes from the newest.
        train_needed: False only evaluates.
        package_needed: False only trains; what is left is the newest checkpoint, from which a request goes on.
        package_uri: the new model's package when it is there already.
        evaluate: packages to measure on the test split besides the new one (the champion).
        provenance: what the package's record says of its origin.
        tracking_uri, mlflow_run_id: where each epoch's metrics are logged; None logs none.
        reserved_seconds: CPU and GPU seconds that earlier attempts' workers held; this one's are added to them.
        events_path: the run's events.jsonl; None prints events.
        workers: the least and the most workers.
        gpus_per_worker, cpus_per_worker: what each worker reserves.
    """

    run_id: str
    attempt: str
    train: Mapping[str, Any]
    split_fingerprint: str
    store_url: str
    checkpoints_uri: str
    train_needed: bool = True
    package_needed: bool = True
    package_uri: str | None = None
    evaluate: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    tracking_uri: str | None = None
    mlflow_run_id: str | None = None
    reserved_seconds: tuple[float, float] = (0.0, 0.0)
    events_path: str | None = None
    workers: tuple[int, int] = (1, 1)
    gpus_per_worker: int = 0
    cpus_per_worker: int = 1

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        record = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        record.update(train=dict(self.train), provenance=dict(self.provenance))
        record.update({name: list(getattr(self, name)) for name in _TUPLES})
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> TrainingRequest:
        """The inverse of `to_record`."""
        return cls(**{**record, **{name: tuple(record[name]) for name in _TUPLES}})


_TUPLES = ("evaluate", "workers", "reserved_seconds")  # JSON knows lists only


@dataclass(frozen=True)
class TrainingResult:
    """What a training gave.

    `evaluations` holds {"metrics", "samples"} by package sha256; `evaluation_errors` says by package URI why one could
    not be measured. `seconds` are the wall times of the parts, `total` being the whole call.
    """

    package_uri: str
    package_sha256: str
    epochs_done: int
    best_epoch: int
    validation_metrics: Mapping[str, float]
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    evaluation_errors: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> TrainingResult:
        """The inverse of `to_record`."""
        return cls(**record)
