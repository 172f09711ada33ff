"""Predictions for people: from an endpoint for a few files, or without one for a folder or table of any size.

Both take the same inputs and report a bad file or row beside the good ones. A batch is streamed: what is in memory is
one piece, and the output file appears whole or not at all.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.base.errors import InvalidInput
from headrace.steps.predict_inputs import Answered, Row, answered, pieces_of
from headrace_models.tasks.base import Arrays, Signature

if TYPE_CHECKING:
    import pyarrow as pa

    from headrace_models.package import LoadedModel

Tell = Callable[[str], None]

SECONDS_BETWEEN_TELLS = 2.0
_SPECIAL = ("sample_id", "uri", "error")  # the columns of a batch's output that are not the model's


@dataclass(frozen=True)
class Resolved:
    """A model that is named by a person: where its package lies, and which version it is, if it is registered."""

    package_uri: str
    sha256: str | None
    name: str | None
    version: str | None


def predict_endpoint(
    name_or_url: str, files: Sequence[str | PathLike[str]], columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """What an endpoint says of FILES, one mapping a file or row.

    Args:
        name_or_url: a deployment of this machine, or the URL of any (`http://HOST:PORT/NAME`).
        files: pictures, folders of pictures, CSV, Parquet or JSON files (rows, or a V2 request).
        columns: the outputs to return; default: all.

    Returns:
        `{"file", "row"?, <outputs>, "version"}`, or `{"file", "row"?, "error"}` for what the model cannot take.

    Raises:
        InvalidInput: no such deployment, no such file, or nothing in FILES can be taken.
        Unavailable: the endpoint cannot be reached.
    """
    from headrace.serving import v2_client

    if not files:
        raise InvalidInput("no file was given", action="headrace predict NAME FILE...")
    url = endpoint_url(name_or_url)
    wanted = {item["name"]: item["datatype"] for item in v2_client.metadata(url)["inputs"]}
    version = ""

    def ask(inputs: Arrays) -> Arrays:
        nonlocal version
        inference = v2_client.infer(url, inputs)
        version = inference.version
        return inference.outputs

    rows: list[dict[str, Any]] = []
    for part in answered(pieces_of([fspath(file) for file in files], wanted), ask):
        rows += [{**row, "version": version} if "error" not in row else row for row in _rows(part, columns)]
    failed = [row for row in rows if "error" in row]
    if rows and len(failed) == len(rows):
        first = failed[0]
        where = first["file"] if "row" not in first else f"{first['file']}, row {first['row']}"
        raise InvalidInput(f"{where}: {first['error']}", action="give what the model takes", code="request-refused")
    return rows


def endpoint_url(name_or_url: str) -> str:
    """The URL of a deployment. Raises InvalidInput where there is none of that name."""
    if name_or_url.startswith(("http://", "https://")):
        return name_or_url.split("/v2")[0].rstrip("/")
    from headrace.local.deployments import deployments

    found = {record["name"]: record for record in deployments()}
    if name_or_url not in found:
        served = ", ".join(found) or "nothing"
        raise InvalidInput(
            f"no deployment is called {name_or_url!r}; served here: {served}",
            action="headrace deploy MODEL, or predict without an endpoint: --input PATH --output FILE.parquet",
            code="no-deployment",
        )
    return str(found[name_or_url]["url"])


def _rows(part: Answered, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    place = 0
    for index, row in enumerate(part.rows):
        where: dict[str, Any] = {"file": row.uri} if row.row is None else {"file": row.uri, "row": row.row}
        if index in part.errors:
            yield {**where, "error": part.errors[index]}
            continue
        names = part.outputs if columns is None else [name for name in columns if name in part.outputs]
        yield {**where, **{name: _plain(part.outputs[name][place]) for name in names}}
        place += 1


def _plain(value: Any) -> Any:
    """One row's output as a JSON value."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


# without an endpoint


def resolve_model(ref: str) -> Resolved:
    """The package that REF names: `name`, `name@alias`, `name/3`, or the folder or URL of a package.

    Raises:
        InvalidInput: there is none.
        Unavailable: MLflow cannot be reached.
    """
    from headrace.tracking import registry

    if "://" in ref or Path(ref, "headrace.json").is_file():
        return Resolved(ref, None, None, None)
    if Path(ref).is_dir():
        raise InvalidInput(f"{ref} holds no model package", action="give a folder with headrace.json, or MODEL@ALIAS")
    found = registry.resolve(ref)
    if found is None:
        known = ", ".join(model["name"] for model in registry.list_models()) or "none"
        raise InvalidInput(
            f"no registered model is {ref!r}; registered here: {known}", action="headrace run SPEC", code="no-model"
        )
    if found.package_uri is None or found.package_sha256 is None:
        raise InvalidInput(
            f"{found.ref} was not registered by Headrace: it has no package", action="use a version that a run made"
        )
    return Resolved(found.package_uri, found.package_sha256, found.name, found.version)


def load_model(ref: str, *, device: str = "cpu") -> LoadedModel:
    """The model that REF (see `resolve_model`) names, ready to predict.

    Raises:
        InvalidInput: there is none, or its package is damaged.
        Unavailable: MLflow or the package's store cannot be reached.
    """
    return _load(resolve_model(ref), device)


def _load(found: Resolved, device: str) -> LoadedModel:
    from headrace_models.package import load_package

    loaded = load_package(_local_folder(found), device=device)
    if found.sha256 is not None and loaded.sha256 != found.sha256:
        raise InvalidInput(
            f"the package at {found.package_uri} is {loaded.sha256[:12]}, the registry says {found.sha256[:12]}",
            action="train it again, or register what is there",
            code="package-damaged",
        )
    return loaded


