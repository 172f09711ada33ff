"""Asking the registry: from a version's number or an alias to the package that is served.

An answer that matters is written into the RayService, with what was asked, so it outlives the operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from headrace.api.model_deployment import ModelReference
from headrace.serving.contract import StableVersion
from headrace_operators.mlflow import MLflow, NotThere, Unreachable


@dataclass(frozen=True)
class Resolution:
    """What asking the registry came to: a version, or why there is none.

    Args:
        version: the registry's answer.
        missing: the registry's words where it has no such version.
        unreachable: why it did not answer.
    """

    version: StableVersion | None = None
    missing: str = ""
    unreachable: str = ""


def reference(tracking_uri: str, model: ModelReference) -> str:
    """What is asked for, as one text: `digits@champion` or `digits/7`, at that server."""
    which = f"@{model.alias}" if model.alias is not None else f"/{model.version}"
    return f"{model.name}{which} at {tracking_uri}"


async def resolve(mlflow: MLflow, tracking_uri: str, model: ModelReference) -> Resolution:
    """Ask the registry once."""
    try:
        if model.alias is not None:
            found = await mlflow.resolve(tracking_uri, model.name, alias=model.alias)
        else:
            found = await mlflow.resolve(tracking_uri, model.name, version=model.version)
    except NotThere as error:
        return Resolution(missing=f"{error.message}; {error.action}" if error.action else error.message)
    except Unreachable as error:
        return Resolution(unreachable=error.message)
    return Resolution(StableVersion(found.version, found.package_uri, found.package_sha256))
