"""From a spec's `model` part to a network: zoo models through their card, a user's own through their folder.

A network is called with the facts of the task that its signature takes (`num_classes`, `in_features`, ...) and with
`model.args`. Arguments win over facts of the same name: a person wrote them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from headrace.base.errors import Finding, InvalidInput, SpecInvalid
from headrace_models import catalog
from headrace_models.catalog.cards import ModelCard
from headrace_models.package.code import import_code, pack_code
from headrace_models.tasks.base import Arrays, Task

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def build_model(model: Mapping[str, Any], task: Task, code_dir: str | os.PathLike[str] | None = None) -> nn.Module:
    """The freshly initialised network that MODEL (`{"name", "args"}`) names, for TASK, which has learned its data.

    Args:
        code_dir: the folder of the user's own code; required where the name is "module:Class".

    Raises:
        InvalidInput: no such model, one that does not do this task, wrong arguments, or code that fails.
    """
    name, args = str(model["name"]), dict(model.get("args") or {})
    if ":" in name:
        if code_dir is None:
            raise InvalidInput(
                f"the model {name!r} is code of your own, but no folder is given", action="set model.code to its folder"
            )
        target = import_code(code_dir, pack_code(code_dir)[0], name)
        return _call(name, target, task.model_facts(), args)
    card = catalog.get("model", name)
    assert isinstance(card, ModelCard)
    names = task.names
    if not card.suits(names):
        able = [c.name for c in catalog.models().values() if c.suits(names)]
        raise InvalidInput(
            f"the model {name!r} does {card.does}, not {task.card.name}",
            action=f"choose one of: {', '.join(able)}" if able else "take another task",
        )
    checked = catalog.arguments(card, args, "model.args").model_dump()
    return _call(name, card.load(), task.model_facts(), checked)


def materialise(model: nn.Module, task: Task, request: Arrays) -> None:
    """Give lazy layers (`nn.LazyLinear`, ...) their shapes, by a pass of REQUEST through MODEL; the rest is left alone.

    Optimizers and DDP take no parameter without a shape. A package needs none of this: its weights have the shapes.

    Raises:
        InvalidInput: the pass fails, or a lazy layer is not part of it.
    """
    if not any(map(is_lazy, model.parameters())):
        return
    model.eval()  # no dropout, no statistics: the pass leaves nothing behind but shapes
    try:
        with torch.no_grad():
            model(*task.inputs(task.preprocess(request)))
    except Exception as error:
        raise InvalidInput(
            f"one sample could not be passed through {type(model).__name__}: {type(error).__name__}: {error}",
            action="mend its forward; its lazy layers take their shapes from this pass",
        ) from error
    if left := [name for name, parameter in model.named_parameters() if is_lazy(parameter)]:
        raise InvalidInput(
            f"lazy layers of {type(model).__name__} are not part of its forward: {', '.join(left)}",
            action="use them there, or remove them",
        )


def _call(name: str, target: Any, facts: Mapping[str, Any], args: Mapping[str, Any]) -> nn.Module:
    if not callable(target):
        raise InvalidInput(f"{name} is a {type(target).__name__}, not a class", action="name a subclass of nn.Module")
    keywords = _keywords(name, target, facts, args)
    try:
        built = target(**keywords)
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(
            f"building {name} failed: {type(error).__name__}: {error}",
            action=f"it was called with {', '.join(f'{k}={v!r}' for k, v in keywords.items()) or 'nothing'}",
        ) from error
    if not isinstance(built, nn.Module):
        raise InvalidInput(
            f"{name} gave a {type(built).__name__}, not a torch.nn.Module", action="name a subclass of nn.Module"
        )
    return built


def _keywords(
    name: str, target: Callable[..., Any], facts: Mapping[str, Any], args: Mapping[str, Any]
) -> dict[str, Any]:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return {**facts, **args}
    takes = [p.name for p in parameters if p.kind in _NAMED]
    findings = []
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        for given in args:
            if given not in takes:
                close = catalog.nearest(given, takes)
                action = f"did you mean {close[0]}?" if close else "remove it, or let the class take it"
                allowed = catalog.listed(given, takes) or "no arguments"
                findings.append(Finding(f"model.args.{given}", repr(args[given]), allowed, action))
    given_names = {*facts, *args}
    for parameter in parameters:
        if parameter.default is inspect.Parameter.empty and _missing(parameter, given_names):
            action = f"give it in model.args, or name it as a fact of the task: {', '.join(facts)}"
            findings.append(Finding(f"model.args.{parameter.name}", f"{name} requires it", "", action))
    if findings:
        raise SpecInvalid(
            f"{name} cannot be called as the spec says: {findings[0]}", action="mend model.args", findings=findings
        )
    return {**{k: v for k, v in facts.items() if k in takes}, **args}


def _missing(parameter: inspect.Parameter, given: set[str]) -> bool:
    if parameter.kind in _NAMED:
        return parameter.name not in given
    return parameter.kind is inspect.Parameter.POSITIONAL_ONLY
