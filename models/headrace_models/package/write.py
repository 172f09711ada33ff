"""Writing a package. Nothing in it is a pickle: weights are safetensors, the rest JSON and the user's own sources."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from headrace.base.errors import InvalidInput
from headrace.base.jsonfile import canonical, sha256_of, sha256_of_file, write_json
from headrace_models import catalog
from headrace_models.package import arrays
from headrace_models.package.code import code_files, pack_code
from headrace_models.package.manifest import CODE, EXAMPLE, FORMAT, MANIFEST, WEIGHTS
from headrace_models.tasks.base import Arrays, Task


def write_package(
    folder: str | os.PathLike[str],
    *,
    task: Task,
    model: nn.Module,
    model_record: Mapping[str, Any],
    code_folder: str | os.PathLike[str] | None,
    provenance: Mapping[str, Any],
    example: Arrays,
) -> str:
    """Write MODEL with its TASK into FOLDER (created); returns the package's sha256.

    The same model, task and provenance give the same bytes and so the same hash.

    Args:
        model_record: the spec's `{"name", "args"}`; with CODE_FOLDER the package can be built again from it.
        provenance: plain JSON values that say where it comes from (spec and split fingerprints, git commit, ...).
        example: a small request, for the registry's page and for smoke tests.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    weights, tied = untied_state(model)
    save_file(weights, target / WEIGHTS)
    (target / WEIGHTS).chmod(0o644)
    write_json(target / EXAMPLE, arrays.to_record(example))
    names = [WEIGHTS, EXAMPLE]
    code_sha256 = None
    if code_folder is not None:
        code_sha256, _ = pack_code(code_folder)
        names += _copy_code(Path(code_folder), target)
    record: dict[str, Any] = {
        "format": FORMAT,
        "headrace": _version(),
        "task": task.to_record(),
        "model": {"name": model_record["name"], "args": dict(model_record.get("args") or {})},
        "code_sha256": code_sha256,
        "signature": task.signature().to_record(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tied": tied,
        "plugins": catalog.plugins_of(task.names, model_record["name"]),
        "provenance": dict(provenance),
        "files": {name: sha256_of_file(target / name) for name in sorted(names)},
    }
    record = json.loads(canonical(record))  # as it will be read: lists for tuples, and no NaN
    write_json(target / MANIFEST, record)
    return sha256_of(record)


def untied_state(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """MODEL's state as contiguous tensors on the CPU, each once, and which names are one tensor with another.

    Raises:
        InvalidInput: the state holds something that is not a tensor and could only be pickled.
    """
    weights: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise InvalidInput(
                f"the model's state {name!r} is a {type(value).__name__}; only tensors can be packed",
                action="keep it in a registered buffer instead of get_extra_state",
            )
        place = (value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if value.numel() and place in seen:
            tied[name] = seen[place]
            continue
        seen[place] = name
        weights[name] = value.detach().cpu().contiguous().clone()
    return weights, tied


def _copy_code(source: Path, target: Path) -> list[str]:
    names = []
    for path in code_files(source):
        name = f"{CODE}/{path.relative_to(source).as_posix()}"
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(path.read_bytes())
        names.append(name)
    return names


def _version() -> str:
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "unknown"
