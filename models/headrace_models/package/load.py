"""A package as something that predicts: in the endpoint, in batch prediction, in MLflow and in evaluation alike."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from headrace.base.errors import InvalidInput
from headrace_models import catalog
from headrace_models.package import arrays
from headrace_models.package.build import build_model
from headrace_models.package.manifest import CODE, EXAMPLE, WEIGHTS, PackageManifest, read_package, verify_files
from headrace_models.tasks import task_from_record
from headrace_models.tasks.base import Arrays, Batch, Signature, Task


@dataclass
class LoadedModel:
    """A model that is ready to answer. All methods may be called from several threads at once."""

    manifest: PackageManifest
    task: Task
    model: nn.Module
    folder: Path
    device: torch.device

    @property
    def sha256(self) -> str:
        """The package's hash."""
        return self.manifest.sha256

    @cached_property
    def signature(self) -> Signature:
        """What it takes and gives."""
        return self.task.signature()

    @cached_property
    def example(self) -> Arrays:
        """A small request that it can answer."""
        return arrays.from_record(self._example)

    @cached_property
    def _example(self) -> dict[str, Any]:
        record = json.loads((self.folder / EXAMPLE).read_text(encoding="utf-8"))
        assert isinstance(record, dict)
        return record

    def predict(self, inputs: Arrays) -> Arrays:
        """The answer to a request's arrays. Raises BadInput for a request that cannot be decoded."""
        return self.answer([self.task.preprocess(inputs)])[0]

    def answer(self, batches: Sequence[Batch]) -> list[Arrays]:
        """The answers to several preprocessed requests (`task.preprocess`), by one pass through the network.

        Requests are decoded one by one and answered together, so that a bad one spoils no other.
        """
        sizes = [len(next(iter(batch.values()))) for batch in batches]
        joined = _joined(batches)
        outputs = self.task.postprocess(self.forward(joined), joined)
        answers: list[Arrays] = []
        start = 0
        for size in sizes:
            answers.append({name: array[start : start + size] for name, array in outputs.items()})
            start += size
        return answers

    def forward(self, batch: Batch) -> Any:
        """The network's outputs for a preprocessed batch."""
        with torch.inference_mode():
            moved = {name: tensor.to(self.device) for name, tensor in batch.items()}
            return self.model(*self.task.inputs(moved))


def _require_plugins(manifest: PackageManifest) -> None:
    """Raise InvalidInput where an installed package is missing, or fails, that the model or its task comes from."""
    here = catalog.plugin_versions() if manifest.plugins else {}
    for name, version in manifest.plugins.items():
        if name not in here:
            trained = f"{manifest.model['name']} was trained with the plug-in {name} {version}"
            if broken := [problem for problem in catalog.plugin_problems() if problem.distribution == name]:
                raise InvalidInput(
                    f"{trained}, which is installed here and cannot be used: {broken[0].message}",
                    action=f"mend that (`pip check` says what {name} misses); `headrace doctor` lists plug-ins",
                    code="plug-in-broken",
                )
            raise InvalidInput(
                f"{trained}, which is not installed here",
                action=f"pip install {name}=={version}, where it is served too; `headrace doctor` lists plug-ins",
                code="plug-in-missing",
            )


def _joined(batches: Sequence[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def load_package(folder: str | os.PathLike[str], device: str = "cpu") -> LoadedModel:
    """The model of the package in FOLDER, on DEVICE, in evaluation mode; every file is held to its sha256 first.

    Raises:
        InvalidInput: not a package, a damaged one, one of a newer Headrace or of a plug-in that is not here, or code
            that fails.
    """
    manifest = read_package(folder)
    _require_plugins(manifest)
    verify_files(folder, manifest)
    task = task_from_record(manifest.task)
    code = Path(folder, CODE) if manifest.code_sha256 else None
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn and thrown away
        model = build_model(manifest.model, task, code)
    try:
        weights = load_file(Path(folder, WEIGHTS))
        weights |= {alias: weights[name] for alias, name in manifest.tied.items()}
        model.load_state_dict(weights)
    except (RuntimeError, KeyError, SafetensorError) as error:
        raise InvalidInput(
            f"the weights in {folder} do not fit {manifest.model['name']}: {error}",
            action="the model's code has changed since: install the version that trained it",
            code="package-mismatch",
        ) from error
    place = torch.device(device)
    model.to(place).eval().requires_grad_(False)
    return LoadedModel(manifest, task, model, Path(folder), place)
