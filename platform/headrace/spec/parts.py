"""What each step reads of a spec, and no more: so a changed epoch count leaves the split cached.

Each part is a plain record that the store keeps under its own hash; the steps never see the whole spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def split_part(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the split step reads of the canonical RECORD: the data, and the tasks, which know what a label is."""
    return {**record["data"], "tasks": record["tasks"]}


def step_parts(
    record: Mapping[str, Any], code_uri: str | None = None, code_sha256: str | None = None
) -> dict[str, dict[str, Any] | None]:
    """The parts of the canonical RECORD by step.

    Args:
        record: `RunSpec.to_record()`.
        code_uri: where the store keeps the user's own model code, if there is any.
        code_sha256: its hash; a path of this machine never enters a step.

    Returns:
        `split` (data and tasks), `train` (tasks, model, train, and tune where the run searches), `register` (None
        where the run neither gates nor registers) and `deploy` (None where it does not serve).

    Raises:
        ValueError: the spec has own code and its place in the store was not given.
    """
    model = dict(record["model"])
    if model["code"] is not None:
        if code_uri is None or code_sha256 is None:
            raise ValueError("a model with own code needs the code's URI and hash")
        model["code"] = {"sha256": code_sha256, "uri": code_uri}
    tasks = record["tasks"]
    register = None
    if record["gate"] or record["register"] is not None:
        register = {
            "name": record["name"],
            "tasks": tasks,
            "gate": record["gate"],
            "register": record["register"],
        }
    train = {"tasks": tasks, "model": model, "train": record["train"]}
    if record.get("tune") is not None:
        train["tune"] = record["tune"]
    return {
        "split": split_part(record),
        "train": train,
        "register": register,
        "deploy": record["deploy"],
    }
