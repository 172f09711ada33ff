"""Reading a spec: whole, then judged whole, so that every mistake is reported in one go."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from headrace.base.errors import Finding, SpecInvalid
from headrace.spec.files import resolve
from headrace.spec.findings import report_errors
from headrace.spec.fold import Folded, fold
from headrace.spec.judge import judge
from headrace.spec.model import RunSpec
from headrace.spec.overrides import apply
from headrace.spec.tuning import judge_trials, judge_tune
from headrace.spec.yaml_reader import Document, Path, read_yaml, written

LARGEST_BYTES = 1_000_000


def load_spec(
    spec: str | os.PathLike[str] | Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    target: str = "local",
) -> RunSpec:
    """The run spec in a YAML file or a mapping, in canonical form.

    Args:
        spec: path of a YAML file, or the mapping it would hold (short forms or a canonical record).
        overrides: `KEY=VALUE` each, as `train.epochs=2`; values are YAML.
        target: where it is to run: a cluster cannot read data of this machine.

    Raises:
        SpecInvalid: something is wrong; `findings` has every mistake. Relative paths start at the file's folder, or
            at the working directory for a mapping.
    """
    if isinstance(spec, Mapping):
        name, folder, document = "the spec", FilePath.cwd(), _from_mapping(spec)
    else:
        path = FilePath(spec)
        name, folder, document = str(path), path.absolute().parent, _read(path)
    return _judged(document, tuple(overrides), folder, name, target)


def _read(path: FilePath) -> Document:
    try:
        data = path.read_bytes()
        if len(data) > LARGEST_BYTES:
            return _hopeless(str(path), f"{len(data):,} bytes long", "a spec of some lines")
        return read_yaml(data.decode("utf-8-sig"))
    except FileNotFoundError:
        return _hopeless(str(path), "no such file", "a spec", "correct the path, or write one: headrace init FOLDER")
    except IsADirectoryError:
        return _hopeless(str(path), "a folder", "a spec", f"write one for it: headrace init {path}")
    except UnicodeDecodeError:
        return _hopeless(str(path), "not a text", "a spec in YAML")
    except OSError as error:
        return _hopeless(str(path), error.strerror or str(error), "a file that can be read")


def _hopeless(where: str, given: str, allowed: str, action: str = "name the spec's file") -> Document:
    return Document(findings=[Finding(where, given, allowed, action)])


def _from_mapping(spec: Mapping[str, Any]) -> Document:
    """The mapping as plain JSON values, which also is a copy that may be changed."""
    try:
        return Document(json.loads(json.dumps(dict(spec), default=_plain)))
    except (TypeError, ValueError) as error:
        return _hopeless("the spec", str(error), "plain values: texts, numbers, lists, mappings", "convert them first")


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} in it")


def _judged(document: Document, overrides: tuple[str, ...], folder: FilePath, name: str, target: str) -> RunSpec:
    value = document.value
    if value is None and not document.findings:
        document = _hopeless(name, "empty", "a spec", "write one: headrace init FOLDER")
    elif value is not None and not isinstance(value, dict):
        document = _hopeless(name, "not `key: value` lines", "a mapping", "begin with `name: ...`")
    if not isinstance(document.value, dict):
        raise _invalid(name, document.findings)
    paths, findings = apply(document.value, overrides)
    folded = fold(document.value)
    folded.findings[:0] = [*document.findings, *findings]
    spec = _validated(folded, folder, target)
    if spec is None:
        raise _invalid(name, _ordered(_attributed(folded.findings, paths), document.lines))
    return spec


def _validated(folded: Folded, folder: FilePath, target: str) -> RunSpec | None:
    """The spec, or None when FOLDED has findings."""
    try:
        # as JSON, which is strict about types without being strict about lists for tuples
        RunSpec.model_validate_json(json.dumps(folded.record))
    except ValidationError as error:
        report_errors(folded, error, RunSpec)
    judge(folded)
    judge_tune(folded, target)
    resolve(folded, folder, target)
    if not folded.findings:
        judge_trials(folded)
    return None if folded.findings else RunSpec.model_validate_json(json.dumps(folded.record))


def _attributed(findings: list[Finding], paths: list[Path]) -> list[Finding]:
    """FINDINGS once a place, those of an override said to be its."""
    prefixes = [written(path) for path in paths]
    seen: dict[str, Finding] = {}
    for finding in findings:
        set_here = any(_within(finding.where, prefix) for prefix in prefixes)
        where = f"--set {finding.where}" if set_here else finding.where
        seen.setdefault(where, Finding(where, finding.given, finding.allowed, finding.action))
    return list(seen.values())


def _within(where: str, prefix: str) -> bool:
    """Whether one of the two places holds the other (an unknown key is found at the topmost unknown part)."""
    longer, shorter = (where, prefix) if len(where) >= len(prefix) else (prefix, where)
    return longer == shorter or longer.startswith((f"{shorter}.", f"{shorter}["))


def _ordered(findings: list[Finding], lines: Mapping[Path, int]) -> list[Finding]:
    """FINDINGS in the order of the file, those without a place of their own at their parent's."""
    known = {written(path): line for path, line in lines.items()}

    def line(finding: Finding) -> int:
        where = finding.where.removeprefix("--set ")
        while where not in known and ("." in where or "[" in where):
            where = where[: max(where.rfind("."), where.rfind("["))]
        return known.get(where, 0)

    return sorted(findings, key=line)


def _invalid(name: str, findings: list[Finding]) -> SpecInvalid:
    count = len(findings)
    return SpecInvalid(
        f"{name} has {'a mistake' if count == 1 else f'{count} mistakes'}",
        action="mend it and run again" if count == 1 else "mend them and run again",
        findings=findings,
    )
