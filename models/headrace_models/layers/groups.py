"""Parameters in groups with settings of their own: by name, and by how deep a layer lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from headrace.base.errors import Finding, SpecInvalid
from headrace_models.catalog.names import matches, nearest

Named = tuple[str, torch.Tensor]


def layers_of(parameters: Sequence[Named]) -> list[int]:
    """The layer of each parameter, from 0, in the order in which the network defines them.

    Each tensor of two dimensions or more begins a layer; biases and norms (one dimension) belong to the one before.
    """
    layer, seen, layers = 0, False, []
    for _, parameter in parameters:
        if parameter.ndim >= 2:
            layer, seen = layer + seen, True
        layers.append(layer)
    return layers


def parameter_groups(
    parameters: Sequence[Named], lr: float, groups: Sequence[Mapping[str, Any]], layer_decay: float
) -> list[dict[str, Any]]:
    """PARAMETERS as PyTorch's optimizers take groups: those of no group first, the last layer first.

    A parameter belongs to the first of GROUPS (`{"match", "lr", "weight_decay"}`, None: as all) that matches its name.
    Its learning rate is that of its group times LAYER_DECAY for each layer above it.

    Raises:
        SpecInvalid: a group matches no parameter that is trained, or none that an earlier group leaves.
    """
    layers = layers_of(parameters)
    deepest = max(layers, default=0)
    buckets: dict[tuple[int, int], list[torch.Tensor]] = {}
    for (name, parameter), layer in zip(parameters, layers, strict=True):
        place = next((i for i, group in enumerate(groups) if matches(name, group["match"])), -1)
        above = deepest - layer if layer_decay != 1 else 0
        buckets.setdefault((place, above), []).append(parameter)
    _all_used(groups, {place for place, _ in buckets}, [name for name, _ in parameters])
    made = []
    for (place, above), members in sorted(buckets.items(), key=lambda item: item[0]):
        own = {} if place < 0 else {key: groups[place][key] for key in ("lr", "weight_decay")}
        rate = own.pop("lr", None) or lr
        own = {key: value for key, value in own.items() if value is not None}
        made.append({"params": members, "lr": rate * layer_decay**above, **own})
    return made


def _all_used(groups: Sequence[Mapping[str, Any]], used: set[int], names: Sequence[str]) -> None:
    findings = []
    for place, group in enumerate(groups):
        if place not in used:
            pattern = group["match"]
            taken = any(matches(name, pattern) for name in names)
            close = nearest(pattern, names) or list(names[-3:])
            hint = "move it before the group that takes them" if taken else f"the nearest are {', '.join(close)}"
            allowed = "the beginning of a trained parameter's name, or a pattern with *"
            findings.append(Finding(f"train.optimizer.args.groups.{place}.match", repr(pattern), allowed, hint))
    if findings:
        raise SpecInvalid(
            f"a group of the optimizer has no parameters: {findings[0]}",
            action="mend train.optimizer.groups",
            findings=findings,
        )
