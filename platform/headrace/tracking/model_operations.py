"""A package as an MLflow model: what `mlflow models serve` and the registry's page need, and nothing that is pickled.

The package's files are MLflow's `data`, loaded by `headrace_models.package.mlflow_loader`; signature and example come
from the package. Written by MLflow's own `save_model` with explicit requirements: inferring them would import torch,
load the model and take 6 s.
"""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.api.reports import PACKAGE_SHA256_TAG
from headrace.tracking import facts
from headrace_models.package import arrays, read_package
from headrace_models.package.manifest import EXAMPLE
from headrace_models.package.mlflow_facts import Column, mlflow_columns
from headrace_models.tasks.base import Signature

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

LOADER = "headrace_models.package.mlflow_loader"
# What serving a package imports. Headrace itself is what must be installed where it is served.
REQUIREMENTS = ("headrace", "mlflow", "numpy", "pandas", "pillow", "pydantic", "safetensors", "torch", "torchvision")


def log_package(
    mlflow: MlflowClient,
    _uri: str,
    *,
    mlflow_run_id: str,
    experiment_id: str,
    folder: str,
    sha256: str,
    model_name: str,
) -> dict[str, str]:
    """Log the package in FOLDER as the run's model, once; a model whose files were not complete is completed."""
    model = find_logged(mlflow, mlflow_run_id, sha256)
    if model is None:
        model = mlflow.create_logged_model(
            experiment_id,
            name=model_name,
            source_run_id=mlflow_run_id,
            tags={PACKAGE_SHA256_TAG: sha256},
            params=dict(mlflow.get_run(mlflow_run_id).data.params),
        )
    if str(model.status) != "READY":
        with tempfile.TemporaryDirectory(prefix="headrace-model-") as place:
            target = Path(place) / "model"
            _save(Path(folder), target, model, mlflow_run_id)
            mlflow.log_model_artifacts(model.model_id, str(target))
        model = mlflow.finalize_logged_model(model.model_id, "READY")
    _tie(mlflow, mlflow_run_id, model)
    return {"model_uri": model.model_uri, "model_id": model.model_id}


def find_logged(mlflow: MlflowClient, mlflow_run_id: str, sha256: str) -> LoggedModel | None:
    """The model that the run logged of the package SHA256, or None."""
    experiment = mlflow.get_run(mlflow_run_id).info.experiment_id
    query = f"source_run_id = '{mlflow_run_id}' AND tags.`{PACKAGE_SHA256_TAG}` = '{sha256}'"
    found = mlflow.search_logged_models([experiment], filter_string=query, max_results=1)
    return found[0] if found else None


def _tie(mlflow: MlflowClient, mlflow_run_id: str, model: LoggedModel) -> None:
    """Name the model as the run's output, once."""
    from mlflow.entities import LoggedModelOutput

    outputs = mlflow.get_run(mlflow_run_id).outputs
    if model.model_id not in {output.model_id for output in (outputs.model_outputs if outputs else ())}:
        mlflow.log_outputs(mlflow_run_id, models=[LoggedModelOutput(model.model_id, step=0)])


def _save(package: Path, target: Path, model: LoggedModel, mlflow_run_id: str) -> None:
    """Write PACKAGE as an MLflow model into TARGET."""
    import mlflow.pyfunc
    from mlflow.models import Model

    manifest = read_package(package)
    mlflow.pyfunc.save_model(
        str(target),
        loader_module=LOADER,
        data_path=str(package),
        mlflow_model=Model(
            artifact_path=model.artifact_location,
            run_id=mlflow_run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
            metadata={"headrace.package_sha256": manifest.sha256, "headrace.task": manifest.task_name},
        ),
        signature=signature_of(manifest.signature),
        input_example=example_of(package, manifest.signature),
        pip_requirements=[*pinned(), *(f"{name}=={number}" for name, number in sorted(manifest.plugins.items()))],
    )


def signature_of(signature: Signature) -> Any:
    """The package's signature as MLflow's: columns of a table."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    def columns(side: list[Column]) -> Any:
        types = [(column["name"], DataType[column["type"]], column["array"]) for column in side]
        return Schema([ColSpec(Array(kind) if array else kind, name) for name, kind, array in types])

    sides = mlflow_columns(signature)
    return ModelSignature(inputs=columns(sides["inputs"]), outputs=columns(sides["outputs"]))


def example_of(package: Path, signature: Signature) -> Any:
    """The package's example request as a table."""
    import pandas

    example = arrays.from_record(json.loads((package / EXAMPLE).read_text(encoding="utf-8")))
    texts = {spec.name for spec in signature.inputs if spec.datatype == "BYTES" and spec.content == "text"}
    return pandas.DataFrame(
        {
            name: [value.decode() if name in texts and isinstance(value, bytes) else value for value in array.tolist()]
            for name, array in example.items()
        }
    )


def pinned() -> list[str]:
    """What serving needs, at the versions that are installed here."""
    versions: dict[str, str | None] = {}
    for name in REQUIREMENTS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return facts.requirements(versions, REQUIREMENTS)
