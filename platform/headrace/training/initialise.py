"""Where weights start: those of another model where `model.init_from` names one, and which of them stay as they are.

Weights are matched by name and shape, because the usual case is a backbone whose head has other classes; what was taken
and what was not is told, since a typo in a name would otherwise train from scratch unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any

import torch

from headrace.base.errors import Finding, InvalidInput, SpecInvalid
from headrace.store.filesystems import open_filesystem, reached, read_whole
from headrace_models.catalog import matches

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Matching:
    """Which of the given weights fit, by name.

    Initialised anew are `reshaped` (same name, other shape), `other_classes` (the head of a model of other classes),
    `not_finite` (the given ones are no numbers) and `missing`; `unused` are given ones of no name. `by_shape` says why
    nothing but shapes was gone by, where the classes are others and the head cannot be told.
    """

    loaded: tuple[str, ...]
    reshaped: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    other_classes: tuple[str, ...] = ()
    not_finite: tuple[str, ...] = ()
    by_shape: str = ""

    def __str__(self) -> str:
        told = [
            ("initialised anew because of another shape", self.reshaped),
            ("initialised anew because their classes are others", self.other_classes),
            ("initialised anew because the given ones are no finite numbers", self.not_finite),
            ("initialised anew because they are not there", self.missing),
            ("of the given ones not used", self.unused),
        ]
        parts = [f"{len(names)} {what} ({_some(names)})" for what, names in told if names]
        if self.by_shape:
            parts.append(
                "its classes are others, but what its head is cannot be told, so that a head of this shape was taken "
                f"too: {self.by_shape}"
            )
        return "; ".join([f"{len(self.loaded)} weights loaded", *parts])

    def to_record(self) -> dict[str, list[str]]:
        """All names, as plain JSON values."""
        return {kind: list(names) for kind, names in asdict(self).items() if kind != "by_shape"}


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def match_weights(
    own: Mapping[str, Shape],
    given: Mapping[str, Shape],
    other_classes: Collection[str] = (),
    not_finite: Collection[str] = (),
) -> Matching:
    """Match a model's OWN weights with the GIVEN ones, by name and shape; the names of the last two are not taken."""
    same = [name for name in own if name in given and own[name] == given[name]]
    fitting = [name for name in same if name not in other_classes]
    return Matching(
        loaded=tuple(name for name in fitting if name not in not_finite),
        reshaped=tuple(name for name in own if name in given and own[name] != given[name]),
        missing=tuple(name for name in own if name not in given),
        unused=tuple(name for name in given if name not in own),
        other_classes=tuple(name for name in same if name in other_classes),
        not_finite=tuple(name for name in fitting if name in not_finite),
    )


def read_weights(uri: str) -> dict[str, torch.Tensor]:
    """The weights of a package's folder or of one safetensors file.

    Raises:
        InvalidInput: there is neither at URI, or it cannot be read.
        Unavailable: its store does not answer.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        filesystem, path = open_filesystem(uri)
        with reached(uri, filesystem):
            if not path.endswith(".safetensors") and filesystem.isdir(path):
                path = f"{path.rstrip('/')}/model.safetensors"
            weights = load(read_whole(filesystem, path))
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidInput(
            f"model.init_from: no weights can be read from {uri}: {error}",
            action="give a package of the store, a folder with model.safetensors, or a .safetensors file",
        ) from error
    if weights and all(name.startswith("module.") for name in weights):  # saved out of DDP
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return weights


def read_task(uri: str) -> dict[str, Any] | None:
    """What the package at URI says of its task; None where URI is not a package's folder. Raises as `read_weights`."""
    filesystem, path = open_filesystem(uri)
    manifest = f"{path.rstrip('/')}/headrace.json"
    with reached(uri, filesystem):
        if path.endswith(".safetensors") or not filesystem.exists(manifest):
            return None
        text = read_whole(filesystem, manifest)
    try:
        record = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"model.init_from: {manifest} is no JSON: {error}", action="give a whole package") from error
    task = record.get("task") if isinstance(record, dict) else None
    return task if isinstance(task, dict) else None


def load_weights(
    model: torch.nn.Module, uri: str, head_of_others: Callable[[dict[str, Any]], Collection[str]] | None = None
) -> Matching:
    """Start MODEL from the weights at URI, as far as names and shapes agree.

    Args:
        head_of_others: of MODEL's weights, the head, where the task of the package at URI has other classes than MODEL
            has; else nothing. Where it raises InvalidInput, shapes alone are gone by.

    Raises:
        InvalidInput: not one weight fits, or nothing can be read.
    """
    given = read_weights(uri)
    theirs = read_task(uri) if head_of_others is not None else None
    own = model.state_dict()
    head, by_shape = _head(head_of_others, theirs)
    matching = match_weights(
        {name: tuple(value.shape) for name, value in own.items()},
        {name: tuple(value.shape) for name, value in given.items()},
        head,
        {name for name, value in given.items() if not torch.isfinite(value).all()},
    )
    if not matching.loaded:
        raise InvalidInput(
            f"model.init_from: none of the {len(given)} weights in {uri} fits the model",
            action=f"its own are named like {_some(list(own))}, the given ones like {_some(list(given))}",
        )
    model.load_state_dict({name: given[name] for name in matching.loaded}, strict=False)
    return replace(matching, by_shape=by_shape)


def _head(
    head_of_others: Callable[[dict[str, Any]], Collection[str]] | None, theirs: dict[str, Any] | None
) -> tuple[Collection[str], str]:
    """The head of other classes, and why it cannot be told where that is so."""
    if head_of_others is None or theirs is None:
        return (), ""
    try:
        return head_of_others(theirs), ""
    except InvalidInput as error:
        return (), error.message


def frozen_names(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """The parameters among NAMES that any of PATTERNS matches: a beginning ("layer1.") or a pattern ("*.bias").

    Raises:
        SpecInvalid: a pattern matches none, or nothing would be left to train.
    """
    known = list(names)
    found = {pattern: {name for name in known if matches(name, pattern)} for pattern in patterns}
    findings = [
        Finding(
            "model.freeze",
            pattern,
            "patterns that match the model's parameters",
            f"the nearest are {_some(get_close_matches(pattern, known, 3, 0.0))}",
        )
        for pattern, matched in found.items()
        if not matched
    ]
    if findings:
        raise SpecInvalid(str(findings[0]), action="mend model.freeze", findings=findings)
    frozen = set().union(*found.values())
    if frozen and frozen == set(known):
        raise SpecInvalid(
            "model.freeze freezes every parameter: nothing is left to train",
            action="leave something out of model.freeze",
            findings=[Finding("model.freeze", ", ".join(patterns), "patterns that leave some parameters free", "")],
        )
    return frozen


def freeze(model: torch.nn.Module, patterns: Sequence[str]) -> None:
    """Keep the parameters that PATTERNS match as they are. Raises as `frozen_names`."""
    frozen = frozen_names((name for name, _ in model.named_parameters()), patterns)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
