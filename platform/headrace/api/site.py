"""What a step inside a cluster knows of where it is: the chart tells it in one environment variable.

A laptop has no such variable, so its presence is what makes a step hand its work to the operators. Its parts are those
of the custom resources, since they go into them as they are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from headrace.api.parts import Authentication, MLflowSettings, Part, StoreSettings
from headrace.api.pods import PodSettings
from headrace.api.texts import ObjectName
from headrace.base.errors import Finding, SpecInvalid
from headrace.base.home import SITE_VARIABLE as VARIABLE


class Site(Part):
    """One namespace of one cluster, as its runs see it."""

    store: StoreSettings = Field(description="Where the files of runs lie, as pods reach it.")
    mlflow: MLflowSettings = Field(description="The MLflow server, as pods and the operator reach it.")
    pods: PodSettings = Field(default=PodSettings(), description="What pods of trainings and endpoints have.")
    authentication: Authentication = Field(default=Authentication(), description="Who may use Ray's own ports.")
    queue: ObjectName | None = Field(
        default=None, description="Kueue's LocalQueue that admits trainings. Default: they start at once."
    )
    gpus_per_worker: int = Field(
        default=0, ge=0, le=64, description="GPUs of a training worker whose spec says `auto`. Default 0."
    )
    max_retries: int = Field(
        default=3, ge=0, le=100, description="Failed attempts of a training that are tried again. Default 3."
    )
    ttl_seconds_after_finished: int = Field(
        default=604_800,
        ge=3600,  # whoever waits for the training must have seen that it has ended well, not that it is gone
        description="Seconds after its end when a training's object is deleted; what it made stays. Default a week.",
    )

    def to_json(self) -> str:
        """As the variable holds it."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)


def read_site(environment: Mapping[str, str] = os.environ) -> Site | None:
    """The site that ENVIRONMENT tells of; None on a laptop.

    Raises:
        SpecInvalid: the variable's value cannot be read; every mistake in it.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        return None
    try:
        return Site.model_validate_json(text)
    except ValidationError as error:
        raise SpecInvalid(
            f"{VARIABLE} cannot be read: {error.error_count()} mistake{'s' if error.error_count() > 1 else ''}",
            action="mend the key in the ConfigMap headrace-site, which the chart's values make; then resume the run",
            code="site-invalid",
            findings=[_finding(mistake) for mistake in error.errors(include_url=False, include_context=False)],
        ) from error


def _finding(mistake: Mapping[str, Any]) -> Finding:
    where = _path(mistake["loc"])
    if mistake["type"] == "missing":
        return Finding(where, "missing", "", "add it")
    if mistake["type"] == "extra_forbidden":
        return Finding(where, "not a key of a site", _names(mistake["loc"]), "remove it, or correct its name")
    given = mistake["input"] if mistake["type"] != "json_invalid" else "no JSON"
    return Finding(where, str(given)[:200], str(mistake["msg"]), "")


def _path(location: Sequence[int | str]) -> str:
    return ".".join((VARIABLE, *map(str, location)))


def _names(location: Sequence[int | str]) -> str:
    """The keys that are allowed beside LOCATION, where that is the top."""
    return ", ".join(str(field.alias) for field in Site.model_fields.values()) if len(location) == 1 else ""
