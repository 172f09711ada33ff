"""Between the run spec's canonical form, which steps and workers read, and a TrainingRun, which the operator reads.

The two say the same in two spellings: snake_case with every default written out there, camelCase without nulls here.
Going there and back changes nothing, but `gpus_per_worker: auto`, which only who knows the cluster can settle.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from headrace.api.training_run import TrainingRunSpec
from headrace.base.ids import slug
from headrace.spec.fold import Folded, fold
from headrace.spec.judge import judge
from headrace.spec.model import Train
from headrace.spec.parts import split_part, step_parts

Record = dict[str, Any]


def from_run_spec(
    record: Mapping[str, Any],
    *,
    code: Mapping[str, str] | None = None,
    gpus_per_worker: int = 0,
    **rest: Any,
) -> TrainingRunSpec:
    """The TrainingRun that trains what a run spec says.

    Args:
        record: `RunSpec.to_record()`.
        code: {"sha256", "uri"} of the user's own code in the store, where the model is of it.
        gpus_per_worker: what `auto` is on that cluster.
        rest: the other fields of `TrainingRunSpec` (`store` and `mlflow` at least). With `manifest_uri` that split is
            trained on, else the record's `data` is split first.
    """
    code = code or {}
    part = step_parts(record, code.get("uri"), code.get("sha256"))["train"]
    assert part is not None
    data = {} if rest.get("manifest_uri") else {"data": record["data"]}
    return from_train_part(part, gpus_per_worker=gpus_per_worker, **data, **rest)


def from_train_part(part: Mapping[str, Any], *, gpus_per_worker: int = 0, **rest: Any) -> TrainingRunSpec:
    """The TrainingRun of a train step's PART (`tasks`, `model`, `train`); see `from_run_spec`."""
    train = dict(part["train"])
    if train["gpus_per_worker"] == "auto":
        train["gpus_per_worker"] = gpus_per_worker
    return TrainingRunSpec.model_validate({**part, "train": train, **rest})


def to_train_part(spec: TrainingRunSpec) -> Record:
    """The train step's part (`tasks`, `model`, `train`), which `TrainingRequest.train` holds.

    Losses that were left out are the tasks' own, and numbers have the types that the catalog's cards give them: the API
    server writes 1.0 as 1, which has another hash.
    """
    folded = folded_of(spec)
    judge(folded)
    record = folded.record
    train = Train.model_validate_json(json.dumps(record["train"]))
    return {"tasks": record["tasks"], "model": record["model"], "train": train.model_dump(mode="json")}


def to_split_part(spec: TrainingRunSpec) -> Record | None:
    """The split step's part (the data, and the tasks); None where a split is given."""
    record = folded_of(spec).record
    return split_part(record) if "data" in record else None


def folded_of(spec: TrainingRunSpec) -> Folded:
    """SPEC's tasks, model, train and data as the record that `headrace.spec.judge` judges."""
    record = spec.model_dump(mode="json", include={"tasks", "model", "train", "data"})
    if not record["train"]["losses"]:
        del record["train"]["losses"]
    if record["data"] is None:
        del record["data"]
    return fold(record)


def default_run_id(name: str, uid: str) -> str:
    """The run id of a TrainingRun that names none: another for an object made anew under the same NAME.

    Its files and attempts must not be mixed up with those of the object that was deleted, nor of another namespace.
    """
    digest = hashlib.sha256(uid.encode()).digest()
    return f"{slug(name)}-{base64.b32encode(digest[:5]).decode().lower()}"
