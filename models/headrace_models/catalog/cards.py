"""Cards: what Headrace knows of a task, a model or a training component before any of them is imported.

A spec is judged, planned and completed from cards alone, on an install without torch. `target` is imported only when
the thing is built. Arguments are pydantic models that forbid extra keys: their fields are the documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Direction = Literal["max", "min"]


class Arguments(BaseModel):
    """Base of every card's arguments: unknown names are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoArguments(Arguments):
    """For what takes none."""


@dataclass(frozen=True)
class Card:
    """What all cards share."""

    name: str
    summary: str
    target: str  # "module:attribute"
    args: type[Arguments] = NoArguments
    source: str = ""  # paper and section

    def load(self) -> Any:
        """Import and return the target."""
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


@dataclass(frozen=True)
class TaskCard(Card):
    """A task: its target is a subclass of `headrace_models.tasks.base.Task`."""

    metrics: Mapping[str, Direction] = field(default_factory=dict)  # the first is the primary one
    losses: tuple[str, ...] = ()  # the first is the default
    formats: tuple[str, ...] = ()  # data formats it can read
    default_format: str = ""  # of several, the one that a spec need not name
    default_model: str = ""  # what `headrace init` proposes
    label_kind: Literal["class", "number", "annotation"] = "class"  # what the label is; splitting reads it so
    inputs: str = ""  # what its networks take, for people: shape and type
    outputs: str = ""  # what they give
    masks: bool = False  # whether an annotation must hold a mask; formats then read them
    composes: bool = False  # whether it can be one of several tasks of one model

    @property
    def primary_metric(self) -> str:
        """The metric that decides which epoch is the best."""
        return next(iter(self.metrics))


@dataclass(frozen=True)
class ModelCard(Card):
    """A zoo model: its target is called as `target(**facts_of_the_task, **args)` and returns an `nn.Module`.

    `facts_of_the_task` are those of `Task.model_facts()` whose names the target's signature takes.
    """

    tasks: tuple[str, ...] = ()
    together: bool = False  # it does several tasks at once, and only so
    proposals: bool = False  # it looks at regions that come with the picture
    learns: Literal["gradients", "statistics"] = "gradients"  # the latter: `headrace_models.layers.counting`
    begins_anew: bool = False  # nothing is left of weights it begins with, so that `init_from` has no effect
    parameters: int | None = None  # published size at the source's own shape, where there is one
    debug: Mapping[str, Any] = field(default_factory=dict)  # arguments of a size that trains on a CPU in seconds
    metric: str = ""  # what to expect of it: data, metric and value

    def suits(self, names: Sequence[str]) -> bool:
        """Whether it does the tasks called NAMES, all of them with one network."""
        return all(name in self.tasks for name in names) and (len(names) > 1) == self.together

    @property
    def does(self) -> str:
        """Its tasks, for a message."""
        return " and ".join(self.tasks) + " together" if self.together else ", ".join(self.tasks)


@dataclass(frozen=True)
class ComponentCard(Card):
    """An activation, loss, optimizer or schedule."""

    kind: Literal["activation", "loss", "optimizer", "schedule"] = "activation"
