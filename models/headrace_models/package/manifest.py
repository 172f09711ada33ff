"""A package's `headrace.json`: all that can be known of a model without loading it, and the proof of its files.

The package's own sha256 is that of this record's canonical JSON, which holds the sha256 of every other file: one hash
names the whole package. `format` lets later releases read what earlier ones wrote. This module needs no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.base.errors import InvalidInput
from headrace.base.jsonfile import sha256_of, sha256_of_file
from headrace_models.tasks.base import Signature

MANIFEST = "headrace.json"
WEIGHTS = "model.safetensors"
EXAMPLE = "example.json"
CODE = "code"
FORMAT = 1


@dataclass(frozen=True)
class PackageManifest:
    """What `headrace.json` says.

    `task` is `Task.to_record()`, `model` the spec's `{name, args}`, `code_sha256` that of the user's own code,
    `plugins` the versions of the installed packages that task and model come from, where that is not Headrace,
    `tied` names weights that are one tensor with another (left out of the weights' file), `parameters` counts the
    trainable and frozen ones, `files` maps each file's path to its sha256.
    """

    sha256: str
    format: int
    headrace: str
    task: Mapping[str, Any]
    model: Mapping[str, Any]
    code_sha256: str | None
    signature: Signature
    parameters: int
    tied: Mapping[str, str]
    provenance: Mapping[str, Any]
    files: Mapping[str, str]
    plugins: Mapping[str, str] = field(default_factory=dict)

    @property
    def task_name(self) -> str:
        """The task's name."""
        return str(self.task["name"])

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that it tells apart, in order; empty where there are none."""
        return tuple(self.task.get("schema", {}).get("classes") or ())

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> PackageManifest:
        """The manifest in RECORD. Raises KeyError or TypeError for another shape."""
        return cls(
            sha256=sha256_of(record),
            format=int(record["format"]),
            headrace=str(record["headrace"]),
            task=record["task"],
            model=record["model"],
            code_sha256=record["code_sha256"],
            signature=Signature.from_record(record["signature"]),
            parameters=int(record["parameters"]),
            tied=record["tied"],
            provenance=record["provenance"],
            files=record["files"],
            plugins=record.get("plugins", {}),  # packages of before have none
        )


def read_package(folder: str | os.PathLike[str]) -> PackageManifest:
    """The manifest of the package in FOLDER; its other files are not looked at.

    Raises:
        InvalidInput: FOLDER holds no package, a damaged one, or one of a newer Headrace.
    """
    path = Path(folder, MANIFEST)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        newest = int(record["format"])
    except FileNotFoundError:
        raise InvalidInput(
            f"{folder} holds no model package: {MANIFEST} is missing", action="give the folder of one"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, f"{MANIFEST} cannot be read ({error})") from None
    if newest > FORMAT:
        raise InvalidInput(
            f"the package in {folder} has format {newest}; this Headrace reads up to {FORMAT}",
            action="pip install --upgrade headrace",
            code="package-too-new",
        )
    try:
        return PackageManifest.from_record(record)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, f"{MANIFEST} lacks or misspells {error}") from None


def verify_files(folder: str | os.PathLike[str], manifest: PackageManifest) -> None:
    """Hold every file of the package in FOLDER to the manifest.

    Raises:
        InvalidInput: a file is missing, was changed, or lies among the code without being listed.
    """
    for name, sha256 in manifest.files.items():
        path = Path(folder, name)
        if not path.is_file():
            raise _damaged(folder, f"{name} is missing")
        if sha256_of_file(path) != sha256:
            raise _damaged(folder, f"{name} is not the file that was packed")
    code = Path(folder, CODE)
    for path in sorted(code.rglob("*.py")) if code.is_dir() else ():
        if path.relative_to(folder).as_posix() not in manifest.files:
            raise _damaged(folder, f"{path.relative_to(folder).as_posix()} was added")


def _damaged(folder: str | os.PathLike[str], what: str) -> InvalidInput:
    return InvalidInput(
        f"the model package in {folder} is damaged: {what}",
        action="fetch it again from the store, or train it again",
        code="package-damaged",
    )
