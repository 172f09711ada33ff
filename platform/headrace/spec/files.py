"""What a spec points at: its data, its own code, its first weights. Paths become absolute; what is missing is named.

Nothing here imports a user's code: a class is looked for in the syntax tree.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from headrace.spec.findings import instead, shown
from headrace.spec.fold import Folded
from headrace.spec.model import BUILTIN_SOURCES
from headrace_models import catalog
from headrace_models.catalog import listed

_OWN = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")
TORCHVISION = "torchvision:"  # begins weights by torchvision's name for them
PICKLES = (".pth", ".pt")  # files of weights as PyTorch saves them
_TORCHVISION = re.compile(rf"{TORCHVISION}[A-Za-z]\w*(\.[A-Za-z]\w*)?")
_REFERENCE = re.compile(r"[A-Za-z0-9_.-]+(@[A-Za-z0-9_-]+|/\d+)")  # a registered version: name@alias or name/3


def is_local(source: str) -> bool:
    """Whether SOURCE lies on this machine."""
    return not source.startswith("builtin:") and ("://" not in source or source.startswith("file://"))


def resolve(folded: Folded, folder: FilePath, target: str) -> None:
    """Make the paths of the folded record absolute, relative ones seen from FOLDER, and report what is not there."""
    data, model = folded.record.get("data"), folded.record.get("model")
    if isinstance(data, dict) and isinstance(data.get("source"), str) and data["source"]:
        data["source"] = _source(folded, data["source"], folder, target)
    if isinstance(model, dict):
        _own_code(folded, model, folder)
        if isinstance(model.get("init_from"), str) and model["init_from"]:
            model["init_from"] = _init_from(folded, model["init_from"], folder)


def _absolute(path: str, folder: FilePath) -> FilePath:
    # not resolve(): a link to the data of today must stay a link
    return FilePath(os.path.abspath(folder / FilePath(path.removeprefix("file://")).expanduser()))  # noqa: PTH100


def _source(folded: Folded, source: str, folder: FilePath, target: str) -> str:
    path = ("data", "source")
    if source.startswith("builtin:"):
        if source not in BUILTIN_SOURCES:
            near = instead(source, BUILTIN_SOURCES, "take one of these, or a folder of your own")
            folded.report(path, f"no {source}", listed(source, BUILTIN_SOURCES), near)
        return source
    if not is_local(source):
        _protocol(folded, source)
        return source
    absolute = _absolute(source, folder)
    if not absolute.exists():
        _missing(folded, path, source, absolute, "a file or folder that exists, or a URL")
    elif target != "local":
        folded.report(
            path,
            f"{shown(source)} lies on this machine, where {target} cannot read it",
            "a URL that the cluster can read (s3://, gs://, https://)",
            "copy the data to a bucket and name that, or run without `--on`",
        )
    return str(absolute)


def _protocol(folded: Folded, source: str) -> None:
    from fsspec import available_protocols  # only URLs need it, and it is slow to import

    known = available_protocols()
    for protocol in re.split("::", source.split("://", 1)[0]):
        if protocol not in known:
            allowed = "s3, gs, https, and what else fsspec knows"
            folded.report(
                ("data", "source"), f"no protocol {shown(protocol)}", allowed, instead(protocol, known, allowed)
            )


def _missing(folded: Folded, path: tuple[str, ...], given: str, absolute: FilePath, allowed: str) -> None:
    """Report a path that does not exist, with what lies where it was looked for."""
    parent = absolute.parent
    siblings = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    near = catalog.nearest(absolute.name, siblings)
    action = (
        f"did you mean {parent / near[0]}?" if near else "correct the path (a relative one starts at the spec's folder)"
    )
    folded.report(path, f"{shown(given)} does not exist: {absolute}", allowed, action)


def _init_from(folded: Folded, given: str, folder: FilePath) -> str:
    path = ("model", "init_from")
    if given.startswith(TORCHVISION):
        if not _TORCHVISION.fullmatch(given):
            forms = f"{TORCHVISION}MODEL, or {TORCHVISION}CLASS.NAME of its weights"
            folded.report(
                path, shown(given), forms, f"as {TORCHVISION}resnet18, or {TORCHVISION}ResNet18_Weights.DEFAULT"
            )
        return given
    if "://" in given and not given.startswith("file://"):
        if given.endswith(PICKLES):
            allowed = "a .safetensors file or a package, where it is a URL"
            folded.report(path, shown(given), allowed, "download it and name the file: it is converted on the way")
        return given
    absolute = _absolute(given, folder)
    if absolute.is_file() and absolute.suffix not in (".safetensors", *PICKLES):
        folded.report(
            path, shown(given), f".safetensors, {', '.join(PICKLES)}", "save the weights in one of these forms"
        )
    if absolute.exists():
        return str(absolute)
    if _REFERENCE.fullmatch(given):
        return given
    _missing(folded, path, given, absolute, "weights that exist, a URL, NAME@ALIAS, or torchvision:NAME")
    return given


def _own_code(folded: Folded, model: dict[str, Any], folder: FilePath) -> None:
    name, code = model.get("name"), model.get("code")
    if not isinstance(name, str) or (":" not in name and code is None):
        return
    form = '"module:Class", as "my_model:Net"'
    match = _OWN.fullmatch(name)
    if match is None:
        folded.report(
            ("model", "name"), shown(name), f"{form}, with `code`", "write the file's name, a colon, the class"
        )
    if code is None:
        folded.report(("model", "code"), "missing", "the folder that holds your code", "add `code: ./FOLDER`")
    if not isinstance(code, str) or not code:
        return
    absolute = _absolute(code, folder)
    model["code"] = str(absolute)
    if not absolute.exists():
        _missing(folded, ("model", "code"), code, absolute, "a folder that exists")
    elif not absolute.is_dir():
        folded.report(("model", "code"), f"{shown(code)} is a file", "a folder", "name the folder that the file is in")
    elif match is not None:
        _class(folded, absolute, match["module"], match["name"])


def _class(folded: Folded, code: FilePath, module: str, name: str) -> None:
    """Report a module or a class that the folder does not have."""
    stem = code.joinpath(*module.split("."))
    file = next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)
    if file is None:
        modules = sorted(path.stem for path in code.glob("*.py"))
        action = instead(module, modules, "name a module of that folder")
        folded.report(("model", "name"), f"no module {module} in {code}", listed(module, modules), action)
        return
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        folded.report(
            ("model", "code"), f"{file}, line {line}: {getattr(error, 'msg', error)}", "python", "mend it there"
        )
        return
    names = _top_level_names(tree)
    if name not in names and "*" not in names:
        action = instead(name, names, f"name a class of {file.name}")
        folded.report(("model", "name"), f"no {name} in {file}", listed(name, names) or "nothing", action)


def _top_level_names(tree: ast.Module) -> Sequence[str]:
    """What a module defines or imports, classes first; "*" for what cannot be told."""
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    others: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            others.append(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            others += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            others += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            others.append("*")
    return [*classes, *others]