def _local_folder(found: Resolved) -> Path:
    from headrace.base.jsonfile import sha256_of
    from headrace.serving.contract import StableVersion
    from headrace.serving.packages import fetch_package
    from headrace.store import Store

    sha256 = found.sha256
    if sha256 is None:
        if "://" not in found.package_uri:
            return Path(found.package_uri)
        record = Store(found.package_uri).read_json(f"{found.package_uri}/headrace.json")
        if record is None:
            raise InvalidInput(
                f"{found.package_uri} holds no model package", action="give the URL of one, or MODEL@ALIAS"
            )
        sha256 = sha256_of(record)
    try:
        return fetch_package(StableVersion(found.version or "", found.package_uri, sha256))
    except FileNotFoundError:
        raise InvalidInput(
            f"the package of {found.name or found.package_uri} is gone: {found.package_uri}",
            action="bring the store back, or train it again",
            code="package-gone",
        ) from None


def predict_batch(
    model_ref: str,
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    device: str = "cpu",
    tell: Tell = lambda _: None,
) -> dict[str, Any]:
    """What a model says of a folder of pictures or a table, as the Parquet file OUTPUT.

    Its columns are `sample_id`, `uri`, the model's outputs, and `error` (null, or why the row has no outputs).

    Args:
        model_ref: see `resolve_model`.
        source: a folder, a file or a URL.
        output: a path or URL that ends in .parquet; replaced as a whole.
        device: where the network runs.
        tell: is told the progress.

    Returns:
        `{"output", "rows", "errors", "model", "version", "package_sha256", "seconds"}`.

    Raises:
        InvalidInput: no such model or source, or OUTPUT is no Parquet file.
        Unavailable: MLflow, the store or the source cannot be reached.
    """
    source, output = fspath(source), fspath(output)
    if not output.endswith((".parquet", ".pq")):
        raise InvalidInput(f"{output} is not a Parquet file", action="give a name that ends in .parquet")
    started = time.monotonic()
    found = resolve_model(model_ref)
    loaded = _load(found, device)
    wanted = {spec.name: spec.datatype for spec in loaded.signature.inputs}
    parts = answered(pieces_of([source], wanted), loaded.predict)
    rows, errors = _write(parts, loaded.signature, output, tell)
    return {
        "output": output,
        "rows": rows,
        "errors": errors,
        "model": found.name,
        "version": found.version,
        "package_sha256": loaded.sha256,
        "seconds": round(time.monotonic() - started, 3),
    }


def _write(parts: Iterator[Answered], signature: Signature, output: str, tell: Tell) -> tuple[int, int]:
    """Stream PARTS into OUTPUT, which appears when it is whole; how many rows it has, how many of them are errors."""
    from fsspec.implementations.local import LocalFileSystem

    from headrace.store.filesystems import open_filesystem, reached

    filesystem, path = open_filesystem(output)
    if isinstance(filesystem, LocalFileSystem):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        partial = Path(f"{path}.partial")
        try:
            counts = _stream(parts, signature, partial, tell)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return counts
    with tempfile.TemporaryDirectory(prefix="headrace-predict-") as folder:
        with reached(output, filesystem):  # before an hour's work, not after it
            filesystem.exists(path) or filesystem.ls(path.split("/", 1)[0])
        counts = _stream(parts, signature, Path(folder, "part.parquet"), tell)
        with reached(output, filesystem):
            filesystem.put_file(str(Path(folder, "part.parquet")), path)
    return counts


def _stream(parts: Iterator[Answered], signature: Signature, file: Path, tell: Tell) -> tuple[int, int]:
    import pyarrow.parquet as pq

    schema = output_schema(signature)
    rows = errors = 0
    told = time.monotonic()
    with pq.ParquetWriter(str(file), schema) as writer:
        for part in parts:
            writer.write_batch(_batch(part, schema))
            rows, errors = rows + len(part.rows), errors + len(part.errors)
            if time.monotonic() - told > SECONDS_BETWEEN_TELLS:
                told = time.monotonic()
                tell(f"{rows:,} rows, {errors:,} with an error")
    return rows, errors


def output_schema(signature: Signature) -> pa.Schema:
    """The columns of a batch's output. An output of the model that is called like one of ours gets a `_`."""
    import pyarrow as pa

    plain = {"BYTES": pa.string(), "FP32": pa.float32(), "FP64": pa.float64(), "BOOL": pa.bool_()}
    whole = {
        f"{sign}INT{bits}": getattr(pa, f"{sign.lower()}int{bits}")() for sign in ("", "U") for bits in (8, 16, 32, 64)
    }
    fields = [("sample_id", pa.string()), ("uri", pa.string())]
    for spec in signature.outputs:
        kind = {**plain, **whole}.get(spec.datatype, pa.float32())
        for _ in spec.shape[1:]:
            kind = pa.list_(kind)
        fields.append((f"{spec.name}_" if spec.name in _SPECIAL else spec.name, kind))
    return pa.schema([*fields, ("error", pa.string())])


def _batch(part: Answered, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    outputs: Mapping[str, np.ndarray] = part.outputs
    columns: dict[str, list[Any]] = {
        "sample_id": [row.sample_id for row in part.rows],
        "uri": [_uri(row) for row in part.rows],
        "error": [part.errors.get(place) for place in range(len(part.rows))],
    }
    for name in schema.names:
        if name not in columns:
            values = iter(outputs.get(name.removesuffix("_") if name not in outputs else name, ()))
            columns[name] = [None if place in part.errors else _plain(next(values)) for place in range(len(part.rows))]
    return pa.RecordBatch.from_pydict({name: columns[name] for name in schema.names}, schema=schema)


def _uri(row: Row) -> str:
    return row.uri if row.row is None else f"{row.uri}#{row.row}"
