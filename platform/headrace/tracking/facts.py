"""What is written to MLflow, as values: parameters, metrics, datasets, limits.

No MLflow here, so all of it is tested in microseconds, and the callers only carry it over.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeVar

# MLflow's own limits (mlflow/utils/validation.py); older servers allow 500 characters to a parameter, and nobody reads
# more than that in a table.
LONGEST_PARAM = 500
LONGEST_TAG = 5000
LONGEST_KEY = 250
LONGEST_DIGEST = 36
PARAMS_PER_BATCH = 100
METRICS_PER_BATCH = 1000
LONGEST_SCHEMA = 1_000_000
LONGEST_PROFILE = 1_000_000

CONTEXTS = {"train": "training", "validation": "validation", "test": "testing"}
_KEY = re.compile(r"[^\w\-./ ]")

Item = TypeVar("Item")


def number(text: str | None) -> float:
    """The number in a tag; 0 where it is none."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """ITEMS in pieces of at most SIZE."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def key_of(text: str) -> str:
    """TEXT as a key that MLflow takes."""
    return _KEY.sub("_", text)[:LONGEST_KEY]


def shorten(text: str, longest: int) -> str:
    """TEXT in at most LONGEST characters; what is cut is told apart by a hash, so a change still shows."""
    if len(text) <= longest:
        return text
    mark = f"… sha256:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return text[: longest - len(mark)] + mark


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a JSON value by dotted path; a list of plain values is one. Null and empty ones are left out."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        for index, item in enumerate(value):
            yield from flatten(item, f"{prefix}.{index}")
    elif value is not None and value not in ([], ()):
        yield prefix, list(value) if isinstance(value, tuple) else value


def params(record: Mapping[str, Any]) -> dict[str, str]:
    """A spec record as MLflow parameters."""
    return {key_of(key): shorten(_text(value), LONGEST_PARAM) for key, value in flatten(record)}


def tags(values: Mapping[str, Any]) -> dict[str, str]:
    """VALUES as MLflow tags; None is left out."""
    return {key_of(key): shorten(str(value), LONGEST_TAG) for key, value in values.items() if value is not None}


def folder_name(text: str) -> str:
    """TEXT as a folder's name."""
    return re.sub(r"[^\w.-]", "-", text)


def changed(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, list[str]]:
    """The parameters that stand in OLD with another value than in NEW, as key to [old, new]."""
    return {key: [old[key], value] for key, value in new.items() if key in old and old[key] != value}


def finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    """METRICS by keys that MLflow takes, without what is no finite number (a server may refuse it)."""
    found = {key_of(key): float(value) for key, value in metrics.items() if isinstance(value, Real)}
    return {key: value for key, value in found.items() if math.isfinite(value)}


@dataclass(frozen=True)
class DatasetFacts:
    """One side of a split as MLflow's dataset input. `schema` and `profile` are JSON texts in MLflow's own forms."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str
    profile: str
    context: str


def dataset_source(source: str) -> tuple[str, str]:
    """SOURCE (a path, URL or `builtin:` name) as MLflow's source type and JSON."""
    scheme, separator, _ = source.partition("://")
    kind = scheme if separator else "builtin" if source.startswith("builtin:") else "local"
    key = "url" if kind in {"http", "https"} else "uri"
    return ("http" if kind == "https" else kind), json.dumps({key: source})


def dataset_columns(schema: Mapping[str, Any], sample: str) -> str:
    """A Schema record as MLflow's column schema; SAMPLE names the content of data that is no table ("image")."""
    kinds = {"number": "double", "category": "string"}
    features = [(name, kinds.get(kind, "string")) for name, kind in schema.get("columns") or ()] or [(sample, "binary")]
    label = schema.get("label") or ("label" if schema.get("classes") else None)
    if label and label not in dict(features):
        features.append((label, "string" if schema.get("classes") else "double"))
    columns = [{"type": kind, "name": name, "required": True} for name, kind in features]
    text = json.dumps({"mlflow_colspec": columns}, ensure_ascii=False)
    if len(text) <= LONGEST_SCHEMA:
        return text
    return json.dumps({"mlflow_colspec": columns[:1000]}, ensure_ascii=False)


def _rows(count: Any) -> int:
    return sum(int(n) for n in count.values()) if isinstance(count, Mapping) else int(count)


def datasets(
    name: str, fingerprint: str, *, schema: Mapping[str, Any], counts: Mapping[str, Any], source: str, sample: str
) -> list[DatasetFacts]:
    """A split as dataset inputs, one a side that has samples.

    COUNTS has a number, or numbers by class, for each of train, validation and test. MLflow knows a dataset by name and
    digest, so the sides differ in their names.
    """
    source_type, source_json = dataset_source(source)
    columns = dataset_columns(schema, sample)
    found = []
    for side, context in CONTEXTS.items():
        count = counts.get(side) or 0
        if not _rows(count):
            continue
        profile: dict[str, Any] = {"num_rows": _rows(count), "split_fingerprint": fingerprint}
        if isinstance(count, Mapping):
            profile["classes"] = {str(name): int(n) for name, n in count.items()}
        text = json.dumps(profile, ensure_ascii=False)
        if len(text) > LONGEST_PROFILE:
            text = json.dumps({"num_rows": _rows(count), "split_fingerprint": fingerprint})
        found.append(
            DatasetFacts(
                f"{name}.{side}", fingerprint[:LONGEST_DIGEST], source_type, source_json, columns, text, context
            )
        )
    return found


def requirements(versions: Mapping[str, str | None], names: Iterable[str]) -> list[str]:
    """NAMES pinned to the versions that are installed; what is not installed is left out."""
    return [f"{name}=={versions[name].partition('+')[0]}" for name in names if versions.get(name)]  # type: ignore[union-attr]
